r"""The inner loop: a few gradient steps on a task's support set.

.. math:: \theta'_0 = \theta, \qquad
   \theta'_{s+1} = \theta'_s - \alpha \odot \nabla_{\theta'_s} L_\text{support}(\theta'_s)

The *scope* says by their names which parameters it adapts. Those outside stay at the start; they
still receive the outer gradient, so they are learned across tasks, only not within one.

=========== ====================================== ==========================================
scope       adapted                                known as
=========== ====================================== ==========================================
``all``     every parameter                        MAML (arXiv 1703.03400)
``head``    ``head.*``                             ANIL (Raghu et al. 2020, arXiv 1909.09157)
``encoder`` ``encoder.*``                          BOIL (Oh et al. 2021, arXiv 2008.08882)
``lora``    low-rank adapters (`lora`), the head   as FSFP (doi:10.1038/s41467-024-49798-6)
=========== ====================================== ==========================================

The rate :math:`\alpha` is one number. In Meta-SGD (Li et al. 2017, arXiv 1707.09835) it has the
shape of :math:`\theta` and is learned with it: each rate stands beside its parameter under
``rate.<name>``, and may become negative, as in the paper.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from mutmeta_lib.errors import DataError
from mutmeta_lib.tasks.tasks import Examples

Params = dict[str, Tensor]
Batch = TypeVar("Batch")
Loss = Callable[[Params, Batch], Tensor]
"""A scalar loss of parameters and a batch of any kind."""
Update = Callable[..., Params]
"""An inner loop: ``(loss, params, support, loop)`` to adapted parameters."""

RATE = "rate."  # the name of a parameter follows
UNUSED = {"allow_unused": True, "materialize_grads": True}  # what a loss does not touch has slope 0


@dataclass(frozen=True)
class InnerLoop:
    """Adaptation by ``steps`` gradient steps of size ``lr``; ``first_order`` is FOMAML."""

    lr: float = 0.01
    steps: int = 5
    first_order: bool = False
    scope: str = "all"


def inner_update(loss: Loss, params: Params, support: Batch, loop: InnerLoop) -> Params:
    """Adapt parameters to a support set; the given ones are left as they are.

    The result is without learned rates. It depends differentiably on ``params`` where those require
    a gradient; in first order, inner gradients are constants. One step on a parabola:

    >>> parabola = lambda params, target: ((params["w"] - target) ** 2).sum()
    >>> start = {"w": torch.tensor([0.0])}
    >>> inner_update(parabola, start, torch.tensor([3.0]), InnerLoop(lr=0.1, steps=1))
    {'w': tensor([0.6000])}
    """
    learned = {name.removeprefix(RATE): v for name, v in params.items() if name.startswith(RATE)}
    rates = learned or dict.fromkeys(adapted_names(params, loop.scope), loop.lr)
    through = torch.is_grad_enabled() and any(value.requires_grad for value in params.values())
    params = {name: value for name, value in params.items() if not name.startswith(RATE)}
    adapted = {name: params[name] for name in rates}
    for _ in range(loop.steps):
        kept = {name: through and value.requires_grad for name, value in adapted.items()}
        leaves = {n: v if kept[n] else v.detach().requires_grad_() for n, v in adapted.items()}
        with torch.enable_grad():
            value = loss({**params, **leaves}, support)
        graph = through and not loop.first_order
        slopes = torch.autograd.grad(value, [*leaves.values()], create_graph=graph, **UNUSED)
        with torch.set_grad_enabled(through):
            moved = zip(leaves.items(), slopes, strict=True)
            adapted = {name: value - rates[name] * slope for (name, value), slope in moved}
    return {**params, **adapted}


def finetune(loss: Loss, params: Params, batches: Iterable[Batch], *, lr: float) -> Params:
    """One step of Adam on each batch in turn, on a copy of ``params``: MAML's rival."""
    tuned = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    optimiser = torch.optim.Adam(tuned.values(), lr=lr)
    for batch in batches:
        optimiser.zero_grad()
        loss(tuned, batch).backward()
        optimiser.step()
    return {name: value.detach() for name, value in tuned.items()}


def shuffled(
    support: Examples, times: int, batch_size: int, generator: torch.Generator
) -> Iterator[Examples]:
    """Mini-batches of examples, shuffled anew each time over."""
    for _ in range(times):
        order = torch.randperm(len(support), generator=generator).numpy()
        for start in range(0, len(order), batch_size):
            yield support.take(order[start : start + batch_size])


def with_rates(params: Params, loop: InnerLoop) -> Params:
    """Parameters and, for those in the scope, rates to be learned that all begin at ``loop.lr``."""
    names = adapted_names(params, loop.scope)
    return params | {RATE + name: torch.full_like(params[name], loop.lr) for name in names}


def adapted_names(names: Iterable[str], scope: str) -> tuple[str, ...]:
    """The names in ``scope``, in the order given; a DataError where it does not fit them.

    >>> adapted_names(["encoder.w", "encoder.lora_A.w", "head.0.w"], "lora")
    ('encoder.lora_A.w', 'head.0.w')
    """
    names = tuple(names)
    if scope == "all":
        return names
    mend = f"use a model whose parameters are named {scope}.*, or the scope 'all'"
    if scope == "lora":
        mend = "give the encoder adapters with learn.lora.with_lora"
        adapters = any(".lora_" in name for name in names)
        chosen = [n for n in names if adapters and (".lora_" in n or n.startswith("head."))]
    elif scope in ("head", "encoder"):
        chosen = [name for name in names if name.startswith(f"{scope}.")]
    else:
        mend = "choose from all, head, encoder, lora"
        raise DataError(f"unknown inner-loop scope {scope!r}", mend)
    if not chosen:
        raise DataError(f"the inner-loop scope {scope!r} holds no parameter", mend)
    return tuple(chosen)
