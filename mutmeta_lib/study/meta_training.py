"""One meta-training run, watched: loss against steps and seconds, with checkpoint and resume."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from mutmeta_lib.data.splits import protein_folds
from mutmeta_lib.learn.training import Trained, meta_train
from mutmeta_lib.records.progress import shown_progress
from mutmeta_lib.records.record import Record, number, recorded_parameters
from mutmeta_lib.study.setting import (
    describe_encoder,
    encode_fold,
    initial_params,
    load_assays,
    make_predictor,
    make_record,
    outer_loop,
)

Progress = Callable[[str, int, int, float], None]


def meta_training_experiment(
    *,
    data_dir: str = "demo",
    ids: Sequence[str] | None = None,
    per_protein: int = 0,
    encoder: str = "tiny",
    encoding: str = "separator",
    pooling: str = "sites",
    seed: int = 0,
    n_folds: int = 3,
    fold: int = 0,
    meta_steps: int = 200,
    tasks_per_step: int = 4,
    support: int = 10,
    query: int = 16,
    inner_steps: int = 5,
    inner_lr: float = 0.01,
    meta_lr: float = 1e-3,
    backend: str = "torch.func",
    device: str = "auto",
    checkpoint_dir: str | None = None,
    log_dir: str | None = None,
    profile: str = "full",
    progress: Progress | None = None,
) -> Record:
    """Train three starts on one fold: second-order MAML, first-order MAML, joint training.

    Args:
        data_dir: ``demo`` or a folder in the layout of the data card.
        ids: assay ids to use; all when None.
        per_protein: at most so many assays per protein and property; 0 is all.
        encoder: ``tiny``, a local directory or a hub name.
        encoding: how a variant is written as tokens.
        pooling: how hidden states become one vector.
        seed: of starts and draws.
        n_folds: groups of proteins.
        fold: which of them is the meta-test group (not touched here).
        meta_steps: outer steps.
        tasks_per_step: tasks per outer step.
        support: support size.
        query: query size.
        inner_steps: inner steps.
        inner_lr: inner rate.
        meta_lr: Adam rate of the outer loop.
        backend: implementation of the meta-gradient.
        device: ``auto``, ``cpu`` or ``cuda``.
        checkpoint_dir: folder for checkpoints; a killed run started again goes on from them.
        log_dir: folder for TensorBoard's curves, one folder in it per start.
        profile: name of the profile, for the record.
        progress: called with ``(method, step, steps, loss)`` after every step, in place of bars
            on standard error.

    Returns:
        A record: table ``history`` (one row per method and step), numbers
        ``<method>_seconds_per_step``, ``<method>_best_step``, ``<method>_validation_loss``.

    """
    parameters = recorded_parameters(locals())
    assays = load_assays(data_dir, ids=ids, per_protein=per_protein)
    predictor = make_predictor(encoder, pooling, seed=seed, device=device)
    split = encode_fold(protein_folds(assays, n_folds)[fold], assays, encoding, predictor)
    start = initial_params(predictor, seed, device)
    arms = {"maml": ("maml", False), "fomaml": ("maml", True), "multitask": ("multitask", True)}
    settings = outer_loop(parameters, validate_every=max(5, meta_steps // 10), validation_tasks=8)
    history, seconds, numbers = [], {}, {}
    with nullcontext() if progress else shown_progress() as report:
        tell = progress or (lambda name, step, steps, loss: report(name, step, steps))
        for name, (algorithm, first_order) in arms.items():
            inner = replace(settings.inner, first_order=first_order)
            run = meta_train(
                predictor,
                start,
                split.train,
                replace(settings, algorithm=algorithm, inner=inner),
                seed=seed,
                validation=split.validation,
                checkpoint=Path(checkpoint_dir) / f"{name}.safetensors" if checkpoint_dir else None,
                log_dir=Path(log_dir) / name if log_dir else None,
                progress=partial(tell, name),
            )
            history += [{"method": name, **row} for row in run.history]
            seconds[f"meta_training_{name}"] = run.seconds
            numbers |= _numbers(name, run)
    return make_record(
        "meta_training",
        profile,
        parameters,
        assays=assays,
        encoder=describe_encoder(predictor),
        device=device,
        seconds=seconds,
        numbers=numbers,
        tables={"history": pd.DataFrame(history)},
    )


def _numbers(name: str, run: Trained) -> dict[str, dict]:
    """What a page may print of one run."""
    checked = [row["validation_loss"] for row in run.history]
    steps = len(run.history)
    return {
        f"{name}_seconds_per_step": number(run.seconds / steps, n=steps, unit="s"),
        f"{name}_best_step": number(run.best_step, n=steps),
        f"{name}_validation_loss": number(checked[run.best_step - 1], n=1),
    }
