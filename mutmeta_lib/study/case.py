"""One case of a study: starts trained, rates chosen, methods tested, each part kept as it ends."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.splits import Split
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.baselines import Features, embedding_features
from mutmeta_lib.learn.methods import METHODS, STARTS, Given, Method, build_methods, divergences
from mutmeta_lib.learn.train import MetaTraining, Trained, meta_train, pick_device
from mutmeta_lib.learn.tuning import best_rate, grid_scores
from mutmeta_lib.models.embed import Vectors, read_with
from mutmeta_lib.models.encoder import Encoder, load_encoder
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.models.swap import swap
from mutmeta_lib.models.zero_shot import zero_shot
from mutmeta_lib.records.progress import Report, silent
from mutmeta_lib.records.record import fingerprint, plain, recorded_parameters
from mutmeta_lib.records.store import Store
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.study.evaluate import MIN_QUERY, evaluate, hold_out_task, score
from mutmeta_lib.study.study import HOLD_OUTS, Case, Read, Study, read_assays
from mutmeta_lib.tasks.tasks import EncodedAssay, Task, draw_task, encode_assay, task_generator

LADDER = (1, 2, 5, 10, 20, 40, 100)
"""Sizes of support pools."""


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


def make_predictor(encoder: str, pooling: str, *, seed: int = 0, device: str = "cpu") -> Predictor:
    """A predictor whose encoder lives on the device; ``seed`` is that of ``tiny``."""
    return Predictor(_on_device(load_encoder(encoder, seed=seed), device), pooling)


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


@dataclass(frozen=True, eq=False)
class Prepared:
    """The assays of a study as one read has them, with the controls' features."""

    vectors: Vectors
    features: Features
    zero_shot: Callable[[str], Method]


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
    how, start = {"cache_dir": cache_dir, "device": where}, first_layer(read.depth, encoder)
    fixed = {"labels": study.labels, "standardised": read.depth != "raw head"}
    vectors = read_with(predictor, assays, read.encoding, start, **fixed, **how)
    features = vectors.features
    if start is not None:
        features = embedding_features(encoder, read.encoding, read.pooling, **how)
    return Prepared(vectors, features, cache(partial(zero_shot, encoder=encoder, **how)))


def first_layer(depth: str, encoder: Encoder) -> int | None:
    """The layer that learning begins at; 0 for ``all``, None for the head."""
    found = {"head": None, "raw head": None, "all": 0}
    found |= {f"last-{k}": encoder.layers - k for k in range(1, encoder.layers)}
    if depth not in found:
        told = f"'{depth}' is no depth of {encoder.name} ({encoder.layers} layers)"
        raise DataError(told, f"choose from {', '.join(found)}")
    return found[depth]


def support_pool(size: int, pool: int) -> int:
    """The support pool that an assay of ``size`` variants can afford: at most ``pool``.

    Smaller assays take a step of `LADDER`, so that enough is left to predict; the steps do not
    follow the shots of a study, so that studies of other shots predict the same rows.

    >>> support_pool(200, 40), support_pool(35, 40)
    (40, 20)
    """
    steps = [k for k in (*LADDER, pool) if k <= pool and k + MIN_QUERY <= size]
    return max(steps, default=0)


