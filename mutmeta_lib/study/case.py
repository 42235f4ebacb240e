"""One case of a study: starts trained, rates chosen, methods tested, each part kept as it ends."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.splits import Split
from mutmeta_lib.errors import DataError, Diverged
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
    joined,
)
from mutmeta_lib.learn.train import MetaTraining, Trained, meta_train, pick_device
from mutmeta_lib.learn.tuning import best_rate, grid_scores
from mutmeta_lib.models.embed import Vectors, read_with
from mutmeta_lib.models.encoder import Encoder, load_encoder, placed
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.models.sites import READS, site_assay, site_numbers
from mutmeta_lib.models.swap import swap
from mutmeta_lib.models.trunk import SUM, trunk_encoder
from mutmeta_lib.models.zero_shot import zero_shot
from mutmeta_lib.records.progress import Report
from mutmeta_lib.records.record import fingerprint, plain, recorded_parameters
from mutmeta_lib.records.store import Store
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.study.evaluate import evaluate, hold_out_task, score, support_pool
from mutmeta_lib.study.study import HOLD_OUTS, Case, Read, Study, read_assays
from mutmeta_lib.tasks.tasks import (
    EncodedAssay,
    Examples,
    Task,
    draw_task,
    encode_assay,
    task_generator,
    with_normal_scores,
)


@dataclass(frozen=True)
class Where:
    """Where a study runs, and keeps its work and embeddings; no number depends on it."""

    device: str = "auto"
    workers: int = 1
    store: str | None = None
    cache_dir: str | None = None


@dataclass(frozen=True, eq=False)
class Fold:
    """Encoded assays of one fold; no protein is in two of them."""

    train: list[EncodedAssay]
    validation: list[EncodedAssay]
    test: list[EncodedAssay]


def encode_fold(split: Split, assays: Sequence[Assay], encoding: str, predictor: Predictor) -> Fold:
    """Encode the assays of a split for the predictor's encoder."""
    how = (encoding, predictor.encoder.vocabulary, predictor.encoder.max_tokens)
    encoded = {assay.id: encode_assay(assay, *how) for assay in assays}
    sides = (split.train, split.validation, split.test)
    return Fold(*([encoded[name] for name in ids] for ids in sides))


def make_predictor(encoder: str, pooling: str, *, seed: int = 0, device: str = "cpu") -> Predictor:
    """A predictor whose encoder lives on the device; ``seed`` is that of ``tiny``."""
    return Predictor(_on_device(load_encoder(encoder, seed=seed), device), pooling)


def initial_params(predictor: Predictor, seed: int, device: str = "cpu") -> Params:
    """The pretrained encoder with a fresh head, on the device."""
    fresh = predictor.init(torch.Generator().manual_seed(stable_seed("head", seed)))
    return {name: value.to(pick_device(device)) for name, value in fresh.items()}


def fresh(predictor: Predictor, seed: int, member: int = 0, device: str = "cpu") -> Params:
    """`initial_params`; a trunk is fresh as well, another for every member of a start."""
    if predictor.pooling == SUM and member:
        old, own = predictor.encoder.module, stable_seed("trunk", seed, member)
        predictor = replace(predictor, encoder=trunk_encoder(old.location, old.scale, seed=own))
    return initial_params(predictor, seed, device)


def member_seed(seed: int, member: int) -> int:
    """The seed of a member's draws; that of the first is the start's own."""
    return stable_seed(seed, member) if member else seed


def _on_device(encoder: Encoder, device: str) -> Encoder:
    return placed(encoder, pick_device(device))


@dataclass(frozen=True, eq=False)
class Prepared:
    """The assays of a study as one read has them, with the controls' features."""

    vectors: Vectors
    features: Features
    zero_shot: Callable[[str], Method]


