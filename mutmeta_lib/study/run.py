"""The one runner: every case of a study trained, tuned and tested, as rows of one tidy table.

Finished work is kept as it ends where a folder is given: meta-training in checkpoints, the rates,
the results on each test assay, and each case as a whole. A killed run that is started again goes on
from there and ends at the same numbers.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mutmeta_lib import __version__
from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.splits import Split
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.baselines import Features, embedding_features
from mutmeta_lib.learn.methods import (
    METHODS,
    STARTS,
    Given,
    Method,
    Rate,
    build_methods,
    divergences,
)
from mutmeta_lib.learn.train import MetaTraining, Trained, meta_train, pick_device
from mutmeta_lib.learn.tuning import best_rate, grid_scores
from mutmeta_lib.models.encoders import Encoder, load_encoder
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.models.swap import swap
from mutmeta_lib.models.zero_shot import describe_head, zero_shot
from mutmeta_lib.records.progress import Report, shown_progress, silent
from mutmeta_lib.records.record import (
    Record,
    canonical,
    describe,
    environment,
    fingerprint,
    number,
    peak_memory_mb,
    plain,
    read_record,
    recorded_parameters,
    write_record,
)
from mutmeta_lib.records.store import Store
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.study.evaluate import MIN_QUERY, evaluate, hold_out_task, score
from mutmeta_lib.study.parallel import run_all
from mutmeta_lib.study.study import (
    HOLD_OUTS,
    Case,
    Read,
    Study,
    describe_assays,
    describe_encoder,
    draw_cases,
    read_assays,
)
from mutmeta_lib.study.vectors import Vectors, embed_assays, layered_assays
from mutmeta_lib.tasks.metrics import METRICS
from mutmeta_lib.tasks.tasks import EncodedAssay, Task, draw_task, encode_assay, task_generator

LADDER = (1, 2, 5, 10, 20, 40, 100)
"""Sizes of support pools."""

AVERAGED = (*METRICS, "seconds_adapt", "seconds_predict")
"""Columns of the rows that are averaged over seeds."""


@dataclass(frozen=True)
class Where:
    """Where a study runs and what it keeps; it changes no number but the seconds.

    ``store`` keeps finished work, ``cache_dir`` embeddings, ``log_dir`` TensorBoard's curves;
    ``workers`` processes share the cases.
    """

    device: str = "auto"
    workers: int = 1
    store: str | None = None
    cache_dir: str | None = None
    log_dir: str | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """What a run found: tidy rows, rates that were chosen, training histories, and the bill.

    ``rows`` have the columns of `evaluate.evaluate`, those of `Read`, and regime, case, role and
    cluster; ``choices`` one row per rate that was tried, ``history`` one per meta-step.
    """

    rows: pd.DataFrame
    choices: pd.DataFrame
    history: pd.DataFrame
    assays: pd.DataFrame
    cases: tuple[Case, ...]
    measured: tuple[Assay, ...]
    encoder: dict[str, Any]
    seconds: dict[str, float]
    diverged: int


@dataclass(frozen=True, eq=False)
class Prepared:
    """The assays of a study as one read has them, with the controls' features."""

    vectors: Vectors
    features: Features
    zero_shot: Callable[[str], Method]


def make_predictor(encoder: str, pooling: str, *, seed: int = 0, device: str = "cpu") -> Predictor:
    """A predictor whose encoder lives on the device; ``seed`` is that of ``tiny``."""
    return Predictor(_on_device(load_encoder(encoder, seed=seed), device), pooling)


@dataclass(frozen=True, eq=False)
class Fold:
    """Encoded assays of one fold; no protein is in two of them."""

    train: list[EncodedAssay]
    validation: list[EncodedAssay]
    test: list[EncodedAssay]


def encode_fold(split: Split, assays: Sequence[Assay], encoding: str, predictor: Predictor) -> Fold:
    """Encode the assays of a split for the predictor's encoder."""
    by_id = {assay.id: assay for assay in assays}
    how = (encoding, predictor.encoder.vocabulary, predictor.encoder.max_tokens)
    sides = (split.train, split.validation, split.test)
    return Fold(*([encode_assay(by_id[name], *how) for name in ids] for ids in sides))


