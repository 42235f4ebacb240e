"""How often the public code's comparison reports a figure when nothing was gained.

A data set is split anew again and again. Each time, many draws of the test are scored as the public
code scores its one: the error over a draw's query rows against fine-tuning's over the whole test
part; and the seconds of a training phase are set against fine-tuning's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from mutmeta_lib import __version__
from mutmeta_lib.learn import inner_update
from mutmeta_lib.learn.inner import Params
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.records.record import Record, number, recorded_parameters
from mutmeta_lib.records.store import Store
from mutmeta_lib.reproduction.protocol import POOLING, Parts, encode_protocol, fifth, read_protocol
from mutmeta_lib.reproduction.protocol_estimates import SHORT
from mutmeta_lib.reproduction.protocol_run import Protocol, Rows, Trial, draw_rows, targets
from mutmeta_lib.reproduction.query_draws import QUANTILES
from mutmeta_lib.reproduction.speed import timed
from mutmeta_lib.study.estimates import estimate
from mutmeta_lib.study.run import make_record
from mutmeta_lib.study.study import describe_encoder

FIGURES = {"binding_affinity": (29, 65), "soluprotmut_solubility": (94, 55)}
"""Target -> the paper's figures in %: more accurate, less training time. Binding affinity stands
for functional fitness, whose file is not in the version of 22 July 2025."""
ACCURATE, FAST = zip(*FIGURES.values(), strict=True)
ARMS = ("released", "second_order")
"""The joint updates of the public code, and MAML."""
METRICS = [f"over_{x}" for x in (*ACCURATE, *FAST)] + ["gain", "mean", *QUANTILES]
METRICS += ["same_rows", "saved"]
GROUP = ["target", "size", "method"]
TWIN = 1000
"""The seed of a second fine-tuning is that of the first, and so much more."""


def pooled(parts: Parts) -> Parts:
    """The rows of the initial fit, and of each data set both parts as one, in file order."""
    made = {"initial": parts["initial"]}
    for name in targets(parts):
        made[name] = pd.concat([parts[f"{name} train"], parts[f"{name} test"]]).sort_index()
    return made


def split_anew(data: Mapping[str, Rows], seed: int) -> dict[str, Rows]:
    """The parts that `Trial` reads: a random fifth of each data set is its test part."""
    made = {"initial": data["initial"]}
    for name in [name for name in data if name not in made]:
        train, test = map(data[name].take, fifth(len(data[name]), seed))
        made |= {f"{name} train": train, f"{name} test": test}
    return made


def time_saved(
    rows: int, size: int, *, sets: int, finetune_epochs: int, maml_epochs: int, inner_steps: int
) -> float:
    """Time saved over fine-tuning in %, if time goes with the rows that are read.

    Fine-tuning reads every training row once per epoch. Meta-training reads ``size`` support rows
    per inner step and ``size`` query rows, per epoch and data set, however many rows there are.

    >>> epochs = {"finetune_epochs": 5, "maml_epochs": 30}
    >>> round(time_saved(17019, 16, sets=2, inner_steps=5, **epochs), 1)
    93.2
    """
    read = maml_epochs * sets * (inner_steps + 1) * size
    return 100 * (1 - read / (finetune_epochs * rows))


def told(ratios: np.ndarray) -> dict[str, float]:
    """What the error ratios of many single draws report, all in %.

    ``gain`` is the geometric mean, the book's rule, and ``mean`` the plain one; then quantiles, the
    shares of draws that reach a figure, and the number of draws.
    """
    single = 100 * (1 - ratios)
    found = {"gain": 100 * (1 - np.exp(np.log(ratios).mean())), "mean": single.mean()}
    found |= {name: np.quantile(single, at) for name, at in QUANTILES.items()}
    found |= {f"over_{figure}": 100 * np.mean(single >= figure) for figure in ACCURATE}
    return {name: float(x) for name, x in found.items()} | {"draws": single.size}


def score_split(
    trial: Trial, starts: tuple[Params, Params], scored: Sequence[str], draws: int
) -> list[dict]:
    """Train everything on one re-split, and report its draws: a row per target, size and method.

    Methods are ``mean`` (of the training labels), ``support_mean``, ``finetuned`` (again, from the
    second start and in another order), ``finetuned_short`` (likewise, in as many gradients as
    meta-training takes) and `ARMS`, which have the first ``trial.protocol.draws`` draws alone. A
    row has what `told` says, ``same_rows`` (the gain over the first fine-tuning on the draw's own
    rows), ``saved`` (of its processor seconds, in %), whether that reaches a figure (100 or 0), the
    errors of ``mean`` and of the first fine-tuning over the whole test part (``error`` and
    ``reference``) and ``train_rows``.
    """
    own, twin, rows = trial.protocol, replace(trial, seed=trial.seed + TWIN), []
    for target in scored:
        (train, test), others, loss = trial.parts(target), trial.others(target), trial.loss(target)
        labels = test.labels.numpy()
        gradients = own.maml_epochs * len(others) * (own.inner_steps + 1)
        first, whole = timed(trial.fine_tune, loss, starts[0], train)
        reference = (trial.predict(first, test) - labels) ** 2
        squared = {"mean": (float(train.labels.mean()) - labels) ** 2}
        about = {"error": float(squared["mean"].mean()), "reference": float(reference.mean())}
        about["train_rows"] = len(train)
        seconds = {"mean": 0.0, "support_mean": 0.0}
        for method, steps in {"finetuned": 0, "finetuned_short": gradients}.items():
            asked = (twin.loss(target), starts[1], train, "finetuned", steps)
            tuned, seconds[method] = timed(twin.fine_tune, *asked)
            squared[method] = (trial.predict(tuned, test) - labels) ** 2
        for size in own.sizes:
            place = f"{target} {trial.seed}"
            drawn = [draw_rows(len(test), place, size, draw) for draw in range(draws)]
            support, query = map(np.stack, zip(*drawn, strict=True))
            errors = {method: values[query].mean(axis=1) for method, values in squared.items()}
            said = labels[support].mean(axis=1, keepdims=True)
            errors["support_mean"] = ((said - labels[query]) ** 2).mean(axis=1)
            for arm in ARMS:
                start, seconds[arm] = timed(trial.meta_train, arm, loss, starts[0], others, size)
                adapt = partial(inner_update, loss, start, loop=trial.inner)
                errors[arm] = np.array(
                    [trial.error(adapt(test.take(s)), test.take(q)) for s, q in drawn[: own.draws]]
                )
            for method, error in errors.items():
                row = {"target": target, "size": size, "method": method}
                row |= told(error / reference.mean())
                row["same_rows"] = told(error / reference[query[: len(error)]].mean(axis=1))["gain"]
                row["saved"] = 100 * (1 - seconds[method] / whole)
                row |= {f"over_{figure}": 100.0 * (row["saved"] >= figure) for figure in FAST}
                rows.append(row | about)
    return rows


def released_table(
    parts: Parts, anew: Sequence[str], sizes: Sequence[int], draws: int
) -> pd.DataFrame:
    """Always saying the mean, on the released test parts, against itself over the whole part.

    The mean is that of the training labels; of the test file itself, where that is all there is.
    """
    rows, files = [], pooled(parts)
    for target in targets(parts):
        test, train = (parts[f"{target} {part}"] for part in ("test", "train"))
        test, train = (files[target], files[target]) if target in anew else (test, train)
        squared = (test["label"].to_numpy() - train["label"].mean()) ** 2
        for size in sizes:
            drawn = [draw_rows(len(test), target, size, draw)[1] for draw in range(draws)]
            found = told(squared[np.stack(drawn)].mean(axis=1) / squared.mean())
            rows.append({"target": target, "size": size, "rows": len(test)} | found)
    return pd.DataFrame(rows)


def chance_numbers(tables: Mapping[str, pd.DataFrame], settings: Mapping) -> dict[str, dict]:
    """The numbers that pages name: ``<target>_<method>_<metric>_at_<size>``, over re-splits.

    ``<target>_by_rows_at_<size>`` is `time_saved`; with ``released_`` before it, a number is that
    of the mean on the released test part.
    """
    tables, named = {name: table.replace({"target": SHORT}) for name, table in tables.items()}, {}
    for row in tables["chances"].to_dict("records"):
        ends = (row["mean"], row["low"], row["high"], row["n_units"], "%")
        named["{target}_{method}_{metric}_at_{size}".format(**row)] = number(*ends)
    for row in tables["splits"].query("split == 0 and method == 'released'").to_dict("records"):
        saved = time_saved(row["train_rows"], row["size"], **settings)
        named["{target}_by_rows_at_{size}".format(**row)] = number(saved, unit="%")
    for row in tables["released"].to_dict("records"):
        for metric in ("gain", "mean", *(f"over_{figure}" for figure in ACCURATE)):
            name = f"released_{row['target']}_{metric}_at_{row['size']}"
            named[name] = number(row[metric], n=row["draws"], unit="%")
    return named


def chance_experiment(
    release_dir: str,
    protocol: Protocol,
    *,
    splits: int = 20,
    draws: int = 1000,
    profile: str = "full",
    checkpoint_dir: str | None = None,
    cache_dir: str | None = None,
) -> Record:
    """Score many draws of many re-splits: `score_split`, its means over them, `released_table`.

    ``release_dir`` is a copy of the public repository, or ``demo``, a miniature on bundled data.
    The protocol's encoder is frozen (its seconds are not counted), its encoding the first, its
    ``draws`` are those of `ARMS`, its ``seeds`` the initial fits (two at least), which no re-split
    touches: each takes one, and its second fine-tuning the next. Re-splits are kept in
    ``checkpoint_dir`` as they end, the encoder's vectors in ``cache_dir``.
    """
    own, fits = recorded_parameters(vars(protocol)), protocol.seeds
    parameters = own | {"release_dir": Path(release_dir).name, "splits": splits, "draws": draws}
    parameters |= {"arm_draws": protocol.draws, "fits": fits}
    parts, anew, hashes = read_protocol(release_dir)
    scored = [name for name in FIGURES if name in targets(parts)] or targets(parts)
    predictor = Predictor(protocol.load(), POOLING, start=None)
    how = {"frozen": True, "cache_dir": cache_dir}
    data = encode_protocol(pooled(parts), protocol.encodings[0], predictor.encoder, **how)
    question = parameters | {"splits": 0, "data": hashes, "version": __version__}
    question |= {"encoder": predictor.encoder.sha256}
    kept = Store(checkpoint_dir, question)

    @cache
    def fit(seed: int) -> Params:
        return Trial(predictor, data, protocol, seed).initial_fit()

    def one(split: int) -> dict:
        trial = Trial(predictor, split_anew(data, split), protocol, split)
        starts = fit(split % fits), fit((split + 1) % fits)
        made, spent = timed(score_split, trial, starts, scored, draws)
        return {"rows": made, "spent": spent}

    found = {split: kept.get(f"split {split}", partial(one, split)) for split in range(splits)}
    rows = pd.DataFrame([{"split": k} | row for k, made in found.items() for row in made["rows"]])
    over = estimate(rows.assign(assay=rows["split"]), METRICS, by=GROUP, over="assay")
    over = over[["metric", *GROUP, "mean", "low", "high", "n_units"]]
    released = released_table(parts, anew, protocol.sizes, 10 * draws)
    tables = {"splits": rows, "chances": over, "released": released}
    settings = {name: own[name] for name in ("finetune_epochs", "maml_epochs", "inner_steps")}
    settings |= {"sets": len(targets(parts)) - 1}
    how = {"data": hashes, "encoder": describe_encoder(predictor.encoder), "device": "cpu"}
    how |= {"tables": tables, "numbers": chance_numbers(tables, settings)}
    how["seconds"] = {"re-splits": sum(made["spent"] for made in found.values())}
    return make_record("chance", profile, parameters, **how)
