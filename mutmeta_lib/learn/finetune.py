"""Fine-tuning: Adam on the support set from a given start, the method the paper compares with."""

import torch

from mutmeta_lib.learn.inner import Batch, Loss, Params
from mutmeta_lib.tasks.tasks import Examples


def finetune(loss: Loss, params: Params, support: Batch, *, lr: float, steps: int) -> Params:
    """Train a copy of ``params`` on the whole support set for ``steps`` Adam steps.

    Args:
        loss: scalar loss of ``(params, batch)``.
        params: the start (pretrained, or jointly trained on other assays); not changed.
        support: the labelled support set.
        lr: Adam's learning rate.
        steps: number of full-batch steps.

    Returns:
        The tuned parameters, detached.

    """
    tuned = {name: value.detach().clone().requires_grad_(True) for name, value in params.items()}
    optimiser = torch.optim.Adam(tuned.values(), lr=lr)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(tuned, support).backward()
        optimiser.step()
    return {name: value.detach() for name, value in tuned.items()}


def finetune_epochs(
    loss: Loss,
    params: Params,
    support: Examples,
    *,
    lr: float,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
) -> Params:
    """Fine-tune in shuffled mini-batches for whole epochs: the cost grows with the data set.

    This is the fine-tuning of the paper's timing comparison (5 epochs over the target's training
    file in the public code; its learning-rate schedule is left out).

    Args:
        loss: scalar loss of ``(params, examples)``.
        params: the start; not changed.
        support: the labelled examples.
        lr: Adam's learning rate.
        epochs: passes over the examples.
        batch_size: examples per step.
        generator: draws the order of the examples.

    Returns:
        The tuned parameters, detached.

    """
    tuned = {name: value.detach().clone().requires_grad_(True) for name, value in params.items()}
    optimiser = torch.optim.Adam(tuned.values(), lr=lr)
    for _ in range(epochs):
        order = torch.randperm(len(support), generator=generator).numpy()
        for start in range(0, len(order), batch_size):
            optimiser.zero_grad()
            loss(tuned, support.take(order[start : start + batch_size])).backward()
            optimiser.step()
    return {name: value.detach() for name, value in tuned.items()}