def initial_params(predictor: Predictor, seed: int, device: str = "cpu") -> Params:
    """The pretrained encoder with a fresh head, on the device."""
    generator = torch.Generator().manual_seed(stable_seed("head", seed))
    where = pick_device(device)
    return {name: value.to(where) for name, value in predictor.init(generator).items()}


def _on_device(encoder: Encoder, device: str) -> Encoder:
    where = pick_device(device)
    if where.type == "cpu":
        return encoder
    return replace(encoder, module=deepcopy(encoder.module).to(where))


@lru_cache(maxsize=2)
def prepare(study: Study, read: Read, device: str, cache_dir: str | None) -> Prepared:
    """Encode every assay once, and run what does not learn of the encoder.

    Raises:
        DataError: the encoder has no layers to begin at, or not so many.

    """
    assays, _ = read_assays(study)
    encoder = load_encoder(read.encoder, max_tokens=read.max_tokens)
    if read.swap != "same":
        encoder = swap(encoder, read.swap)
        assays = [a for a in assays if not study.test_ids or a.id in study.test_ids]
    encoder = _on_device(encoder, device)
    predictor, where = Predictor(encoder, read.pooling), str(pick_device(device))
    how = {"cache_dir": cache_dir, "device": where}
    if read.depth in ("head", "raw head"):
        kind = "standardised" if read.depth == "head" else "raw"
        vectors = embed_assays(predictor, assays, read.encoding, kind, study.labels, **how)
        features = vectors.features
    else:
        start = first_layer(read.depth, encoder)
        vectors = layered_assays(predictor, assays, read.encoding, study.labels, start, **how)
        features = embedding_features(encoder, read.encoding, read.pooling, **how)
    return Prepared(vectors, features, cache(partial(zero_shot, encoder=encoder, **how)))


def first_layer(depth: str, encoder: Encoder) -> int:
    """The layer that learning begins at; 0 for ``all``.

    Raises:
        DataError: the encoder has no layers to begin at, or not so many.

    """
    if depth == "all":
        return 0
    kind, _, count = depth.partition("-")
    layers = getattr(encoder.module, "layers", 0)
    if kind != "last" or not count.isdigit() or not 0 < int(count) < max(layers, 1):
        raise DataError(
            f"'{depth}' is no depth of {encoder.name} ({layers} layers)",
            f"choose 'head', 'raw head', 'last-1' to 'last-{max(layers - 1, 1)}' or 'all'",
        )
    return layers - int(count)


