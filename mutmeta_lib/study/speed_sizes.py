"""Seconds against the number of labels: a fixed support set against all labels, for every start.

A method that reads ten labels however many there are takes the same time however many there are.
So that this is not taken for a property of meta-learning, fine-tuning is given the same ten labels
and the same steps, and MAML's start the same epochs over all labels.
"""

from collections.abc import Sequence

import torch

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.selections import cap_assay
from mutmeta_lib.learn.finetune import finetune_epochs
from mutmeta_lib.learn.training import MetaTraining
from mutmeta_lib.models.predictor import predict
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.study.frozen_heads import clock, descend, tuned_starts
from mutmeta_lib.study.setting import load_assays
from mutmeta_lib.study.vectors import Vectors
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import draw_task, task_generator

KINDS = ("fixed", "steps", "epochs")
"""The first labels; all labels in full-batch steps; all labels in epochs of batches of 16."""

EPOCH_RATE = 1e-3
"""Adam's rate of the arms in epochs."""


def size_assays(data_dir: str, ids: Sequence[str], cap: int) -> list[Assay]:
    """The assays that give many labels, ``cap`` variants of each."""
    return [cap_assay(assay, cap) for assay in load_assays(data_dir, ids=ids)] if ids else []


def size_rows(
    pool: Vectors,
    large: Vectors,
    settings: MetaTraining,
    *,
    sizes: Sequence[int],
    fixed: int,
    steps: int,
    epochs: int,
    max_query: int,
    seeds: int,
    tasks: int,
) -> list[dict]:
    """Time and score every start and way of reading the labels at every size.

    Args:
        pool: Candidates for meta-training; those of the large assays' clusters are left out.
        large: Assays with at least ``max(sizes) + max_query`` variants.
        settings: The outer loop.
        sizes: Numbers of labels.
        fixed: Labels that the arms ``fixed`` read, however many there are.
        steps: Full-batch steps.
        epochs: Passes over all labels.
        max_query: Query variants.
        seeds: Number of seeds.
        tasks: Meta-validation tasks that a rate is chosen on.

    Returns:
        Rows with assay, seed, start, kind, labels, seconds and spearman.

    """
    predictor = pool.predictor
    assays = list(large.assays.values())
    tested = [assay.assay for assay in assays]
    rows = []
    for seed in range(seeds):
        tuned = tuned_starts(
            pool, tested, settings, support=fixed, steps=steps, n_tasks=tasks, seed=seed
        )
        for name, (start, rate) in tuned.items():
            for assay in assays:
                where = {"assay": assay.assay.id, "seed": seed, "start": name}
                for size in sizes:
                    task = _task(assay, size, seed, sizes, max_query)
                    first = _task(assay, min(size, fixed), seed, sizes, max_query)
                    for kind in KINDS:
                        seen = first if kind == "fixed" else task
                        generator = torch.Generator().manual_seed(stable_seed("sizes", seed, size))
                        began = clock()
                        if kind == "epochs":
                            adapted = finetune_epochs(
                                predictor.loss,
                                start,
                                seen.support,
                                lr=EPOCH_RATE,
                                epochs=epochs,
                                batch_size=16,
                                generator=generator,
                            )
                        else:
                            adapted = descend(predictor, start, seen.support, rate, steps)
                        seconds = clock() - began
                        predicted = predict(predictor, adapted, seen.query.tokens).numpy()
                        rank = spearman(predicted, seen.query.scores)
                        row = {"kind": kind, "labels": size, "seconds": seconds, "spearman": rank}
                        rows.append({**where, **row})
    return rows


def _task(assay, shots: int, seed: int, sizes: Sequence[int], max_query: int):
    rng = task_generator(seed, assay.assay.id)
    return draw_task(assay, shots, rng, pool=max(sizes), max_query=max_query)
