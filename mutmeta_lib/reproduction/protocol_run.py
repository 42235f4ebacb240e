"""The public code's comparison, in an implementation of our own: one seed, many draws of its test.

Facts from the version of 22 July 2025 (see the audit chapter): an initial fit and fine-tuning by
AdamW under a one-cycle schedule, in shuffled batches, the last incomplete one dropped
(``main.py``: ``fast_pretrain``, ``finetune_model``); meta-training that visits every data set once
per epoch, in random order, draws support and query rows from it, and takes one Adam step with the
gradient norm clipped (``meta_learning.py``: ``MAML.meta_train``); adaptation by five gradient
steps on all support rows at once (``MAML.adapt``). Dropout is active in all four.

The arms differ in nothing but the gradient of the meta-step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch.func import grad
from torch.optim.lr_scheduler import OneCycleLR

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop, inner_update
from mutmeta_lib.learn.gradients import task_gradient
from mutmeta_lib.learn.inner import Loss, Params
from mutmeta_lib.models.encoder import Encoder, load_encoder
from mutmeta_lib.models.predictor import Predictor, predict
from mutmeta_lib.reproduction.speed import timed
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.tasks.batches import TokenBatch, concatenate
from mutmeta_lib.tasks.metrics import mse, spearman

BATCH = {"initial": 32, "finetuned": 16, "finetuned_slow": 16}
"""Rows per step in the public code, on a card with 24 GB or more."""
PEAKS = {"initial": 3e-3, "finetuned": 1e-3, "finetuned_slow": 1e-5}
"""Highest rate of each fit's one-cycle schedule in the public code, for a frozen encoder; slow is
its fine-tuning of a trained one. The rate rises over the first ``WARM_UP`` of the steps."""
WARM_UP, WEIGHT_DECAY, CLIP, INNER_LR, META_LR = 0.1, 0.01, 1.0, 0.01, 1e-3
ARMS = ("released", "first_order", "second_order")
"""As released, and as described in first and second order."""
TIME_DRAWS = 50
"""Draws over which errors are taken, at most, where seconds are measured."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """All that one encoder does; no rate is tuned.

    A ``frozen`` encoder is run once per text and its head alone learns; another learns in every
    phase, from random weights. Of a file that is trained on, ``most_rows`` are read at most (0:
    all). ``sizes`` are rows of support, and as many of query, in meta-training and test; ``draws``
    of the test per target and size are the same for all seeds and methods. With the first
    ``time_seeds`` the cost is measured of ``time_rows`` rows in every data set.
    """

    encoder: str = "tiny"
    frozen: bool = True
    encodings: Sequence[str] = ("separator",)
    max_tokens: int = 256
    most_rows: int = 0
    sizes: Sequence[int] = (8, 16, 32)
    draws: int = 200
    initial_epochs: int = 10
    finetune_epochs: int = 5
    maml_epochs: int = 30
    inner_steps: int = 5
    seeds: int = 5
    time_rows: Sequence[int] = (500, 1000, 2000, 4000, 8000, 16000)
    time_seeds: int = 2

    @property
    def name(self) -> str:
        """What tables call it."""
        untrained = self.frozen and self.encoder == "tiny"
        return "frozen_tiny" if untrained else Path(self.encoder).name

    def load(self, seed: int = 0) -> Encoder:
        """The encoder; the seed decides the weights of ``tiny``."""
        return load_encoder(self.encoder, seed=seed, max_tokens=self.max_tokens)


TRAINED = Protocol(frozen=False, max_tokens=64, most_rows=3000, sizes=(16,), initial_epochs=5)
"""``tiny``, which learns in every phase, as the public code trains its encoder."""


@dataclass(frozen=True, eq=False)
class Rows:
    """n rows as an encoder reads them, with labels ``(n,)``; what a predictor's loss is given."""

    tokens: TokenBatch
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> Rows:
        """Some of the rows, trimmed to the longest of them."""
        return Rows(self.tokens.rows(index), self.labels[torch.as_tensor(index)])


def targets(parts: Iterable[str]) -> list[str]:
    """The target data sets among the names of parts, ``<target> train`` and ``<target> test``."""
    return [name.removesuffix(" test") for name in parts if name.endswith(" test")]


def meta_step(
    arm: str, loss: Loss, params: Params, support: Rows, query: Rows, loop: InnerLoop
) -> Params:
    """The gradient of one meta-step.

    As released it is that of the query loss *before* adaptation, joint training: the inner loop
    runs and its result is not used, so that the phase costs what it costs there. As described it
    is MAML's, with inner gradients taken as constants (first order) or differentiated through.
    """
    loop = replace(loop, first_order=arm != "second_order")
    if arm == "released":
        inner_update(loss, params, support, loop)
        return grad(loss)(params, query)
    return task_gradient(loss, params, support, query, loop)[1]


