"""Held-out mutations of known proteins: does writing the mutation into the sequence help?

Experiment 1 of the paper's plan. One predictor per encoding and pooling is trained jointly on the
training rows of all assays and scored on the held-out rows of the same assays. Rows are held out
in two ways: at random (a model may have seen the same site with another residue) and by site (it
has not).
"""

import time
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed, parallel_config

from mutmeta_lib.models.predictor import Params, Predictor, predict
from mutmeta_lib.records.record import Record, recorded_parameters
from mutmeta_lib.study.estimates import contrast, estimate, named
from mutmeta_lib.study.evaluate import hold_out_task
from mutmeta_lib.study.setting import (
    describe_encoder,
    initial_params,
    load_assays,
    make_predictor,
    make_record,
)
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import Task, encode_assay

HOLD_OUTS = ("variants", "sites")


def encoding_experiment(
    *,
    data_dir: str = "demo",
    ids: Sequence[str] | None = None,
    per_protein: int = 0,
    encoder: str = "tiny",
    encodings: Sequence[str] = (
        "unknown_text",
        "unknown_site",
        "mutant",
        "wt_mutant_pair",
        "separator",
    ),
    poolings: Sequence[str] = ("cls", "sites"),
    hold_outs: Sequence[str] = HOLD_OUTS,
    held_out: float = 0.2,
    seeds: int = 5,
    steps: int = 600,
    assays_per_step: int = 4,
    batch_size: int = 32,
    lr: float = 1e-3,
    max_test: int | None = None,
    device: str = "auto",
    workers: int = 1,
    profile: str = "full",
    progress: Callable[[str], None] | None = None,
) -> Record:
    """Compare encodings on held-out mutations of proteins seen in training.

    Args:
        data_dir: ``demo`` or a folder in the layout of the data card.
        ids: assay ids to use; all when None.
        per_protein: at most so many assays per protein and property; 0 is all.
        encoder: ``tiny``, a local directory or a hub name.
        encodings: names from ``encoding.ENCODINGS``.
        poolings: names from ``pooling.POOLINGS``; the paper uses ``cls``.
        hold_outs: ``variants`` (random rows) and/or ``sites`` (all variants at held-out sites).
        held_out: fraction of variants, or of sites, held out per assay.
        seeds: number of seeds (starts, hold-outs, batches).
        steps: Adam steps of joint training.
        assays_per_step: assays per step.
        batch_size: training rows per assay and step.
        lr: Adam's rate.
        max_test: held-out rows scored per assay; all when None.
        device: ``auto``, ``cpu`` or ``cuda``.
        workers: processes that share the cells; it does not change results.
        profile: name of the profile, for the record.
        progress: called with one line of text per encoding, pooling and seed.

    Returns:
        A record: tables ``results`` (one row per assay, seed, hold-out, encoding and pooling),
        ``summary`` and ``differences`` (paired, separator minus each other encoding, same
        pooling); numbers ``<encoding>_<pooling>_<hold-out>`` (Spearman) and
        ``separator_minus_<encoding>_<pooling>_<hold-out>``.

    """
    parameters = recorded_parameters(locals())
    say = progress or (lambda line: None)
    assays = load_assays(data_dir, ids=ids, per_protein=per_protein)
    described = describe_encoder(make_predictor(encoder, poolings[0], seed=0, device="cpu"))

    def run_cell(encoding: str, pooling: str, seed: int) -> list[dict]:
        predictor = make_predictor(encoder, pooling, seed=seed, device=device)
        vocabulary, max_tokens = predictor.encoder.vocabulary, predictor.encoder.max_tokens
        encoded = [encode_assay(assay, encoding, vocabulary, max_tokens) for assay in assays]
        rows = []
        for hold_out in hold_outs:
            tasks = [hold_out_task(a, hold_out, held_out, seed, max_test) for a in encoded]
            params = train_jointly(
                predictor,
                initial_params(predictor, seed, device),
                tasks,
                steps=steps,
                assays_per_step=assays_per_step,
                batch_size=batch_size,
                lr=lr,
                rng=np.random.default_rng(seed),
            )
            where = {"encoding": encoding, "pooling": pooling, "hold_out": hold_out}
            rows += [{**where, "seed": seed, **_score(predictor, params, task)} for task in tasks]
        return rows

    cells = list(product(encodings, poolings, range(seeds)))
    rows = []
    began = time.perf_counter()
    # Cells are independent, so their number of processes changes nothing but the time they take.
    with parallel_config("loky", inner_max_num_threads=1):
        jobs = Parallel(n_jobs=workers, return_as="generator")(
            delayed(run_cell)(*cell) for cell in cells
        )
        for (encoding, pooling, seed), found in zip(cells, jobs, strict=True):
            rows += found
            say(f"{encoding}, {pooling} pooling, seed {seed}: done")
    results = pd.DataFrame(rows)
    summary, differences = _report(results)
    return make_record(
        "encodings",
        profile,
        parameters,
        assays=assays,
        encoder=described,
        device=device,
        seconds={"total": time.perf_counter() - began},
        numbers=named(summary, "{encoding}_{pooling}_{hold_out}")
        | named(differences, "separator_minus_{encoding}_{pooling}_{hold_out}"),
        tables={"results": results.round(5), "summary": summary, "differences": differences},
    )


def _score(predictor: Predictor, params: Params, task: Task) -> dict:
    """One row of the results: how well a task's held-out rows are ranked."""
    assay = task.query.assay.assay
    predicted = predict(predictor, params, task.query.tokens).numpy()
    return {
        "assay": assay.id,
        "protein": assay.protein,
        "property": assay.property,
        "n_test": len(task.query),
        "spearman": spearman(predicted, task.query.scores),
    }


def train_jointly(
    predictor: Predictor,
    params: Params,
    tasks: Sequence[Task],
    *,
    steps: int,
    assays_per_step: int,
    batch_size: int,
    lr: float,
    rng: np.random.Generator,
) -> Params:
    """Adam on the support rows of all tasks together; each step sees a few assays equally."""
    tuned = {name: value.detach().clone().requires_grad_(True) for name, value in params.items()}
    optimiser = torch.optim.Adam(tuned.values(), lr=lr)
    for _ in range(steps):
        optimiser.zero_grad()
        for index in rng.choice(len(tasks), min(assays_per_step, len(tasks)), replace=False):
            support = tasks[index].support
            rows = rng.choice(len(support), min(batch_size, len(support)), replace=False)
            (predictor.loss(tuned, support.take(rows)) / assays_per_step).backward()
        optimiser.step()
    return {name: value.detach() for name, value in tuned.items()}


def _report(results: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean Spearman per cell, and separator minus each other encoding, paired by assay."""
    by = ("pooling", "hold_out")
    summary = estimate(results, "spearman", by=("encoding", *by), over="assay")
    if "separator" not in set(results["encoding"]):
        return summary, pd.DataFrame()
    paired = contrast(results, "spearman", "encoding", "separator", by=by, over="assay")
    return summary, paired.assign(encoding=paired["baseline"])