@lru_cache(maxsize=2)
def prepare(study: Study, read: Read, device: str, cache_dir: str | None) -> Prepared:
    """Encode every assay once, and run what does not learn of the encoder."""
    if read.encoding in READS:
        assays, _ = read_assays(study)
        return prepare_sites(read, assays, study.labels, str(pick_device(device)), cache_dir)
    encoder = load_encoder(read.encoder, max_tokens=read.max_tokens)
    if read.swap == "same":
        assays, _ = read_assays(study)
    else:
        encoder = swap(encoder, read.swap)
        own = prepare(study, replace(read, swap="same"), device, cache_dir).vectors.assays
        assays = [a.assay for id, a in own.items() if not study.test_ids or id in study.test_ids]
    encoder = _on_device(encoder, device)
    predictor, where = Predictor(encoder, read.pooling), str(pick_device(device))
    how, start = {"cache_dir": cache_dir, "device": where}, first_layer(read.depth, encoder)
    fixed = {"labels": study.labels, "standardised": read.depth != "raw head"}
    vectors = read_with(predictor, assays, read.encoding, start, **fixed, **how)
    features = vectors.features
    if start is not None:
        features = embedding_features(encoder, read.encoding, read.pooling, **how)
    return Prepared(vectors, features, cache(partial(zero_shot, encoder=encoder, **how)))


def prepare_sites(
    read: Read, assays: Sequence[Assay], labels: str, device: str, cache_dir: str | None
) -> Prepared:
    """Assays as a read of sites has them; trunk and features wait for the split (`of_split`)."""
    encoder, how = None, {"device": device, "cache_dir": cache_dir}
    if READS[read.encoding]:
        encoder = _on_device(load_encoder(read.encoder, max_tokens=read.max_tokens), device)
    known = {"read": read.encoding, "encoder": encoder.sha256 if encoder else ""}
    kept: dict[str, EncodedAssay] = {}
    tables: dict[str, torch.Tensor] = {}
    for assay in assays:
        if (wild_type := assay.wild_type) not in tables:
            store = Store(Path(cache_dir) if cache_dir else None, known | {"sequence": wild_type})
            make = partial(site_numbers, read.encoding, wild_type, encoder, device)
            tables[wild_type] = store.tensor("sites", make)
        told = read.swap != "untold"
        kept[assay.id] = site_assay(assay, read.encoding, tables[wild_type], told)
    training = kept
    if labels == "normal_scores":
        training = {id: replace(a, assay=with_normal_scores(a.assay)) for id, a in kept.items()}
    zero = cache(partial(zero_shot, encoder=encoder, **how))
    return Prepared(Vectors(None, kept, training, {}), None, zero)


@lru_cache(maxsize=2)
def of_split(
    study: Study, read: Read, device: str, cache_dir: str | None, train: tuple[str, ...], seed: int
) -> Prepared:
    """`prepare` of a read of sites, with a trunk whose scales are those of meta-training."""
    found = prepare(study, read, device, cache_dir)
    vectors = on_trunk(found.vectors, train, seed, device)
    trunk = vectors.predictor.encoder.module
    own = len(trunk.location)

    def features(examples: Examples) -> np.ndarray:
        tokens = examples.tokens
        sites = trunk.standardised(tokens.hidden[..., :own])
        each = torch.cat([sites, tokens.hidden[..., own:-2]], dim=-1)
        return (each * tokens.mask[..., None]).sum(dim=1).numpy()

    return Prepared(vectors, features, found.zero_shot)


def on_trunk(vectors: Vectors, train: Sequence[str], seed: int, device: str) -> Vectors:
    """Assays as a read of sites has them, for a fresh trunk with the scales of those to train."""
    items = [vectors.assays[id] for id in train]
    every = torch.cat(list({a.assay.wild_type: a.tokens.sites for a in items}.values()))
    trunk = trunk_encoder(every.mean(dim=0), every.std(dim=0) + 1e-6, seed=seed)
    return replace(vectors, predictor=Predictor(_on_device(trunk, device), SUM, hidden=()))


def sites_fold(
    split: Split, assays: Sequence[Assay], read: Read, seed: int = 0, device: str = "cpu"
) -> tuple[Predictor, Fold]:
    """As `make_predictor` and `encode_fold`, for a read of sites, with normal scores."""
    where = str(pick_device(device))
    vectors = prepare_sites(read, assays, "normal_scores", where, None).vectors
    vectors = on_trunk(vectors, split.train, stable_seed("trunk", seed), device)
    sides = (split.train, split.validation, split.test)
    return vectors.predictor, Fold(*([vectors.training[name] for name in ids] for ids in sides))


