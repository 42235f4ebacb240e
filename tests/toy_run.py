"""Meta-training on made-up data as a command of its own: the process that tests kill."""

from pathlib import Path

import torch
import typer
from toy import toy_encoded, toy_predictor

from mutmeta_lib.app.console import Commands
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.train import MetaTraining, meta_train
from mutmeta_lib.records.store import save

STEPS = 24
SETTINGS = MetaTraining(
    steps=STEPS,
    tasks_per_step=1,
    support=4,
    query=4,
    inner=InnerLoop(0.05, 1),
    validate_every=6,
    validation_tasks=1,
)

app = typer.Typer(cls=Commands, callback=lambda: None)  # a group of one command


@app.command()
def train(checkpoint: Path, result: Path) -> None:
    """Train to the end, or go on, and print every step; the outcome is written at the end."""
    predictor = toy_predictor()
    run = meta_train(
        predictor,
        predictor.init(torch.Generator().manual_seed(0)),
        toy_encoded(2),
        SETTINGS,
        seed=0,
        validation=toy_encoded(3)[2:],
        checkpoint=checkpoint,
        checkpoint_every=3,
        progress=lambda step, steps, loss: print(step, flush=True),
    )
    kept = ("step", "train_loss", "validation_loss")
    history = [[repr(row[name]) for name in kept] for row in run.history]
    save(result, run.params, {"best_step": run.best_step, "history": history})


if __name__ == "__main__":
    app()
