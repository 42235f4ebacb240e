"""Held-out mutations of a known protein on a frozen encoder: which encoding helps, and where.

For every assay a head is fitted on most of its variants and scored on the others, held out at
random or by site. Nothing is meta-learned; encodings differ in what a frozen encoder is shown.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV

from mutmeta_lib.data.mutation_types import mutation_types
from mutmeta_lib.data.splits import cluster_proteins
from mutmeta_lib.learn.baselines import RIDGE_PENALTIES
from mutmeta_lib.learn.finetune import finetune
from mutmeta_lib.models.encoders import load_encoder
from mutmeta_lib.models.predictor import Predictor, predict
from mutmeta_lib.records.record import Record, recorded_parameters
from mutmeta_lib.study.encodings import HOLD_OUTS, hold_out_task
from mutmeta_lib.study.frozen_heads import freeze_assays, read_assays, timed
from mutmeta_lib.study.intervals import interval_row, row_number
from mutmeta_lib.study.setting import (
    describe_encoder,
    finished_parts,
    initial_params,
    make_record,
)
from mutmeta_lib.study.vectors import Vectors
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import Task

HEADS = ("ridge", "mlp")


def held_out_experiment(
    *,
    data_dir: str = "demo",
    selection: str = "sound",
    roles: Sequence[str] | None = None,
    per_protein: int = 0,
    encoder: str = "tiny",
    encodings: Sequence[str] = ("unknown_text", "unknown_site", "mutant", "separator"),
    poolings: Sequence[str] = ("sites", "cls"),
    hold_outs: Sequence[str] = HOLD_OUTS,
    held_out: float = 0.2,
    min_variants: int = 50,
    max_length: int = 0,
    seeds: int = 3,
    mlp_seeds: int = 1,
    mlp_steps: int = 200,
    mlp_lr: float = 1e-3,
    profile: str = "full",
    progress: Callable[[str], None] | None = None,
    checkpoint_dir: str | None = None,
    cache_dir: str | None = None,
) -> Record:
    """Compare encodings on held-out variants of the same assay.

    Args:
        data_dir: ``demo`` or a data directory.
        selection: its assays.
        roles: kinds of assays of the selection; all when None.
        per_protein: assays per protein and property of the bundled data; 0 is all.
        encoder: ``tiny``, a local directory or a hub name; it is frozen.
        encodings: names from ``encoding.ENCODINGS``, ``separator`` among them.
        poolings: names from ``pooling.POOLINGS``.
        hold_outs: ``variants`` (random rows) and/or ``sites`` (all variants at held-out sites).
        held_out: fraction of variants, or of sites, held out per assay.
        min_variants: smaller assays are left out.
        max_length: assays of longer proteins are left out; 0 means none.
        seeds: number of hold-outs.
        mlp_seeds: number of them on which the MLP head is trained as well (first pooling).
        mlp_steps: Adam steps of the MLP head.
        mlp_lr: its rate.
        profile: name of the profile, for the record.
        progress: called with one line of text per encoding and pooling.
        checkpoint_dir: finished parts are kept here.
        cache_dir: pooled vectors are kept here.

    Returns:
        A record: tables ``results`` (means over seeds), ``summary``, ``differences`` (separator
        minus another, Spearman) and ``types`` (ridge, first pooling: squared error of the other
        minus that of separator in units of the training scores' variance, by type of mutation);
        numbers ``<encoding>_<pooling>_<head>_<hold-out>``,
        ``separator_minus_<encoding>_<pooling>_<head>_<hold-out>``, both also with ``_<property>``,
        and ``type_<type>_<encoding>_<hold-out>``. Positive favours the separator throughout.

    """
    parameters = recorded_parameters(locals())
    say = progress or (lambda line: None)
    assays = read_assays(data_dir, selection, None, per_protein, roles)
    assays = [
        assay
        for assay in assays
        if len(assay) >= min_variants and len(assay.wild_type) <= (max_length or np.inf)
    ]
    clusters = cluster_proteins(assays)
    loaded = load_encoder(encoder)
    hashes = {assay.id: assay.sha256 for assay in assays}
    pieces = finished_parts(checkpoint_dir, parameters, hashes, loaded.sha256)
    rows, by_type, spent = [], [], 0.0
    for encoding in encodings:
        for pooling in poolings:

            def cell(encoding: str = encoding, pooling: str = pooling) -> dict:
                frozen = freeze_assays(
                    loaded, assays, encoding=encoding, pooling=pooling, cache_dir=cache_dir
                )
                first = pooling == poolings[0]
                made = {"rows": [], "types": []}
                for seed in range(seeds):
                    heads = HEADS if first and seed < mlp_seeds else HEADS[:1]
                    for hold_out in hold_outs:
                        found = score(frozen, hold_out, held_out, seed, heads, mlp_steps, mlp_lr)
                        where = {"encoding": encoding, "pooling": pooling, "hold_out": hold_out}
                        made["rows"] += [where | row for row in found["rows"]]
                        made["types"] += [where | row for row in found["types"] if first]
                return made

            kept, seconds = timed(pieces, f"{encoding} {pooling}", cell)
            spent += seconds
            rows += kept["rows"]
            by_type += kept["types"]
            say(f"{encoding}, {pooling}: done")
    results, types = pd.DataFrame(rows), pd.DataFrame(by_type)
    about = {a.id: clusters[a.wild_type] for a in assays}
    for table in (results, types):
        table["cluster"] = table["assay"].map(about)
    keys = ["encoding", "pooling", "head", "hold_out", "assay", "property", "cluster"]
    means = results.groupby(keys, as_index=False, sort=False)["spearman"].mean()
    summary, differences, numbers = compare_encodings(means)
    typed, typed_numbers = compare_types(types)
    return make_record(
        "held_out",
        profile,
        parameters,
        assays=assays,
        encoder=describe_encoder(Predictor(loaded, poolings[0])),
        device="cpu",
        seconds={"on vectors": spent},
        numbers=numbers | typed_numbers,
        tables={
            "results": means.round(4),
            "summary": summary.round(5),
            "differences": differences.round(5),
            "types": typed.round(5),
        },
    )


def score(
    frozen: Vectors,
    hold_out: str,
    fraction: float,
    seed: int,
    heads: Sequence[str],
    steps: int,
    lr: float,
) -> dict[str, list[dict]]:
    """Fit every head on every assay's training rows; ranks and squared errors on the others."""
    features, predictor = frozen.features, frozen.predictor
    made: dict[str, list[dict]] = {"rows": [], "types": []}
    for assay in frozen.assays.values():
        task = hold_out_task(assay, hold_out, fraction, seed)
        about = {"assay": assay.assay.id, "property": assay.assay.property, "seed": seed}
        for head in heads:
            if head == "ridge":
                predicted = _ridge(task, features)
                made["types"] += [{**about, **row} for row in typed_errors(task, predicted)]
            else:
                start = initial_params(predictor, seed, "cpu")
                tuned = finetune(predictor.loss, start, task.support, lr=lr, steps=steps)
                predicted = predict(predictor, tuned, task.query.tokens).numpy()
            rank = spearman(predicted, task.query.scores)
            made["rows"].append({**about, "head": head, "spearman": rank})
    return made


def _ridge(task: Task, features) -> np.ndarray:
    model = RidgeCV(alphas=RIDGE_PENALTIES).fit(features(task.support), task.support.labels.numpy())
    return model.predict(features(task.query))


def typed_errors(task: Task, predicted: np.ndarray) -> list[dict]:
    """Mean squared error (of scaled labels, clipped at 25) and count by type of mutation."""
    errors = np.minimum((predicted - task.query.labels.numpy()) ** 2, 25.0)
    groups: dict[str, list[float]] = {"all": []}
    for variant, error in zip(task.query.variants, errors, strict=True):
        groups["all"].append(error)
        if len(variant) == 1:
            for name in mutation_types(variant[0]):
                groups.setdefault(name, []).append(error)
    return [
        {"type": name, "error": float(np.mean(values)), "n": len(values)}
        for name, values in groups.items()
        if values
    ]


def compare_encodings(
    means: pd.DataFrame,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, dict]]:
    """Mean Spearman per cell and property, and separator minus each other encoding, paired."""
    summary, differences, made = [], [], {}
    for (pooling, head, hold_out), cell in means.groupby(
        ["pooling", "head", "hold_out"], sort=False
    ):
        wide = cell.pivot(index=["assay", "property", "cluster"], columns="encoding")["spearman"]
        wide = wide.reset_index()
        parts = [("", wide)] + [(f"_{name}", part) for name, part in wide.groupby("property")]
        for suffix, part in parts:
            where = {"pooling": pooling, "head": head, "hold_out": hold_out}
            where["property"] = suffix.strip("_") or "all"
            for encoding in cell["encoding"].unique():
                name = f"{encoding}_{pooling}_{head}_{hold_out}{suffix}"
                row = interval_row(part[encoding], part["cluster"])
                summary.append({"encoding": encoding, **where, **row})
                made[name] = row_number(row)
                if encoding != "separator":
                    row = interval_row(part["separator"] - part[encoding], part["cluster"])
                    differences.append({"encoding": encoding, **where, **row})
                    made[f"separator_minus_{name}"] = row_number(row)
    return pd.DataFrame(summary), pd.DataFrame(differences), made


def compare_types(types: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, dict]]:
    """By type of mutation: another encoding's squared error minus separator's, paired by assay."""
    keys = ["hold_out", "type", "assay", "cluster"]
    wide = types.groupby([*keys, "encoding"])["error"].mean().unstack().reset_index()
    others = [name for name in types["encoding"].unique() if name != "separator"]
    rows, made = [], {}
    for (hold_out, kind), part in wide.groupby(["hold_out", "type"], sort=False):
        for other in others:
            row = interval_row(part[other] - part["separator"], part["cluster"])
            rows.append({"type": kind, "encoding": other, "hold_out": hold_out, **row})
            made[f"type_{kind.replace(' ', '_')}_{other}_{hold_out}"] = row_number(
                row, "of the variance"
            )
    return pd.DataFrame(rows), made