@dataclass(frozen=True, eq=False)
class Run:
    """One case of a study, as one trained read has it: train, choose rates, test."""

    study: Study
    read: Read
    case: Case
    where: Where
    kept: Store
    report: Report

    @property
    def label(self) -> str:
        """What progress and kept parts call it."""
        return _label(self.read, self.case)

    @property
    def data(self) -> Prepared:
        """The assays as the read has them."""
        return prepare(self.study, self.read, self.where.device, self.where.cache_dir)

    def tell(self, what: str) -> Callable[..., None]:
        """A progress callback for one part."""
        return lambda done, total, *_: self.report(f"{self.label}: {what}", done, total)

    def settings(self, name: str, inner_lr: float, meta_lr: float) -> MetaTraining:
        """The outer loop of a start of `STARTS`."""
        study, start = self.study, STARTS[name]
        steps = min(study.solved_steps, study.meta_steps) if start.solved else study.meta_steps
        first_order = study.first_order if start.first_order is None else start.first_order
        return MetaTraining(
            algorithm=start.algorithm,
            steps=steps,
            tasks_per_step=study.tasks_per_step,
            support=study.support,
            query=study.query,
            inner=InnerLoop(inner_lr, study.inner_steps, first_order),
            meta_lr=meta_lr,
            validate_every=min(study.validate_every, max(1, steps // 4)),
            validation_tasks=study.validation_tasks,
            backend=study.backend,
            precision=study.precision,
        )

    def train(self, name: str) -> list[Trained]:
        """A start at every pair of outer rates, the one with the lowest validation loss first."""
        if name == "joint":
            return [self.train_jointly()]
        vectors, split, tries = self.data.vectors, self.case.split, []
        predictor = replace(vectors.predictor, objective=STARTS[name].objective)
        fresh = initial_params(predictor, self.case.seed, self.where.device)
        for rates in self.study.outer_rates or [(self.study.inner_lr, self.study.meta_lr)]:
            settings = self.settings(name, *rates)
            asked = [self.kept.question, self.label, split.train, split.validation, list(rates)]
            key = f"{name}-{fingerprint(plain(asked))[:12]}"
            store, logs = self.where.store, self.where.log_dir
            tries.append(
                meta_train(
                    predictor,
                    fresh,
                    [vectors.training[id] for id in split.train],
                    settings,
                    seed=self.case.seed,
                    validation=[vectors.training[id] for id in split.validation],
                    checkpoint=Path(store, "starts", f"{key}.safetensors") if store else None,
                    log_dir=Path(logs, key) if logs else None,
                    progress=lambda step, steps, loss: self.tell(name)(step, steps),
                )
            )
        return sorted(tries, key=_lowest)

    def train_jointly(self) -> Trained:
        """Adam on the labels of all assays together; each step sees a few assays equally."""
        study, seed, predictor = self.study, self.case.seed, self.data.vectors.predictor
        supports = [self.hold_out(id).support for id in self.case.split.test]
        start = initial_params(predictor, seed, self.where.device)
        params = {name: value.requires_grad_(True) for name, value in start.items()}
        optimiser = torch.optim.Adam(params.values(), lr=study.meta_lr)
        rng, began = np.random.default_rng(seed), time.perf_counter()
        several = min(study.tasks_per_step, len(supports))
        for step in range(study.meta_steps):
            optimiser.zero_grad()
            for index in rng.choice(len(supports), several, replace=False):
                own = supports[index]
                rows = rng.choice(len(own), min(study.support, len(own)), replace=False)
                loss = predictor.loss(params, own.take(rows))
                (loss / study.tasks_per_step).backward()
            optimiser.step()
            self.tell("joint training")(step + 1, study.meta_steps)
        done = {name: value.detach() for name, value in params.items()}
        settings = MetaTraining(algorithm="multitask", steps=study.meta_steps)
        seconds = time.perf_counter() - began
        return Trained(done, settings, seed, study.meta_steps, (), seconds)

    def hold_out(self, id: str) -> Task:
        """The held-out task of an assay, in the regimes that have one."""
        study, assay = self.study, self.data.vectors.assays[id]
        limit = study.max_query or None
        return hold_out_task(assay, study.regime, study.share, self.case.seed, limit)

    def tasks(self) -> list[Task]:
        """One draw per validation assay at the deciding number of labels, for all methods alike."""
        study, case, chosen = self.study, self.case, list(self.case.split.validation)
        if 0 < study.tuning_assays < len(chosen):
            rng = np.random.default_rng(stable_seed("tuning assays", case.name, case.seed))
            chosen = sorted(rng.choice(sorted(chosen), study.tuning_assays, replace=False))
        found = []
        for assay in (self.data.vectors.assays[id] for id in chosen):
            pool = support_pool(len(assay), max(study.reserved, study.decided_at))
            if pool < study.decided_at:
                continue
            rng = task_generator(stable_seed("tuning", case.seed), assay.assay.id)
            task = draw_task(
                assay, study.decided_at, rng, pool=pool, max_query=study.max_query or None
            )
            if np.ptp(task.query.scores) > 0 and task.label_scale.identified:
                found.append(task)
        return found

    def test(
        self,
        read: Read,
        names: Sequence[str],
        starts: Mapping[str, Params],
        rates: Mapping[str, dict[str, Rate]],
    ) -> tuple[list[dict], int]:
        """The rows of all test assays, and how many adaptations fell back to their start."""
        data = replace(self, read=read).data
        study = self.study

        @cache  # building embeds; not needed where all results were kept
        def built() -> tuple[dict[str, Method], dict[str, Method]]:
            given = Given(
                data.vectors.predictor,
                steps=study.adapt_steps,
                epochs=study.epochs,
                fixed=study.support,
                features=data.features,
                zero_shot=data.zero_shot,
            )
            ranks, error = rates["spearman"], rates["error"]
            again = [n for n in study.by_error if n in names and error[n] != ranks[n]]
            by_error = build_methods(again, given, starts, error)
            return (
                build_methods(names, given, starts, ranks),
                {f"{name}_mse": method for name, method in by_error.items()},
            )

        def one(id: str) -> dict:
            with divergences() as diverged:
                table = self.score(*built(), data.vectors.assays[id])
            return {"rows": table.to_dict("records"), "diverged": len(diverged)}

        rows, fell = [], 0
        for place, id in enumerate(self.case.split.test):
            kept = self.kept.get(f"{self.label}, {read.swap}: test {id}", partial(one, id))
            rows, fell = rows + kept["rows"], fell + kept["diverged"]
            self.tell("test")(place + 1, len(self.case.split.test))
        about = {"regime": self.case.regime, "case": self.case.name, **_told(read)}
        return [{**row, **about} for row in rows], fell

    def score(
        self, methods: dict[str, Method], by_error: dict[str, Method], assay: EncodedAssay
    ) -> pd.DataFrame:
        """All methods on one assay, at the numbers of labels that it affords.

        Where ``<name>_mse`` would be the same as ``<name>``, its rows are copied.
        """
        study, seed = self.study, self.case.seed
        if study.regime in HOLD_OUTS:
            limit = study.max_query or None  # of this read's tokens
            task = hold_out_task(assay, study.regime, study.share, seed, limit)
            return pd.DataFrame([score(name, m, task, seed) for name, m in methods.items()])
        pool = support_pool(len(assay), study.reserved)
        shots = [k for k in study.shots if k <= pool]
        how = {"seeds": [seed], "pool": pool, "max_query": study.max_query or None}
        parts = [evaluate(methods, [assay], shots=shots, **how)] if shots else []
        if study.decided_at in shots and study.by_error:
            if by_error:
                parts.append(evaluate(by_error, [assay], shots=[study.decided_at], **how))
            decided = parts[0][parts[0]["shots"] == study.decided_at]
            parts += [
                decided[decided["method"] == name].assign(method=f"{name}_mse")
                for name in study.by_error
                if name in methods and f"{name}_mse" not in by_error
            ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def support_pool(size: int, pool: int) -> int:
    """The support pool that an assay of ``size`` variants can afford: at most ``pool``.

    Smaller assays take a step of `LADDER`, so that enough is left to predict; the steps do not
    follow the shots of a study, so that studies of other shots predict the same rows.

    >>> support_pool(200, 40), support_pool(35, 40)
    (40, 20)
    """
    steps = [k for k in (*LADDER, pool) if k <= pool and k + MIN_QUERY <= size]
    return max(steps, default=0)


def run_case(
    study: Study,
    reads: tuple[Read, ...],
    case: Case,
    where: Where,
    question: dict,
    *,
    report: Report = silent,
) -> dict:
    """Train, tune and test one case; plain JSON values, read if they were kept.

    ``reads`` differ in their swap alone: starts are trained on the first one's original.
    """
    own = ("seeds", "folds", "properties", "reads")
    asked = {k: v for k, v in study.parameters().items() if k not in own}
    question = {
        **question,
        "study": asked,
        "reads": [recorded_parameters(vars(read)) for read in reads],
        "case": [case.regime, case.name, case.seed],
        "split": [case.split.train, case.split.validation, case.split.test],
    }
    kept = Store(Path(where.store) if where.store else None, question)
    run = Run(study, replace(reads[0], swap="same"), case, where, kept, report)
    return kept.get(run.label, lambda: _run(run, reads))


def _run(run: Run, reads: Sequence[Read]) -> dict:
    study, case = run.study, run.case
    names = study.methods
    about = {"regime": case.regime, "case": case.name, "seed": case.seed, **_told(run.read)}
    del about["swap"]
    starts, tried, seconds = {}, {}, {}
    for name in dict.fromkeys(METHODS[n].start for n in names if METHODS[n].start):
        if not STARTS[name].algorithm:
            fresh = initial_params(run.data.vectors.predictor, case.seed, run.where.device)
            starts[name] = fresh
            continue
        tried[name] = run.train(name)
        starts[name] = tried[name][0].params
        seconds[f"meta_training_{name}"] = sum(one.seconds for one in tried[name])
    began = time.perf_counter()
    chosen = dict.fromkeys(METHODS[n].rate for n in names if METHODS[n].rate)
    choices, tasks = {}, run.tasks() if chosen and study.shots else []
    for name in chosen if study.shots else ():

        def scored(name: str = name) -> list[dict]:
            given = Given(run.data.vectors.predictor, steps=study.adapt_steps)

            def build(rate: Rate) -> Method:
                return build_methods([name], given, starts, {name: rate})[name]

            return grid_scores(build, tasks)

        choices[name] = run.kept.get(f"{run.label}: rates of {name}", scored)
    seconds["tuning"] = time.perf_counter() - began
    rates = {
        by: {name: best_rate(rows, by) for name, rows in choices.items()}
        for by in ("spearman", "error")
    }
    rows, diverged = [], 0
    for read in reads if study.shots or study.regime in HOLD_OUTS else ():
        found, fell = run.test(read, names, starts, rates)
        rows, diverged = rows + found, diverged + fell
    return {
        "rows": rows,
        "choices": list(_choices(choices, rates, tried, about)),
        "history": [
            {"method": name, **row, **about}
            for name, runs in tried.items()
            for row in runs[0].history
        ],
        "seconds": seconds,
        "diverged": diverged,
    }


def _label(read: Read, case: Case) -> str:
    return f"{case.regime}, {case.name}, seed {case.seed}, {read.encoding}, {read.depth}"


def _told(read: Read) -> dict[str, str]:
    """What the rows say of a read."""
    told = {key: getattr(read, key) for key in ("encoding", "pooling", "depth", "swap")}
    return {"encoder": Path(read.encoder).name, **told}


def _lowest(trained: Trained) -> float:
    losses = [row["validation_loss"] for row in trained.history]
    return float(np.nanmin(losses)) if np.isfinite(losses).any() else float("inf")


def _choices(choices: dict, rates: dict, tried: dict, about: dict) -> Iterator[dict]:
    """One row per rate that was tried, inner and outer, and what it was chosen for."""
    for name, rows in choices.items():
        for row in rows:
            rate = (row["optimiser"], row["lr"])
            chosen = [by for by in rates if rates[by][name] == rate]
            yield {"what": "adaptation", "method": name, **row, "chosen": " ".join(chosen), **about}
    for name, runs in tried.items():
        for place, one in enumerate(runs if len(runs) > 1 else ()):
            rates_of = {"inner_lr": one.settings.inner.lr, "meta_lr": one.settings.meta_lr}
            found = {"validation_loss": _lowest(one), "chosen": "" if place else "validation_loss"}
            yield {"what": "meta-training", "method": name, **rates_of, **found, **about}


def run(
    *studies: Study,
    where: Where | None = None,
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Run every case of some studies on the same assays, one after the other or side by side.

    Args:
        studies: they differ in what is varied; their assays are the same.
        where: device, processes, and what is kept.
        progress: called with one line of text per case, in place of bars on standard error.

    """
    where = where or Where()
    began = time.perf_counter()
    assays, roles = read_assays(studies[0])
    about = describe_assays(assays, roles)
    jobs, cases, sources = [], [], {}
    for study in studies:
        drawn = draw_cases(study, assays)
        cases += drawn
        groups: dict[Read, list[Read]] = {}
        for read in study.reads:
            groups.setdefault(replace(read, swap="same"), []).append(read)
        for own, reads in groups.items():
            source = own.encoder, own.max_tokens
            if source not in sources:
                sources[source] = load_encoder(own.encoder, max_tokens=own.max_tokens)
            describe_head(study.methods, sources[source])  # refuses before anything is trained
            question = {
                "data": {assay.id: assay.sha256 for assay in assays},
                "encoder": sources[source].sha256,
                "version": __version__,
            }
            jobs += [(study, tuple(reads), case, where, question) for case in drawn]
    done = []
    with shown_progress() if progress is None else nullcontext(silent) as tell:
        outcomes = run_all(run_case, jobs, workers=where.workers, report=tell, kept=where.store)
        for job, outcome in zip(jobs, outcomes, strict=True):
            done.append(outcome)
            if progress is not None:
                case, read = job[2], job[1][0]
                told = (
                    f"{case.regime}, {case.name}, seed {case.seed}, {read.encoding}, {read.depth}"
                )
                progress(f"{told}: done ({len(done)} of {len(jobs)})")
    rows, choices, history = (
        pd.DataFrame([row for one in done for row in one[key]])
        for key in ("rows", "choices", "history")
    )
    if len(rows):
        known = about.set_index("assay")
        rows = rows.assign(**{key: rows["assay"].map(known[key]) for key in ("role", "cluster")})
    seconds = pd.DataFrame([one["seconds"] for one in done]).sum().to_dict()
    seconds["everything_else"] = time.perf_counter() - began - sum(seconds.values())
    first = next(iter(sources.values()))
    methods = [name for study in studies for name in study.methods]
    described = describe_encoder(first) | describe_head(methods, first)
    diverged = sum(one["diverged"] for one in done)
    return Result(
        rows, choices, history, about, tuple(cases), tuple(assays), described, seconds, diverged
    )


def average_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with seeds averaged, and ``n_seeds``, their number."""
    varied = [name for name in rows if name not in (*AVERAGED, "seed", "n_query", "case")]
    grouped = rows.groupby(varied, sort=False, dropna=False)
    means = grouped[list(AVERAGED)].mean()
    return means.assign(n_query=grouped["n_query"].first(), n_seeds=grouped.size()).reset_index()


def make_record(
    experiment: str,
    profile: str,
    parameters: dict[str, Any],
    *,
    assays: Sequence[Assay],
    encoder: dict[str, Any],
    device: str,
    seconds: Mapping[str, float],
    numbers: dict[str, dict],
    tables: dict[str, pd.DataFrame],
) -> Record:
    """A record of what was just run, with the hashes of its data and the state of this machine."""
    return Record(
        experiment=experiment,
        profile=profile,
        parameters=parameters,
        data={assay.id: assay.sha256 for assay in assays},
        encoder=encoder,
        environment=environment(device),
        seconds={name: round(value, 3) for name, value in seconds.items()},
        peak_memory_mb=peak_memory_mb(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        numbers=numbers,
        tables={name: table.round(5) for name, table in tables.items()},
    )


def _answers(found: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether a record's parameters are those asked for, as far as it names them.

    The way to compute a gradient changes no number; records of earlier versions name fewer.
    """
    flat = {**asked, **asked["reads"][0]}
    shared = found.keys() & flat.keys() - {"backend"}
    return all(canonical(found[key] or None) == canonical(flat[key] or None) for key in shared)


def committed(name: str, records_dir: str | Path) -> Record | None:
    """The committed record of the profile full, if there is one; says which it is."""
    path = Path(records_dir, "full", f"{name}.json")
    if not path.exists():
        print(f"{name}: no committed record of the full profile")
        return None
    record = read_record(path)
    print("shown:", describe(record, loaded=True))
    return record


def recorded(
    name: str,
    *studies: Study,
    path: str | Path | None = None,
    tables: Callable[[Result], dict[str, pd.DataFrame]] | None = None,
    recompute: bool = True,
    profile: str = "full",
    where: Where | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[Record, bool]:
    """The record of some studies, and whether it was loaded: from ``path`` if it is theirs.

    Its parameters are those of the first study, with what the others change; its tables are
    ``results`` (means over seeds where there are several), ``choices``, ``history``, ``assays``,
    and what ``tables`` makes of the result. It is written to ``path`` if one is given.
    """
    first = studies[0].parameters()
    others = [
        {key: value for key, value in study.parameters().items() if value != first[key]}
        for study in studies[1:]
    ]
    parameters = first | ({"and": others} if others else {})
    if not recompute and path is not None and Path(path).exists():
        found = read_record(path)
        if _answers(found.parameters, parameters):
            return found, True
    result = run(*studies, where=where, progress=progress)
    rows = average_seeds(result.rows) if studies[0].seeds > 1 and len(result.rows) else result.rows
    kept = {"results": rows, "choices": result.choices, "history": result.history}
    counts = {
        "assays": len(result.measured),
        "clusters": result.assays["cluster"].nunique(),
        "variants": sum(map(len, result.measured)),
    }
    record = make_record(
        name,
        profile,
        parameters,
        assays=result.measured,
        encoder=result.encoder,
        device=(where or Where()).device,
        seconds=result.seconds,
        numbers={key: number(value) for key, value in counts.items()}
        | {"diverged_adaptations": number(result.diverged, n=len(result.rows), unit="adaptations")},
        tables=kept | {"assays": result.assays} | (tables(result) if tables else {}),
    )
    if path is not None:
        write_record(record, path)
    return record, False