def first_layer(depth: str, encoder: Encoder) -> int | None:
    """The layer that learning begins at, None for the head; a DataError if there is no such."""
    found = {"head": None, "raw head": None, "all": 0}
    found |= {f"last-{k}": encoder.layers - k for k in range(1, encoder.layers)}
    if depth not in found:
        told = f"'{depth}' is no depth of {encoder.name} ({encoder.layers} layers)"
        raise DataError(told, f"choose from {', '.join(found)}")
    return found[depth]


@dataclass(frozen=True, eq=False)
class Run:
    """One case of a study, as one trained read has it."""

    study: Study
    read: Read
    case: Case
    where: Where
    kept: Store
    report: Report

    def done(self, reads: Sequence[Read], report: Report) -> dict:
        """Train, tune and test, unless it was kept; ``reads`` are the trained one or its swaps."""
        return self.kept.get(self.label, partial(replace(self, report=report).outcome, reads))

    @property
    def label(self) -> str:
        """What progress and kept parts call it."""
        case, read = self.case, self.read
        return f"{case.regime}, {case.name}, seed {case.seed}, {read.encoding}, {read.depth}"

    @property
    def data(self) -> Prepared:
        """The assays as the read has them."""
        where, case = self.where, self.case
        how = self.study.of_data, self.read, where.device, where.cache_dir
        if self.read.encoding not in READS:
            return prepare(*how)
        return of_split(*how, case.split.train, stable_seed("trunk", case.seed))

    def tell(self, what: str) -> Callable[..., None]:
        """A progress callback for one part."""
        return lambda done, total, *_: self.report(f"{self.label}: {what}", done, total)

    def train(self, name: str) -> list[Trained]:
        """A start at every pair of outer rates, the one with the lowest validation loss first.

        Pairs that diverge come last, without parameters; it is an error if all do. Of a start with
        members, the first is trained at all pairs, the others at the best.
        """
        study, start = self.study, STARTS[name]
        if name == "joint":
            predictor = replace(self.data.vectors.predictor, objective=start.objective)
            return [self.train_jointly(predictor, self.fresh(0))]
        tries, lost = [], {}
        for pair in study.outer_rates or [(study.inner_lr, study.meta_lr)]:
            try:
                tries.append(self.train_at(name, *pair))
            except Diverged as error:
                lost[pair] = error
        if not tries:
            raise next(iter(lost.values()))
        best, *_ = tries = sorted(tries, key=_lowest)
        tries += [_diverged(best, *pair) for pair in lost]
        if not start.members:
            return tries
        chosen = best.settings.inner.lr, best.settings.meta_lr
        several = [best] + [self.train_at(name, *chosen, i) for i in range(1, study.members)]
        seconds = sum(one.seconds for one in several)
        together = joined([one.params for one in several])
        return [replace(best, params=together, seconds=seconds), *tries[1:]]

    def fresh(self, member: int) -> Params:
        """What a member begins with."""
        return fresh(self.data.vectors.predictor, self.case.seed, member, self.where.device)

    def train_at(self, name: str, inner_lr: float, meta_lr: float, member: int = 0) -> Trained:
        """One start at one pair of outer rates."""
        study, start, where = self.study, STARTS[name], self.where
        vectors, split = self.data.vectors, self.case.split
        predictor = replace(vectors.predictor, objective=start.objective)
        steps = min(study.solved_steps, study.meta_steps) if start.solved else study.meta_steps
        first_order = study.first_order if start.first_order is None else start.first_order
        shared = ("tasks_per_step", "support", "query", "validation_tasks")
        shared += ("schedule", "weight_decay", "dropout")
        settings = MetaTraining(
            algorithm=start.algorithm,
            steps=steps,
            validate_every=min(study.validate_every, max(1, steps // 4)),
            inner=InnerLoop(inner_lr, study.inner_steps, first_order),
            meta_lr=meta_lr,
            **{name: getattr(study, name) for name in shared},
        )
        # All that training depends on: studies that differ in how they test share a start.
        known, sides = self.kept.question, (split.train, split.validation)
        asked = [known["version"], known["encoder"], recorded_parameters(vars(self.read))]
        asked += [[(id, known["data"][id]) for id in side] for side in sides]
        asked += [study.labels, asdict(settings), self.case.seed, member]
        key = f"{name}-{fingerprint(plain(asked))[:12]}"
        return meta_train(
            predictor,
            self.fresh(member),
            [vectors.training[id] for id in split.train],
            settings,
            seed=member_seed(self.case.seed, member),
            validation=[vectors.training[id] for id in split.validation],
            checkpoint=where.store and Path(where.store, "starts", f"{key}.safetensors"),
            progress=self.tell(name),
        )

    def train_jointly(self, predictor: Predictor, start: Params) -> Trained:
        """Adam on the labels of all assays together; each step sees a few assays equally."""
        study, seed, began = self.study, self.case.seed, time.perf_counter()
        supports = [self.hold_out(id).support for id in self.case.split.test]
        params = {name: value.requires_grad_(True) for name, value in start.items()}
        optimiser = torch.optim.Adam(params.values(), lr=study.meta_lr)
        rng, several = np.random.default_rng(seed), min(study.tasks_per_step, len(supports))
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
        return Trained(done, settings, seed, settings.steps, (), time.perf_counter() - began)

    def hold_out(self, id: str) -> Task:
        """The held-out task of an assay, in the regimes that have one."""
        study, assay = self.study, self.data.vectors.assays[id]
        limit = study.max_query or None
        return hold_out_task(assay, study.regime, study.share, self.case.seed, limit)

    def tasks(self, k: int) -> list[Task]:
        """One draw of k labels per validation assay, for all methods alike."""
        study, case, chosen = self.study, self.case, list(self.case.split.validation)
        if 0 < study.tuning_assays < len(chosen):
            rng = np.random.default_rng(stable_seed("tuning assays", case.name, case.seed))
            chosen = sorted(rng.choice(sorted(chosen), study.tuning_assays, replace=False))
        found, limit = [], study.max_query or None
        for assay in (self.data.vectors.assays[id] for id in chosen):
            pool = support_pool(len(assay), max(study.reserved, k))
            if pool >= k:
                rng = task_generator(stable_seed("tuning", case.seed), assay.assay.id)
                found.append(draw_task(assay, k, rng, pool=pool, max_query=limit))
        return [t for t in found if np.ptp(t.query.scores) > 0 and t.label_scale.identified]

    def tune(self, name: str, starts: Mapping[str, Params], k: int, tasks: Sequence) -> list[dict]:
        """The scores of every rate of the grid for one method (`tuning.grid_scores`)."""
        given = Given(self.data.vectors.predictor)
        build = lambda rate: build_methods([name], given, starts, {name: rate})[name]  # noqa: E731
        grid = [Rate(*one, steps) for one in METHODS[name].grid for steps in self.study.steps]
        scored = partial(grid_scores, build, tasks, grid)
        return self.kept.get(f"{self.label}: rates of {name} at {k}", scored)

    def methods(
        self, starts: Mapping[str, Params], rates: Mapping[tuple[str, int], dict[str, Rate]]
    ) -> list[tuple[dict[str, Method], Sequence[int]]]:
        """All methods at all shots, and those of ``by_error`` again at the deciding numbers."""
        study, data = self.study, self.data
        how = {"steps": study.steps[0], "epochs": study.epochs, "fixed": study.support}
        how |= {"features": data.features, "zero_shot": data.zero_shot}
        given = Given(data.vectors.predictor, **how)
        some = [name for name in study.by_error if name in study.methods]
        made = []
        for k in study.decided:
            again = build_methods(some, given, starts, rates["error", k])
            again = {f"{name}_mse": method for name, method in again.items()}
            every = build_methods(study.methods, given, starts, rates["spearman", k])
            own = [shots for shots in study.shots if study.decides(shots) == k]
            made += [(every, own), (again, [k] if k in own else [])]
        return made

    def test(
        self, starts: Mapping[str, Params], rates: Mapping[tuple[str, int], dict[str, Rate]]
    ) -> Iterator[dict]:
        """Per test assay its ``rows``, and how many adaptations ``diverged`` to their start."""
        told = {"regime": self.case.regime, "case": self.case.name, **_told(self.read)}
        # Building embeds, which is not needed where all results were kept.
        methods = cache(partial(self.methods, starts, rates))
        for place, id in enumerate(self.case.split.test, start=1):
            part = f"{self.label}, {self.read.swap}: test {id}"
            kept = self.kept.get(part, lambda id=id: self.score(methods(), id))
            self.tell("test")(place, len(self.case.split.test))
            yield {**kept, "rows": [{**row, **told} for row in kept["rows"]]}

    def score(self, methods: list[tuple[dict[str, Method], Sequence[int]]], id: str) -> dict:
        """All methods on one assay, at the numbers of labels that it affords."""
        study, seed, rows = self.study, self.case.seed, []
        assay = self.data.vectors.assays[id]
        pool = support_pool(len(assay), study.reserved)
        draws = [seed * study.draws + i for i in range(study.draws)]
        how = {"seeds": draws, "pool": pool, "max_query": study.max_query or None}
        with divergences() as diverged:
            if study.regime in HOLD_OUTS:
                task, (some, _) = self.hold_out(id), methods[0]
                rows = [score(name, method, task, seed) for name, method in some.items()]
            else:
                for some, shots in methods:
                    afforded = [k for k in shots if k <= pool]
                    if some and afforded:
                        rows += evaluate(some, [assay], shots=afforded, **how).to_dict("records")
        return {"rows": rows, "diverged": len(diverged)}

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
                starts[name] = self.fresh(0)
        began = time.perf_counter()
        tuned = dict.fromkeys(METHODS[n].rate for n in names if METHODS[n].rate and study.shots)
        tasks = {k: self.tasks(k) if tuned else [] for k in study.decided}
        choices = {k: {n: self.tune(n, starts, k, tasks[k]) for n in tuned} for k in study.decided}
        seconds["tuning"] = time.perf_counter() - began
        rates = {
            (by, k): {name: best_rate(rows, by) for name, rows in choices[k].items()}
            for by in ("spearman", "error")
            for k in choices
        }
        tested = []
        for read in reads if study.shots or study.regime in HOLD_OUTS else ():
            tested += replace(self, read=read).test(starts, rates)
        best = {name: runs[0].history for name, runs in tried.items()}
        return {
            "rows": [row for part in tested for row in part["rows"]],
            "choices": [row | about for row in _choices(choices, rates, tried)],
            "history": [{"method": name, **row, **about} for name in best for row in best[name]],
            "seconds": seconds,
            "diverged": sum(part["diverged"] for part in tested),
        }


def _told(read: Read) -> dict[str, str]:
    """What the rows say of a read."""
    told = {key: getattr(read, key) for key in ("encoding", "pooling", "depth", "swap")}
    encoder = "none" if READS.get(read.encoding) is False else Path(read.encoder).name
    return {"encoder": encoder, **told}


def _diverged(other: Trained, inner_lr: float, meta_lr: float) -> Trained:
    """What stands for a start that has none at these rates, beside one that has."""
    inner = replace(other.settings.inner, lr=inner_lr)
    settings = replace(other.settings, inner=inner, meta_lr=meta_lr)
    return replace(other, params={}, settings=settings, best_step=0, history=(), seconds=0.0)


def _lowest(trained: Trained) -> float:
    losses = [row["validation_loss"] for row in trained.history]
    return float(np.nanmin(losses)) if np.isfinite(losses).any() else float("inf")


def _choices(choices: dict, rates: dict, tried: dict) -> Iterator[dict]:
    """One row per rate that was tried, inner and outer, and what it was chosen for."""
    for k, name, rows in ((k, *one) for k, of in choices.items() for one in of.items()):
        for row in rows:
            chosen = [by for by, at in rates if at == k and rates[by, at][name] == Rate.of(row)]
            found = {"labels": k, **row, "chosen": " ".join(chosen)}
            yield {"what": "adaptation", "method": name, **found}
    for name, runs in tried.items():
        for place, one in enumerate(runs if len(runs) > 1 else ()):
            rates_of = {"inner_lr": one.settings.inner.lr, "meta_lr": one.settings.meta_lr}
            found = {"validation_loss": _lowest(one), "chosen": "" if place else "validation_loss"}
            found |= {"meta_steps": one.best_step}
            yield {"what": "meta-training", "method": name, **rates_of, **found}