def one_cycle(
    fit: str, loss: Loss, start: Params, rows: Rows, rng: np.random.Generator, steps: int
) -> Params:
    """AdamW in shuffled batches, its rate rising to the fit's peak and falling again."""
    size = BATCH[fit]
    per_epoch = len(rows) // size
    if not per_epoch:
        raise DataError(f"{len(rows)} rows do not fill a batch of {size}", "give more rows")
    tuned, peak = _leaves(start), PEAKS[fit]
    optimiser = torch.optim.AdamW(tuned.values(), lr=peak, weight_decay=WEIGHT_DECAY)
    # One step more than is taken, as a schedule of a single step is not defined.
    schedule = OneCycleLR(optimiser, peak, total_steps=steps + 1, pct_start=WARM_UP)
    for step in range(steps):
        if step % per_epoch == 0:
            batches = rng.permutation(len(rows))[: per_epoch * size].reshape(per_epoch, size)
        optimiser.zero_grad()
        loss(tuned, rows.take(batches[step % per_epoch])).backward()
        optimiser.step()
        schedule.step()
    return _detached(tuned)


@dataclass(frozen=True, eq=False)
class Trial:
    """One seed of one encoder and encoding; ``data`` holds the encoded parts by name."""

    predictor: Predictor
    data: Mapping[str, Rows]
    protocol: Protocol
    seed: int

    @property
    def inner(self) -> InnerLoop:
        """How a model is adapted."""
        return InnerLoop(INNER_LR, self.protocol.inner_steps, first_order=True)

    def parts(self, target: str) -> list[Rows]:
        """The training and the test part of a data set."""
        return [self.data[f"{target} {part}"] for part in ("train", "test")]

    def others(self, target: str) -> list[list[Rows]]:
        """The parts of all data sets but the target."""
        return [self.parts(name) for name in targets(self.data) if name != target]

    def rng(self, *what: object) -> np.random.Generator:
        """The random numbers of a phase."""
        return np.random.default_rng(stable_seed(f"protocol {what[0]}", self.seed, *what[1:]))

    def loss(self, what: object) -> Loss:
        """The predictor's loss with dropout active."""
        generator = torch.Generator().manual_seed(stable_seed("protocol dropout", self.seed, what))
        return partial(self.predictor.loss, generator=generator)

    def initial_fit(self) -> Params:
        """What all arms start from: encoder and fresh head, fitted to the initial data set."""
        generator = torch.Generator().manual_seed(stable_seed("protocol head", self.seed))
        start, rows = self.predictor.init(generator), self.data["initial"]
        loss = partial(self.predictor.loss, generator=generator)
        steps = self.protocol.initial_epochs * (len(rows) // BATCH["initial"])
        return one_cycle("initial", loss, start, rows, self.rng("initial"), steps)

    def fine_tune(
        self, loss: Loss, start: Params, rows: Rows, fit: str = "finetuned", steps: int = 0
    ) -> Params:
        """Fine-tuning on a target's training part, for whole epochs or for so many steps."""
        steps = steps or self.protocol.finetune_epochs * (len(rows) // BATCH[fit])
        return one_cycle(fit, loss, start, rows, self.rng("fine-tuning"), steps)

    def meta_train(
        self, arm: str, loss: Loss, start: Params, sets: Sequence[Sequence[Rows]], size: int
    ) -> Params:
        """Meta-train a start; each data set is given in parts, such as its files."""
        rng, current = self.rng("meta-training", size), _leaves(start)
        optimiser = torch.optim.Adam(current.values(), lr=META_LR)
        for _ in range(self.protocol.maml_epochs):
            for which in rng.permutation(len(sets)):
                drawn = draw_support_query(sum(map(len, sets[which])), size, rng)
                task = (pick(sets[which], index) for index in drawn)
                found = meta_step(arm, loss, _detached(current), *task, self.inner)
                for name, value in current.items():
                    value.grad = found[name].detach()
                torch.nn.utils.clip_grad_norm_(current.values(), CLIP)
                optimiser.step()
        return _detached(current)

    def predict(self, params: Params, rows: Rows) -> np.ndarray:
        """Predicted labels, without dropout."""
        return predict(self.predictor, params, rows.tokens).numpy()

    def error(self, params: Params, rows: Rows) -> float:
        """Mean squared error of the predicted labels."""
        return mse(self.predict(params, rows), rows.labels.numpy())


def _leaves(params: Params) -> Params:
    return {name: value.detach().clone().requires_grad_() for name, value in params.items()}


def _detached(params: Params) -> Params:
    return {name: value.detach() for name, value in params.items()}


def draw_support_query(n: int, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Row numbers of a support and a query set, ``size`` each, that share none."""
    if n < 2 * size:
        raise DataError(f"{n} rows do not hold {size} support and {size} query rows", "draw fewer")
    return np.split(rng.permutation(n)[: 2 * size], 2)


def draw_rows(n: int, target: str, size: int, draw: int) -> list[np.ndarray]:
    """Support and query rows of one draw: the same for all seeds, encoders and encodings."""
    rng = np.random.default_rng(stable_seed("protocol draw", target, size, draw))
    return draw_support_query(n, size, rng)


def pick(parts: Sequence[Rows], index: np.ndarray) -> Rows:
    """Rows by their number in all parts one after the other; parts first, then as drawn."""
    ends = pairwise(np.cumsum([0, *map(len, parts)]))
    found = [
        part.take(index[(index >= first) & (index < end)] - first)
        for part, (first, end) in zip(parts, ends, strict=True)
    ]
    labels = torch.cat([rows.labels for rows in found])
    return Rows(concatenate([rows.tokens for rows in found if len(rows)]), labels)


def run_seed(trial: Trial) -> dict[str, list[dict]]:
    """Every phase for every target, and the draws of its test.

    Methods are the arms and ``initial_adapted`` (adapted on a draw's support rows), ``initial``,
    ``finetuned`` and ``finetuned_slow`` (trained on the training part, not adapted) and ``mean``
    (of the support labels). Returns rows ``scores`` with target, size, draw, method, mse and
    spearman over the draw's query rows; at size 0 over the whole test part, where the mean is that
    of the training part. Rows ``seconds`` have target, phase, seconds.
    """
    own, scores = trial.protocol, []
    start, spent = timed(trial.initial_fit)
    seconds = [{"target": "all", "phase": "initial", "seconds": spent}]

    def add(target: str, size: int, draw: int, predicted: dict, labels: np.ndarray) -> None:
        for method, values in predicted.items():
            row = {"target": target, "size": size, "draw": draw, "method": method}
            row |= {"mse": mse(values, labels), "spearman": spearman(values, labels)}
            scores.append(row)

    for target in targets(trial.data):
        train, test = trial.parts(target)
        measured, loss, phases = test.labels.numpy(), trial.loss(target), defaultdict(float)
        fixed = {"initial": start}
        for fit in ("finetuned", "finetuned_slow"):
            fixed[fit], phases[fit] = timed(trial.fine_tune, loss, start, train, fit)
        whole = {name: trial.predict(params, test) for name, params in fixed.items()}
        mean = np.full(len(test), float(train.labels.mean()))
        add(target, 0, 0, whole | {"mean": mean}, measured)
        for size in own.sizes:
            starts = {"initial_adapted": start}
            for arm in ARMS:
                asked = (arm, loss, start, trial.others(target), size)
                starts[arm], phases[f"{arm}_{size}"] = timed(trial.meta_train, *asked)
            for draw in range(own.draws):
                support, query = draw_rows(len(test), target, size, draw)
                predicted = {method: values[query] for method, values in whole.items()}
                predicted["mean"] = np.full(size, measured[support].mean())
                labelled, asked = test.take(support), test.take(query)
                for method, params in starts.items():
                    adapted, spent = timed(inner_update, loss, params, labelled, trial.inner)
                    phases[f"adapt_{size}"] += spent / (own.draws * len(starts))
                    predicted[method] = trial.predict(adapted, asked)
                add(target, size, draw, predicted, measured[query])
        seconds += [{"target": target, "phase": p, "seconds": s} for p, s in phases.items()]
    return {"scores": scores, "seconds": seconds}


def shown(sizes: Collection[int]) -> int:
    """The size of times, histograms and numbers: the public code's default, where it was run."""
    return 16 if 16 in sizes else max(sizes)


def run_times(trial: Trial) -> list[dict]:
    """Processor seconds and error against the number of rows in every data set.

    Three ways per number of rows: fine-tuning for whole ``epochs``; fine-tuning for as many
    ``steps`` as meta-training takes gradients; and ``meta``-training (first order, as described)
    on other data sets cut to as many rows. Errors are over the query rows of the same draws.
    """
    own, target, found = trial.protocol, targets(trial.data)[0], []
    size, (train, test) = shown(own.sizes), trial.parts(target)
    start, sets = trial.initial_fit(), trial.others(target)
    drawn = [draw_rows(len(test), target, size, i) for i in range(min(own.draws, TIME_DRAWS))]
    tasks = [[test.take(index) for index in draw] for draw in drawn]
    gradients = own.maml_epochs * len(sets) * (own.inner_steps + 1)
    for n in [n for n in own.time_rows if n <= len(train)]:
        rng, loss = np.random.default_rng(stable_seed("protocol cut", n)), trial.loss(n)
        parts = [train, *(first for first, _ in sets)]
        mine, *others = [part.take(rng.permutation(len(part))[:n]) for part in parts]
        whole = own.finetune_epochs * (n // BATCH["finetuned"])
        for way, taken in {"epochs": whole, "steps": gradients, "meta": gradients}.items():
            if way == "meta":
                asked = ("first_order", loss, start, [[other] for other in others], size)
                tuned, spent = timed(trial.meta_train, *asked)
            else:
                tuned, spent = timed(trial.fine_tune, loss, start, mine, "finetuned", taken)
            errors = []
            for support, query in tasks:
                params = inner_update(loss, tuned, support, trial.inner) if way == "meta" else tuned
                errors.append(trial.error(params, query))
            row = {"rows": n, "method": way, "seconds": spent, "gradients": taken}
            found.append(row | {"mse": float(np.mean(errors))})
    return found
