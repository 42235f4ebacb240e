"""One seed of the public code's comparison: every phase once, then many draws of its test."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from mutmeta_lib.learn import InnerLoop, inner_update
from mutmeta_lib.learn.inner import Loss, Params
from mutmeta_lib.models.predictor import Predictor, predict
from mutmeta_lib.reproduction.protocol_data import EncodedProtocol, Rows
from mutmeta_lib.reproduction.protocol_steps import (
    ARMS,
    draw_support_query,
    dropped_out,
    meta_train_sets,
    one_cycle,
)
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.tasks.metrics import mse, spearman

PEAKS = {"finetuned": "finetune_peak", "finetuned_slow": "slow_peak"}
"""Fine-tuning at two rates: method -> which of the setting's."""

INITIAL_BATCH, FINETUNE_BATCH = 32, 16
"""Rows per step in the public code, on a card with 24 GB or more."""


@dataclass(frozen=True)
class Setting:
    """The numbers of the protocol; defaults are those of the public code's command line."""

    initial_epochs: int = 10
    finetune_epochs: int = 5
    maml_epochs: int = 30
    inner: InnerLoop = field(default_factory=lambda: InnerLoop(lr=0.01, steps=5, first_order=True))
    meta_lr: float = 1e-3
    initial_peak: float = 3e-3
    finetune_peak: float = 1e-3
    slow_peak: float = 1e-5
    sizes: tuple[int, ...] = (16,)
    draws: int = 200


class Clock:
    """Processor seconds by phase: they do not count what other programs took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the seconds of a ``with`` block to the phase."""
        began = time.process_time()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.process_time() - began


def draw_rows(n: int, target: str, size: int, draw: int) -> tuple[np.ndarray, np.ndarray]:
    """Support and query rows of one draw: the same for all seeds, encoders and encodings."""
    rng = np.random.default_rng(stable_seed("protocol draw", target, size, draw))
    return draw_support_query(n, size, size, rng)


def initial_fit(predictor: Predictor, rows: Rows, setting: Setting, seed: int) -> Params:
    """The start that both arms share: encoder and fresh head, fitted to the initial data set."""
    generator = torch.Generator().manual_seed(stable_seed("protocol head", seed))
    return one_cycle(
        dropped_out(predictor, generator),
        predictor.init(generator),
        rows,
        peak=setting.initial_peak,
        batch_size=INITIAL_BATCH,
        epochs=setting.initial_epochs,
        rng=np.random.default_rng(stable_seed("protocol initial", seed)),
    )


def fine_tune(
    loss: Loss,
    start: Params,
    rows: Rows,
    setting: Setting,
    seed: int,
    *,
    peak: float,
    steps: int = 0,
) -> Params:
    """Fine-tuning on a target's training part, for whole epochs or for so many steps."""
    return one_cycle(
        loss,
        start,
        rows,
        peak=peak,
        batch_size=FINETUNE_BATCH,
        epochs=setting.finetune_epochs,
        steps=steps,
        rng=np.random.default_rng(stable_seed("protocol fine-tuning", seed)),
    )


def meta_start(
    arm: str,
    loss: Loss,
    start: Params,
    sets: Sequence[Sequence[Rows]],
    setting: Setting,
    seed: int,
    size: int,
) -> Params:
    """The start that an arm's meta-training on the other data sets leads to."""
    return meta_train_sets(
        ARMS[arm],
        loss,
        start,
        sets,
        setting.inner,
        epochs=setting.maml_epochs,
        support=size,
        query=size,
        meta_lr=setting.meta_lr,
        rng=np.random.default_rng(stable_seed("protocol meta-training", seed, size)),
    )


def run_seed(
    predictor: Predictor, data: EncodedProtocol, setting: Setting, seed: int
) -> dict[str, dict]:
    """Initial fit, fine-tuning and meta-training of all arms for every target, and the draws.

    Returns:
        Plain values: ``initial_seconds``, and under ``targets`` by name: ``whole`` (method ->
        mean squared error and Spearman correlation over the whole test part), ``seconds`` by
        phase, and ``draws``: size -> method -> ``mse`` and ``spearman``, one per draw, on the
        draw's query rows. Methods are the arms and ``initial_adapted`` (adapted on the support
        rows), ``finetuned`` and ``finetuned_slow`` (trained on the training part, not adapted) and
        ``mean`` (of the support labels).

    """
    clock = Clock()
    with clock("initial"):
        start = initial_fit(predictor, data.initial, setting, seed)
    found = {name: _run_target(predictor, data, setting, seed, name, start) for name in data.train}
    return {"initial_seconds": clock.seconds["initial"], "targets": found}


def _run_target(
    predictor: Predictor,
    data: EncodedProtocol,
    setting: Setting,
    seed: int,
    name: str,
    start: Params,
) -> dict[str, dict]:
    generator = torch.Generator().manual_seed(stable_seed("protocol dropout", seed, name))
    loss, clock, test = dropped_out(predictor, generator), Clock(), data.test[name]
    measured, everything = test.labels.numpy(), test.tokens.rows(np.arange(len(test)))
    fixed = {"initial": predict(predictor, start, everything).numpy()}
    for method, peak in PEAKS.items():
        with clock(method):
            tuned = fine_tune(
                loss, start, data.train[name], setting, seed, peak=getattr(setting, peak)
            )
        fixed[method] = predict(predictor, tuned, everything).numpy()
    draws = {}
    for size in setting.sizes:
        starts = {"initial_adapted": start}
        for arm in ARMS:
            with clock(f"{arm}_{size}"):
                starts[arm] = meta_start(arm, loss, start, data.others(name), setting, seed, size)
        scores: dict[str, dict[str, list[float]]] = {}
        for draw in range(setting.draws):
            support, query = draw_rows(len(test), name, size, draw)
            predicted = {method: values[query] for method, values in fixed.items()}
            predicted["mean"] = np.full(size, measured[support].mean())
            own, asked = test.take(support), test.tokens.rows(query)
            for method, params in starts.items():
                with clock(f"adapt_{size}"):
                    adapted = inner_update(loss, params, own, setting.inner)
                with torch.no_grad():
                    predicted[method] = predictor(adapted, asked).numpy()
            for method, values in predicted.items():
                kept = scores.setdefault(method, {"mse": [], "spearman": []})
                kept["mse"].append(mse(values, measured[query]))
                kept["spearman"].append(spearman(values, measured[query]))
        clock.seconds[f"adapt_{size}"] /= setting.draws * len(starts)
        draws[str(size)] = scores
    fixed["mean"] = np.full(len(test), float(data.train[name].labels.mean()))
    return {
        "whole": {
            method: {"mse": mse(values, measured), "spearman": spearman(values, measured)}
            for method, values in fixed.items()
        },
        "draws": draws,
        "seconds": clock.seconds,
    }
