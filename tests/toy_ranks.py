"""Small meta-training runs that one process or several do: as ``accelerate launch`` starts them.

All numbers are float64. In float32 Adam turns the rounding of gradients that ought to be 0 (such as
that of a bias added to all attention keys) into steps of its own, and hides what is compared here.
"""

import signal
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from toy import toy_encoded, toy_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.distributed import ALONE, Ranks, launched
from mutmeta_lib.learn.train import MetaTraining, meta_train
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.records.store import save

SETTINGS = MetaTraining(
    steps=4, tasks_per_step=4, support=4, query=4, inner=InnerLoop(0.05, 2),
    validate_every=2, validation_tasks=3,
)  # fmt: skip
SOUND = toy_predictor()


class Broken(Predictor):
    """A predictor whose loss is not a number on one assay."""

    def loss(self, params, examples, *more, **others):
        value = super().loss(params, examples, *more, **others)
        return value * torch.nan if examples.assay.assay.id == "TOY1" else value


BROKEN = Broken(SOUND.encoder, SOUND.pooling, SOUND.hidden)
RUNS = {
    "even": (SOUND, SETTINGS),
    "uneven": (SOUND, replace(SETTINGS, tasks_per_step=3)),
    "fewer tasks than processes": (SOUND, replace(SETTINGS, tasks_per_step=1)),
    "multitask": (SOUND, replace(SETTINGS, algorithm="multitask")),
    "skip": (BROKEN, replace(SETTINGS, on_nonfinite="skip")),
    "stop": (BROKEN, SETTINGS),
}


def train(predictor, settings, ranks=ALONE, **more):
    start = predictor.init(torch.Generator().manual_seed(0))
    start = {name: value.double() for name, value in start.items()}
    more = {"validation": toy_encoded(3)[2:], "seed": 0} | more
    return meta_train(predictor, start, toy_encoded(2), settings, ranks=ranks, **more)


def outcome(ranks, *given, **more):
    """What a run came to: parameters, and everything else in words and numbers."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            run = train(*given, ranks, **more)
        except (DataError, KeyboardInterrupt) as error:
            return {}, {"error": type(error).__name__, "told": str(error)}
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]
    told = [str(one.message) for one in caught]
    return run.params, {"history": rows, "best_step": run.best_step, "warnings": told}


def killed_and_resumed(folder: Path, ranks: Ranks):
    """Ctrl-C in one process after step 2; then the run goes on from the checkpoint."""

    def ctrl_c(step, steps, loss):
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    file = folder / "run.safetensors"
    _, first = outcome(ranks, SOUND, SETTINGS, checkpoint=file, progress=ctrl_c)
    params, second = outcome(ranks, SOUND, SETTINGS, checkpoint=file, log_dir=folder / "logs")
    return params, {**second, "first": first["told"].replace(str(folder), "")}


def all_runs(folder: Path, ranks: Ranks) -> None:
    """Do every run; each process keeps what it saw in files of its own."""
    runs = {name: outcome(ranks, *given) for name, given in RUNS.items()}
    runs["resumed"] = killed_and_resumed(folder, ranks)
    runs["other seed"] = outcome(ranks, SOUND, SETTINGS, seed=ranks.rank)
    for name, (params, seen) in runs.items():
        save(folder / f"{name} {ranks.rank}.safetensors", params, seen)


def endless(ranks: Ranks) -> None:
    """Train until somebody makes an end of it."""
    say = {"progress": lambda step, *_: print(step, flush=True)}
    train(SOUND, replace(SETTINGS, steps=10**6, validate_every=10**6), ranks, **say)


def main(folder: Path | None = None) -> None:
    """Do all runs and keep them in ``folder``; without one, train without end."""
    torch.set_num_threads(1)
    try:
        with launched("cpu", timeout=120 if folder else 5) as ranks:
            all_runs(folder, ranks) if folder else endless(ranks)
    except DataError as error:
        sys.exit(str(error))
