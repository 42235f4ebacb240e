"""Seconds and accuracy, phase by phase, against the number of labels.

The paper counts the time to adapt and finds MAML's independent of the data set's size. It is, by
construction, when MAML looks at a fixed number of labels while fine-tuning makes epochs over all
of them. So both are timed in both ways, and meta-training is put on the bill.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from mutmeta_lib.data.splits import protein_folds
from mutmeta_lib.learn.finetune import finetune_epochs
from mutmeta_lib.learn.methods import GradientMethod, Method, divergences
from mutmeta_lib.models.predictor import Params, Predictor, predict
from mutmeta_lib.records.record import Record, number, recorded_parameters
from mutmeta_lib.study.evaluate import few_shot, summarise
from mutmeta_lib.study.few_shot_run import train_starts, tune
from mutmeta_lib.study.intervals import row_number
from mutmeta_lib.study.setting import (
    describe_encoder,
    encode_fold,
    load_assays,
    make_predictor,
    make_record,
    outer_loop,
)
from mutmeta_lib.tasks.tasks import Examples


@dataclass(frozen=True, eq=False)
class EpochFineTuning:
    """Fine-tuning by whole epochs over all labels: its cost grows with the data set."""

    name: str
    predictor: Predictor
    start: Params
    lr: float
    epochs: int
    batch_size: int = 16

    def adapt(self, support: Examples, generator: torch.Generator) -> Params:
        """Make ``epochs`` passes over the labels."""
        return finetune_epochs(
            self.predictor.loss,
            self.start,
            support,
            lr=self.lr,
            epochs=self.epochs,
            batch_size=self.batch_size,
            generator=generator,
        )

    def predict(self, state: Params, query: Examples) -> np.ndarray:
        """Predicted labels, ``(n,)``."""
        return predict(self.predictor, state, query.tokens).numpy()


@dataclass(frozen=True, eq=False)
class FirstLabels:
    """Another method, shown only the first ``shots`` labels however many there are."""

    name: str
    method: Method
    shots: int

    def adapt(self, support: Examples, generator: torch.Generator) -> Any:
        """Adapt to the first labels."""
        return self.method.adapt(support.take(np.arange(min(self.shots, len(support)))), generator)

    def predict(self, state: Any, query: Examples) -> np.ndarray:
        """Predicted labels, ``(n,)``."""
        return self.method.predict(state, query)


def timing_experiment(
    *,
    data_dir: str = "demo",
    ids: Sequence[str] | None = None,
    per_protein: int = 0,
    encoder: str = "tiny",
    encoding: str = "separator",
    pooling: str = "sites",
    sizes: Sequence[int] = (10, 20, 40, 80),
    seeds: int = 5,
    n_folds: int = 3,
    fold: int = 0,
    meta_steps: int = 200,
    tasks_per_step: int = 4,
    support: int = 10,
    query: int = 16,
    inner_steps: int = 5,
    inner_lr: float = 0.01,
    first_order: bool = False,
    meta_lr: float = 1e-3,
    adapt_steps: int = 10,
    epochs: int = 5,
    max_query: int | None = 64,
    backend: str = "torch.func",
    device: str = "auto",
    profile: str = "full",
) -> Record:
    """Time meta-training, adaptation and prediction, and score what the time bought.

    Args:
        data_dir: ``demo`` or a folder in the layout of the data card.
        ids: assay ids to use; all when None.
        per_protein: at most so many assays per protein and property; 0 is all.
        encoder: ``tiny``, a local directory or a hub name.
        encoding: how a variant is written as tokens.
        pooling: how hidden states become one vector.
        sizes: numbers of labels of the target assay.
        seeds: number of seeds.
        n_folds: groups of proteins.
        fold: the meta-test group.
        meta_steps: outer steps of MAML and of joint training.
        tasks_per_step: tasks per outer step.
        support: support size in meta-training, and the fixed number of labels of ``maml_fixed``.
        query: query size in meta-training.
        inner_steps: inner steps in meta-training.
        inner_lr: inner rate in meta-training.
        first_order: ignore second derivatives in meta-training.
        meta_lr: Adam rate of the outer loop.
        adapt_steps: full-batch steps of the equal-steps arms.
        epochs: epochs of the epochs arm.
        max_query: query variants per task.
        backend: implementation of the meta-gradient.
        device: ``auto``, ``cpu`` or ``cuda``.
        profile: name of the profile, for the record.

    Returns:
        A record: tables ``results``, ``seconds`` (adaptation time per method and size) and
        ``spearman``; numbers ``<method>_<size>_seconds``, ``<method>_<size>_spearman``,
        ``meta_training_seconds`` and ``break_even_tasks`` (target assays after which
        meta-training has paid for itself against epochs of fine-tuning at the largest size;
        absent value when it never does).

    """
    parameters = recorded_parameters(locals())
    assays = load_assays(data_dir, ids=ids, per_protein=per_protein)
    split = protein_folds(assays, n_folds)[fold]
    settings = outer_loop(parameters, validate_every=max(5, meta_steps // 10), validation_tasks=8)
    seconds = {"meta_training_maml": 0.0, "meta_training_multitask": 0.0}
    tables, fell_back = [], 0
    for seed in range(seeds):
        predictor = make_predictor(encoder, pooling, seed=seed, device=device)
        data = encode_fold(split, assays, encoding, predictor)
        learned = ("maml", "multitask", "finetune")
        starts, runs = train_starts(predictor, data, settings, learned, seed, device)
        for name, run in runs.items():
            seconds[f"meta_training_{name}"] += run.seconds
        methods: dict[str, Method] = {}
        for name in learned:
            (optimiser, lr), _ = tune(
                predictor, data, name, starts[name], adapt_steps, [support], seed
            )
            methods[name] = GradientMethod(
                name, predictor, starts[name], optimiser, lr, adapt_steps
            )
        methods["maml_fixed"] = FirstLabels("maml_fixed", methods["maml"], support)
        methods["finetune_epochs"] = EpochFineTuning(
            "finetune_epochs", predictor, starts["finetune"], 1e-3, epochs
        )
        # The first call of a process pays for warming up; it is made here and thrown away.
        with divergences():
            few_shot(methods, data.test[:1], shots=[min(sizes)], seeds=[seed], max_query=8)
        with divergences() as diverged:
            enough = [a for a in data.test if len(a) >= max(sizes) + 16]
            tables.append(few_shot(methods, enough, shots=sizes, seeds=[seed], max_query=max_query))
        fell_back += len(diverged)
    results = pd.concat(tables, ignore_index=True)
    adaptation = summarise(results, "seconds_adapt")
    accuracy = summarise(results, "spearman")
    numbers = {}
    for table, unit, word in ((adaptation, "s", "seconds"), (accuracy, "Spearman", "spearman")):
        for row in table.to_dict("records"):
            numbers[f"{row['method']}_{row['shots']}_{word}"] = row_number(row, unit)
    trained = seconds["meta_training_maml"] / seeds
    numbers["diverged_adaptations"] = number(fell_back, n=len(results), unit="adaptations")
    numbers["meta_training_seconds"] = number(trained, n=seeds, unit="s")
    numbers["break_even_tasks"] = number(
        break_even(
            trained,
            numbers[f"maml_fixed_{max(sizes)}_seconds"]["value"],
            numbers[f"finetune_epochs_{max(sizes)}_seconds"]["value"],
        ),
        unit="tasks",
    )
    return make_record(
        "timing",
        profile,
        parameters,
        assays=assays,
        encoder=describe_encoder(make_predictor(encoder, pooling, seed=0, device="cpu")),
        device=device,
        seconds=seconds,
        numbers=numbers,
        tables={"results": results, "seconds": adaptation, "spearman": accuracy},
    )


def break_even(meta_training: float, with_meta: float, without: float) -> float:
    """Number of target tasks after which meta-training has saved what it cost, in seconds.

    >>> break_even(100.0, 1.0, 3.0)
    50
    >>> break_even(100.0, 3.0, 1.0)
    nan
    """
    if without <= with_meta:
        return math.nan
    return math.ceil(meta_training / (without - with_meta))
