r"""The inner loop: a few gradient steps on a task's support set.

.. math:: \theta'_0 = \theta, \qquad
   \theta'_{s+1} = \theta'_s - \alpha \nabla_{\theta'_s} L_\text{support}(\theta'_s)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor
from torch.func import grad

from mutmeta_lib.learn.scope import adapted_names

Params = dict[str, Tensor]
Batch = TypeVar("Batch")
Loss = Callable[[Params, Batch], Tensor]
"""A scalar loss of parameters and a batch of any kind."""
Update = Callable[..., Params]
"""An inner loop: ``(loss, params, support, loop)`` to adapted parameters of the same names."""


@dataclass(frozen=True)
class InnerLoop:
    """Adaptation by gradient descent: ``steps`` steps of size ``lr``.

    ``first_order`` treats the inner gradients as constants, so the meta-gradient is the query
    gradient at the adapted parameters (FOMAML); otherwise it is differentiated through. ``scope``
    says which parameters are adapted (see ``scope``); the others stay at the start.
    """

    lr: float = 0.01
    steps: int = 5
    first_order: bool = False
    scope: str = "all"


def inner_update(loss: Loss, params: Params, support: Batch, loop: InnerLoop) -> Params:
    """Adapt parameters to a support set; the given parameters are left as they are.

    Args:
        loss: scalar loss of ``(params, batch)``.
        params: start of the inner loop, a dictionary of tensors.
        support: the labelled support set, passed to ``loss`` as it is.
        loop: number and size of the steps, first or second order, and what is adapted.

    Returns:
        New parameters of the same names and shapes. They depend differentiably on ``params``;
        those outside the scope are the given tensors themselves.

    Raises:
        DataError: the scope does not fit the parameters.

    Example (one step on a parabola with its minimum at 3)::

        >>> import torch
        >>> parabola = lambda params, target: ((params["w"] - target) ** 2).sum()
        >>> start = {"w": torch.tensor([0.0])}
        >>> inner_update(parabola, start, torch.tensor([3.0]), InnerLoop(lr=0.1, steps=1))
        {'w': tensor([0.6000])}

    """
    rates = dict.fromkeys(adapted_names(params, loop.scope), loop.lr)
    return descend(loss, params, support, loop, rates)


def descend(
    loss: Loss,
    params: Params,
    support: Batch,
    loop: InnerLoop,
    rates: Mapping[str, float | Tensor],
) -> Params:
    """Gradient steps on the parameters that have a rate; the others stay as they are.

    Args:
        loss: scalar loss of ``(params, batch)``.
        params: start of the inner loop.
        support: the labelled support set.
        loop: number of the steps, first or second order; its rate and scope are not read.
        rates: name -> rate, a number or a tensor of the parameter's shape.

    Returns:
        New parameters of the same names and shapes.

    """
    adapted = {name: params[name] for name in rates}
    support_gradient = grad(lambda changed: loss({**params, **changed}, support))
    for _ in range(loop.steps):
        gradient = support_gradient(adapted)
        if loop.first_order:
            gradient = {name: value.detach() for name, value in gradient.items()}
        adapted = {name: value - rates[name] * gradient[name] for name, value in adapted.items()}
    return {**params, **adapted}
