"""Few-shot curves on proteins never seen in meta-training: the paper's central comparison."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed, parallel_config

from mutmeta_lib.evaluate import compare, few_shot, summarise
from mutmeta_lib.experiments.setting import (
    Fold,
    describe_encoder,
    encode_fold,
    initial_params,
    load_assays,
    make_predictor,
    make_record,
)
from mutmeta_lib.maml import InnerLoop
from mutmeta_lib.maml.algorithms import ALGORITHMS
from mutmeta_lib.methods import METHODS, Ingredients, build_methods, divergences
from mutmeta_lib.metrics import METRICS
from mutmeta_lib.predictor import Params, Predictor
from mutmeta_lib.records import Record, number, recorded_parameters
from mutmeta_lib.splits import protein_folds
from mutmeta_lib.training import MetaTraining, Trained, meta_train, pick_device
from mutmeta_lib.tuning import Rate, choose_rate

ALL_METHODS = tuple(METHODS)
DEFAULT_METHODS = ("maml", "multitask", "finetune", "ridge", "gp", "onehot", "blosum", "mean")
LEARNED = tuple(name for name in METHODS if name == "finetune" or name in ALGORITHMS)
REPORTED = ("spearman", "ndcg", "relative_mse")

# Grids of equal size per method, chosen from on meta-validation tasks. SGD is MAML's inner loop;
# fine-tuning may use either optimiser. Methods that learn their own rates, or need none, have none.
RATES: dict[str, tuple[Rate, ...]] = {
    "maml": (("sgd", 0.01), ("sgd", 0.03), ("sgd", 0.1), ("adam", 1e-3)),
    "multitask": (("sgd", 0.03), ("sgd", 0.1), ("adam", 3e-4), ("adam", 1e-3)),
    "finetune": (("sgd", 0.03), ("sgd", 0.1), ("adam", 3e-4), ("adam", 1e-3)),
    "anil": (("sgd", 0.01), ("sgd", 0.03), ("sgd", 0.1), ("adam", 1e-3)),
    "boil": (("sgd", 0.01), ("sgd", 0.03), ("sgd", 0.1), ("adam", 1e-3)),
    "reptile": (("sgd", 0.01), ("sgd", 0.03), ("sgd", 0.1), ("adam", 1e-3)),
}


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
        checkpoint_dir: folder for checkpoints; a killed run started again goes on from them.
        cache_dir: folder that keeps embeddings for the next run with the same encoder.
        profile: name of the profile, for the record.
        progress: called with one line of text after each run.

    Returns:
        A record: table ``results`` (one row per method, assay, seed, shots), ``summary``,
        ``differences`` (paired, MAML minus each other method), ``choices``, ``history``; numbers
        ``<method>_<shots>_<metric>``, ``maml_minus_<method>_<shots>_<metric>`` and
        ``diverged_adaptations`` (test adaptations that fell back to their start).

    """
    parameters = recorded_parameters(locals())
    say = progress or (lambda line: None)
    assays = load_assays(data_dir, ids=ids, per_protein=per_protein)
    splits = protein_folds(assays, n_folds)
    chosen = range(n_folds) if folds is None else folds
    settings = MetaTraining(
        steps=meta_steps,
        tasks_per_step=tasks_per_step,
        support=support,
        query=query,
        inner=InnerLoop(inner_lr, inner_steps, first_order),
        meta_lr=meta_lr,
        backend=backend,
        validate_every=max(5, meta_steps // 10),
        validation_tasks=8,
    )
    described = describe_encoder(make_predictor(encoder, pooling, seed=0, device="cpu"))

    def run_pair(fold_index: int, seed: int) -> dict:
        predictor = make_predictor(encoder, pooling, seed=seed, device=device)
        fold = encode_fold(splits[fold_index], assays, encoding, predictor)
        folder = Path(checkpoint_dir) / f"fold{fold_index}-seed{seed}" if checkpoint_dir else None
        starts, runs = train_starts(predictor, fold, settings, methods, seed, device, folder)
        began = time.perf_counter()
        rates, tuned = {}, []
        for name in (name for name in starts if name in RATES):
            rates[name], rows = tune(predictor, fold, name, starts[name], adapt_steps, shots, seed)
            tuned += [{"method": name, **row} for row in rows]
        tuning_seconds = time.perf_counter() - began
        where_to = str(pick_device(device))
        given = Ingredients(predictor, starts, fold.test, rates, adapt_steps, where_to, cache_dir)
        built = build_methods(methods, given)
        with divergences() as diverged:
            found = few_shot(built, fold.test, shots=shots, seeds=[seed], max_query=max_query)
        where = {"fold": fold_index, "seed": seed}
        return {
            "results": found.assign(fold=fold_index),
            "choices": pd.DataFrame(tuned).assign(**where),
            "history": pd.DataFrame(
                [{"method": name, **row} for name, run in runs.items() for row in run.history]
            ).assign(**where),
            "seconds": {f"meta_training_{name}": run.seconds for name, run in runs.items()}
            | {"tuning": tuning_seconds},
            "diverged": len(diverged),
        }

    pairs = [(index, seed) for index in chosen for seed in range(seeds)]
    done = []
    # Runs are independent, so their number of processes changes nothing but the time they take.
    with parallel_config("loky", inner_max_num_threads=1):
        jobs = Parallel(n_jobs=workers, return_as="generator")(
            delayed(run_pair)(*pair) for pair in pairs
        )
        for (index, seed), outcome in zip(pairs, jobs, strict=True):
            done.append(outcome)
            say(f"fold {index + 1} of {n_folds}, seed {seed}: done ({len(done)} of {len(pairs)})")
    seconds = pd.DataFrame([outcome["seconds"] for outcome in done]).sum().to_dict()
    tables = {
        name: pd.concat([outcome[name] for outcome in done], ignore_index=True)
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


def train_starts(
    predictor: Predictor,
    fold: Fold,
    settings: MetaTraining,
    methods: Sequence[str],
    seed: int,
    device: str,
    checkpoints: Path | None = None,
) -> tuple[dict[str, Params], dict[str, Trained]]:
    """The starts of the gradient methods: meta-trained, jointly trained, and untouched."""
    start = initial_params(predictor, seed, device)
    starts, runs = {}, {}
    for name in LEARNED:
        if name not in methods:
            continue
        if name == "finetune":
            starts[name] = start
            continue
        runs[name] = meta_train(
            predictor,
            start,
            fold.train,
            replace(settings, algorithm=name),
            seed=seed,
            validation=fold.validation,
            checkpoint=checkpoints / f"{name}.safetensors" if checkpoints else None,
        )
        starts[name] = runs[name].params
    return starts, runs


def tune(
    predictor: Predictor,
    fold: Fold,
    name: str,
    start: Params,
    steps: int,
    shots: Sequence[int],
    seed: int,
) -> tuple[Rate, list[dict]]:
    """Choose a gradient method's optimiser and rate on the fold's validation proteins."""
    return choose_rate(
        lambda rate: METHODS[name](Ingredients(predictor, {name: start}, [], {name: rate}, steps)),
        RATES[name],
        fold.validation,
        shots=[k for k in shots if k > 1] or [max(shots)],
        seed=seed,
        max_query=64,
        max_assays=6,
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
    for row in summary.to_dict("records"):
        unit = METRICS[row["metric"]].unit
        numbers[f"{row['method']}_{row['shots']}_{row['metric']}"] = number(
            row["mean"], row["low"], row["high"], row["n_assays"], unit
        )
    for row in differences.to_dict("records"):
        unit = METRICS[row["metric"]].unit
        numbers[f"maml_minus_{row['baseline']}_{row['shots']}_{row['metric']}"] = number(
            row["mean"], row["low"], row["high"], row["n_assays"], unit
        )
    return numbers