@dataclass(frozen=True, eq=False)
class Run:
    """One case of a study, as one trained read has it."""

    study: Study
    read: Read
    case: Case
    where: Where
    kept: Store
    report: Report

    @property
    def label(self) -> str:
        """What progress and kept parts call it."""
        case, read = self.case, self.read
        return f"{case.regime}, {case.name}, seed {case.seed}, {read.encoding}, {read.depth}"

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
        vectors, split, where, tries = self.data.vectors, self.case.split, self.where, []
        predictor = replace(vectors.predictor, objective=STARTS[name].objective)
        fresh = initial_params(predictor, self.case.seed, where.device)
        if name == "joint":
            return [self.train_jointly(predictor, fresh)]
        for rates in self.study.outer_rates or [(self.study.inner_lr, self.study.meta_lr)]:
            settings = self.settings(name, *rates)
            asked = [self.kept.question, self.label, split.train, split.validation, list(rates)]
            key = f"{name}-{fingerprint(plain(asked))[:12]}"
            checkpoint = where.store and Path(where.store, "starts", f"{key}.safetensors")
            trained = meta_train(
                predictor,
                fresh,
                [vectors.training[id] for id in split.train],
                settings,
                seed=self.case.seed,
                validation=[vectors.training[id] for id in split.validation],
                checkpoint=checkpoint,
                log_dir=where.log_dir and Path(where.log_dir, key),
                progress=self.tell(name),
            )
            tries.append(trained)
        return sorted(tries, key=_lowest)

    def train_jointly(self, predictor: Predictor, start: Params) -> Trained:
        """Adam on the labels of all assays together; each step sees a few assays equally."""
        study, seed = self.study, self.case.seed
        supports = [self.hold_out(id).support for id in self.case.split.test]
        params = {name: value.requires_grad_(True) for name, value in start.items()}
        optimiser = torch.optim.Adam(params.values(), lr=study.meta_lr)
        rng, began = np.random.default_rng(seed), time.perf_counter()
        several = min(study.tasks_per_step, len(supports))
        for step in range(study.meta_steps):
            optimiser.zero_grad()
            for index in rng.choice(len(supports), several, replace=False):
                own = supports[index]
                rows = rng.choice(len(own), min(study.support, len(own)), replace=False)
                (predictor.loss(params, own.take(rows)) / study.tasks_per_step).backward()
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
        found, k = [], study.decided_at
        for assay in (self.data.vectors.assays[id] for id in chosen):
            pool = support_pool(len(assay), max(study.reserved, k))
            if pool >= k:
                rng = task_generator(stable_seed("tuning", case.seed), assay.assay.id)
                task = draw_task(assay, k, rng, pool=pool, max_query=study.max_query or None)
                found.append(task)
        return [t for t in found if np.ptp(t.query.scores) > 0 and t.label_scale.identified]

    def tune(self, name: str, starts: Mapping[str, Params], tasks: Sequence[Task]) -> list[dict]:
        """The scores of every rate of the grid for one method (`tuning.grid_scores`)."""
        given = Given(self.data.vectors.predictor, steps=self.study.adapt_steps)

        def scored() -> list[dict]:
            build = lambda rate: build_methods([name], given, starts, {name: rate})[name]  # noqa: E731
            return grid_scores(build, tasks)

        return self.kept.get(f"{self.label}: rates of {name}", scored)

    def test(self, starts: Mapping[str, Params], rates: Mapping[str, dict]) -> Iterator[dict]:
        """Per test assay its ``rows``, and how many adaptations ``diverged`` to their start."""
        study, test = self.study, self.case.split.test
        told = {"regime": self.case.regime, "case": self.case.name, **_told(self.read)}

        @cache  # building embeds; not needed where all results were kept
        def methods() -> tuple[dict[str, Method], dict[str, Method]]:
            data = self.data
            given = Given(
                data.vectors.predictor,
                steps=study.adapt_steps,
                epochs=study.epochs,
                fixed=study.support,
                features=data.features,
                zero_shot=data.zero_shot,
            )
            again = [name for name in study.by_error if name in study.methods]
            by_error = build_methods(again, given, starts, rates["error"])
            return (
                build_methods(study.methods, given, starts, rates["spearman"]),
                {f"{name}_mse": method for name, method in by_error.items()},
            )

        def scored(id: str) -> dict:
            with divergences() as diverged:
                table = self.score(*methods(), self.data.vectors.assays[id])
            return {"rows": table.to_dict("records"), "diverged": len(diverged)}

        for place, id in enumerate(test, start=1):
            part = f"{self.label}, {self.read.swap}: test {id}"
            kept = self.kept.get(part, partial(scored, id))
            self.tell("test")(place, len(test))
            yield {**kept, "rows": [{**row, **told} for row in kept["rows"]]}

    def score(
        self, methods: dict[str, Method], by_error: dict[str, Method], assay: EncodedAssay
    ) -> pd.DataFrame:
        """All methods on one assay, at the numbers of labels that it affords."""
        study, seed = self.study, self.case.seed
        if study.regime in HOLD_OUTS:
            task = self.hold_out(assay.assay.id)
            return pd.DataFrame([score(name, m, task, seed) for name, m in methods.items()])
        pool = support_pool(len(assay), study.reserved)
        shots = [k for k in study.shots if k <= pool]
        decided = [k for k in shots if k == study.decided_at]
        how = {"seeds": [seed], "pool": pool, "max_query": study.max_query or None}
        parts = [
            evaluate(some, [assay], shots=at, **how)
            for some, at in ((methods, shots), (by_error, decided))
            if some and at
        ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def outcome(self, reads: Sequence[Read]) -> dict:
        """Everything about the case, as plain JSON values."""
        study, case, names = self.study, self.case, self.study.methods
        about = {"regime": case.regime, "case": case.name, "seed": case.seed, **_told(self.read)}
        del about["swap"]
        starts, tried, seconds = {}, {}, {}
        for name in dict.fromkeys(METHODS[n].start for n in names if METHODS[n].start):
            if STARTS[name].algorithm:
                tried[name] = self.train(name)
                starts[name] = tried[name][0].params
                seconds[f"meta_training_{name}"] = sum(one.seconds for one in tried[name])
            else:
                predictor = self.data.vectors.predictor
                starts[name] = initial_params(predictor, case.seed, self.where.device)
        began = time.perf_counter()
        tuned = dict.fromkeys(METHODS[n].rate for n in names if METHODS[n].rate and study.shots)
        tasks = self.tasks() if tuned else []
        choices = {name: self.tune(name, starts, tasks) for name in tuned}
        seconds["tuning"] = time.perf_counter() - began
        rates = {
            by: {name: best_rate(rows, by) for name, rows in choices.items()}
            for by in ("spearman", "error")
        }
        tested = [
            part
            for read in (reads if study.shots or study.regime in HOLD_OUTS else ())
            for part in replace(self, read=read).test(starts, rates)
        ]
        history = [
            {"method": name, **row, **about}
            for name, (best, *_) in tried.items()
            for row in best.history
        ]
        return {
            "rows": [row for part in tested for row in part["rows"]],
            "choices": [row | about for row in _choices(choices, rates, tried)],
            "history": history,
            "seconds": seconds,
            "diverged": sum(part["diverged"] for part in tested),
        }


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
    question = {
        **question,
        "study": {k: v for k, v in study.parameters().items() if k not in own},
        "reads": [recorded_parameters(vars(read)) for read in reads],
        "case": [case.regime, case.name, case.seed],
        "split": [case.split.train, case.split.validation, case.split.test],
    }
    kept = Store(Path(where.store) if where.store else None, question)
    run = Run(study, replace(reads[0], swap="same"), case, where, kept, report)
    return kept.get(run.label, lambda: run.outcome(reads))


def _told(read: Read) -> dict[str, str]:
    """What the rows say of a read."""
    told = {key: getattr(read, key) for key in ("encoding", "pooling", "depth", "swap")}
    return {"encoder": Path(read.encoder).name, **told}


def _lowest(trained: Trained) -> float:
    losses = [row["validation_loss"] for row in trained.history]
    return float(np.nanmin(losses)) if np.isfinite(losses).any() else float("inf")


def _choices(choices: dict, rates: dict, tried: dict) -> Iterator[dict]:
    """One row per rate that was tried, inner and outer, and what it was chosen for."""
    for name, rows in choices.items():
        for row in rows:
            rate = (row["optimiser"], row["lr"])
            chosen = " ".join(by for by in rates if rates[by][name] == rate)
            yield {"what": "adaptation", "method": name, **row, "chosen": chosen}
    for name, runs in tried.items():
        for place, one in enumerate(runs if len(runs) > 1 else ()):
            rates_of = {"inner_lr": one.settings.inner.lr, "meta_lr": one.settings.meta_lr}
            found = {"validation_loss": _lowest(one), "chosen": "" if place else "validation_loss"}
            yield {"what": "meta-training", "method": name, **rates_of, **found}
