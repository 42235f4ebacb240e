"""Seconds and errors of the public code's two arms against the number of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mutmeta_lib.learn import inner_update
from mutmeta_lib.models.predictor import Predictor, predict
from mutmeta_lib.reproduction.protocol_data import EncodedProtocol
from mutmeta_lib.reproduction.protocol_run import (
    FINETUNE_BATCH,
    Clock,
    Setting,
    draw_rows,
    fine_tune,
    initial_fit,
    meta_start,
)
from mutmeta_lib.reproduction.protocol_steps import dropped_out
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.tasks.metrics import mse


def run_times(
    predictor: Predictor,
    data: EncodedProtocol,
    setting: Setting,
    seed: int,
    *,
    target: str,
    rows: Sequence[int],
    size: int,
) -> list[dict]:
    """Processor seconds and error against the number of rows in every data set.

    Three ways per number of rows: fine-tuning for whole epochs; fine-tuning for as many gradients
    as meta-training takes; and meta-training (first order, as described) on other data sets cut
    to as many rows, with its error after adaptation over the draws. Errors of fine-tuning are
    over the query rows of the same draws.
    """
    start = initial_fit(predictor, data.initial, setting, seed)
    test = data.test[target]
    measured, everything = test.labels.numpy(), test.tokens.rows(np.arange(len(test)))
    draws = [draw_rows(len(test), target, size, draw) for draw in range(setting.draws)]
    steps = setting.maml_epochs * (len(data.train) - 1) * (setting.inner.steps + 1)
    found = []
    for n in rows:
        generator = torch.Generator().manual_seed(stable_seed("protocol dropout", seed, n))
        loss, clock = dropped_out(predictor, generator), Clock()
        chosen = np.random.default_rng(stable_seed("protocol cut", n)).permutation
        train = data.train[target].take(chosen(len(data.train[target]))[:n])
        for method, taken in (("epochs", 0), ("steps", steps)):
            with clock(method):
                params = fine_tune(
                    loss, start, train, setting, seed, peak=setting.finetune_peak, steps=taken
                )
            predicted = predict(predictor, params, everything).numpy()
            errors = [mse(predicted[query], measured[query]) for _, query in draws]
            batches = taken or setting.finetune_epochs * (n // FINETUNE_BATCH)
            found.append(_timed(n, method, clock.seconds[method], batches, errors))
        sets = [[part.take(chosen(len(part))[:n])] for part, _ in data.others(target)]
        with clock("meta"):
            params = meta_start("first_order", loss, start, sets, setting, seed, size)
        errors = []
        for support, query in draws:
            adapted = inner_update(loss, params, test.take(support), setting.inner)
            with torch.no_grad():
                values = predictor(adapted, test.tokens.rows(query)).numpy()
            errors.append(mse(values, measured[query]))
        found.append(_timed(n, "meta", clock.seconds["meta"], steps, errors))
    return found


def _timed(n: int, method: str, seconds: float, gradients: int, errors: list[float]) -> dict:
    return {
        "rows": n,
        "method": method,
        "seconds": seconds,
        "gradients": gradients,
        "mse": float(np.mean(errors)),
    }
