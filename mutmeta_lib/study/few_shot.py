"""Few-shot curves on proteins never seen in meta-training: the paper's central comparison."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import pandas as pd

from mutmeta_lib.data.splits import protein_folds
from mutmeta_lib.learn.methods import METHODS
from mutmeta_lib.models.zero_shot import describe_head
from mutmeta_lib.records.progress import shown_progress, silent
from mutmeta_lib.records.record import Record, number, recorded_parameters
from mutmeta_lib.study.evaluate import compare, summarise
from mutmeta_lib.study.few_shot_run import Comparison, compare_once
from mutmeta_lib.study.intervals import row_number
from mutmeta_lib.study.parallel import run_all
from mutmeta_lib.study.setting import (
    describe_encoder,
    load_assays,
    make_predictor,
    make_record,
    outer_loop,
)
from mutmeta_lib.tasks.metrics import METRICS

ALL_METHODS = tuple(METHODS)
DEFAULT_METHODS = ("maml", "multitask", "finetune", "ridge", "gp", "onehot", "blosum", "mean")
REPORTED = ("spearman", "ndcg", "relative_mse")


def few_shot_experiment(
    *,
    data_dir: str = "demo",
    ids: Sequence[str] | None = None,
    per_protein: int = 0,
    encoder: str = "tiny",
    encoding: str = "separator",
    pooling: str = "sites",
    methods: Sequence[str] = DEFAULT_METHODS,
    shots: Sequence[int] = (0, 1, 5, 10),
    seeds: int = 5,
    n_folds: int = 3,
    folds: Sequence[int] | None = None,
    meta_steps: int = 200,
    tasks_per_step: int = 4,
    support: int = 10,
    query: int = 16,
    inner_steps: int = 5,
    inner_lr: float = 0.01,
    first_order: bool = False,
    meta_lr: float = 1e-3,
    adapt_steps: int = 10,
    max_query: int | None = None,
    backend: str = "torch.func",
    device: str = "auto",
    workers: int = 1,
    checkpoint_dir: str | None = None,
    cache_dir: str | None = None,
    log_dir: str | None = None,
    profile: str = "full",
    progress: Callable[[str], None] | None = None,
) -> Record:
    """Meta-train on some proteins, adapt on a few labels of others, compare with the controls.

    For every fold and seed: MAML and the joint-training control are trained on the same labels of
    the meta-training proteins for the same number of steps; each gradient method's optimiser and
    rate is chosen on the meta-validation proteins from a grid of the same size; then all methods
    see the same supports of the meta-test assays and take the same number of gradient steps.

    Args:
        data_dir: ``demo`` or a folder in the layout of the data card.
        ids: assay ids to use; all when None.
        per_protein: at most so many assays per protein and property; 0 is all.
        encoder: ``tiny``, a local directory or a hub name.
        encoding: how a variant is written as tokens.
        pooling: how hidden states become one vector.
        methods: names from ``methods.METHODS``.
        shots: support sizes to evaluate.
        seeds: number of seeds; each draws new starts, tasks and supports.
        n_folds: groups of proteins; each is the test group of one fold.
        folds: which folds to run; all when None.
        meta_steps: outer steps of MAML and of joint training.
        tasks_per_step: tasks per outer step.
        support: support size in meta-training.
        query: query size in meta-training.
        inner_steps: inner steps in meta-training.
        inner_lr: inner rate in meta-training.
        first_order: ignore second derivatives in meta-training.
        meta_lr: Adam rate of the outer loop.
        adapt_steps: gradient steps on a test task, the same for every gradient method.
        max_query: query variants per test task; all when None.
        backend: implementation of the meta-gradient.
        device: ``auto``, ``cpu`` or ``cuda``.
        workers: processes that share the runs (fold, seed); it does not change results.
        checkpoint_dir: folder for checkpoints and finished parts; a killed run started again with
            the same parameters goes on from them and ends at the same numbers.
        cache_dir: folder that keeps embeddings for the next run with the same encoder.
        log_dir: folder for TensorBoard's curves of meta-training.
        profile: name of the profile, for the record.
        progress: called with one line of text after each run, in place of bars on standard error.

    Returns:
        A record: table ``results`` (one row per method, assay, seed, shots), ``summary``,
        ``differences`` (paired, MAML minus each other method), ``choices``, ``history``; numbers
        ``<method>_<shots>_<metric>``, ``maml_minus_<method>_<shots>_<metric>`` and
        ``diverged_adaptations`` (test adaptations that fell back to their start).

    """
    parameters = recorded_parameters(locals())
    assays = load_assays(data_dir, ids=ids, per_protein=per_protein)
    predictor = make_predictor(encoder, pooling, seed=0, device="cpu")
    described = describe_encoder(predictor) | describe_head(methods, predictor.encoder)
    setting = Comparison(
        assays=assays,
        splits=protein_folds(assays, n_folds),
        encoder=encoder,
        encoder_sha256=described["sha256"],
        encoding=encoding,
        pooling=pooling,
        methods=methods,
        shots=shots,
        settings=outer_loop(
            parameters, validate_every=max(5, meta_steps // 10), validation_tasks=8
        ),
        adapt_steps=adapt_steps,
        max_query=max_query,
        device=device,
        cache_dir=cache_dir,
        checkpoint_dir=checkpoint_dir,
        log_dir=log_dir,
        parameters=parameters,
    )
    chosen = range(n_folds) if folds is None else folds
    pairs = [(setting, index, seed) for index in chosen for seed in range(seeds)]
    done = []
    with shown_progress() if progress is None else nullcontext(silent) as tell:
        runs = run_all(compare_once, pairs, workers=workers, report=tell, kept=checkpoint_dir)
        for (_, index, seed), outcome in zip(pairs, runs, strict=True):
            done.append(outcome)
            if progress is not None:
                told = f"fold {index + 1} of {n_folds}, seed {seed}: done"
                progress(f"{told} ({len(done)} of {len(pairs)})")
    seconds = pd.DataFrame([outcome["seconds"] for outcome in done]).sum().to_dict()
    tables = {
        name: pd.concat([pd.DataFrame(outcome[name]) for outcome in done], ignore_index=True)
        for name in ("results", "choices", "history")
    }
    results = tables["results"]
    seconds["adaptation"] = float(results["seconds_adapt"].sum())
    seconds["prediction"] = float(results["seconds_predict"].sum())
    summary, differences = report(results, methods)
    return make_record(
        "few_shot",
        profile,
        parameters,
        assays=assays,
        encoder=described,
        device=device,
        seconds=seconds,
        numbers=name_numbers(summary, differences)
        | {
            "diverged_adaptations": number(
                sum(outcome["diverged"] for outcome in done), n=len(results), unit="adaptations"
            )
        },
        tables={
            **{name: table.round(5) for name, table in tables.items()},
            "summary": summary,
            "differences": differences,
        },
    )


def report(results: pd.DataFrame, methods: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means with intervals per method, and paired differences MAML minus each other method."""
    summaries, differences = [], []
    for metric in REPORTED:
        summaries.append(summarise(results, metric).assign(metric=metric))
        for other in methods:
            if "maml" in methods and other != "maml":
                paired = compare(results, metric, "maml", other)
                differences.append(paired.assign(metric=metric, method="maml", baseline=other))
    paired_table = pd.concat(differences, ignore_index=True) if differences else pd.DataFrame()
    return pd.concat(summaries, ignore_index=True), paired_table


def name_numbers(summary: pd.DataFrame, differences: pd.DataFrame) -> dict[str, dict]:
    """Named numbers that a page may print."""
    numbers = {}
    for who, table in (("{method}", summary), ("maml_minus_{baseline}", differences)):
        for row in table.to_dict("records"):
            name = f"{who.format(**row)}_{row['shots']}_{row['metric']}"
            numbers[name] = row_number(row, METRICS[row["metric"]].unit)
    return numbers
