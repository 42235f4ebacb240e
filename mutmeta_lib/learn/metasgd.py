r"""Meta-SGD (Li et al. 2017, arXiv 1707.09835): every single parameter learns its inner rate.

.. math:: \theta'_{s+1} = \theta'_s - \alpha \odot \nabla L_\text{support}(\theta'_s)

with :math:`\alpha` of the shape of :math:`\theta` and learned with it by the outer loop. Rates live
in the same dictionary as the parameters, under ``rate.<name>``. A parameter without a rate stays
at the start. Rates may become negative, as in the paper.
"""

import torch

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.inner import Batch, InnerLoop, Loss, Params, descend
from mutmeta_lib.learn.scope import adapted_names

RATE = "rate."
"""What the name of a rate starts with; the name of its parameter follows."""


def with_rates(params: Params, loop: InnerLoop) -> Params:
    """Parameters and, for those in the scope, rates that all begin at ``loop.lr``.

    >>> with_rates({"w": torch.ones(2)}, InnerLoop(lr=0.5))
    {'w': tensor([1., 1.]), 'rate.w': tensor([0.5000, 0.5000])}
    """
    names = adapted_names(params, loop.scope)
    return params | {RATE + name: torch.full_like(params[name], loop.lr) for name in names}


def split_rates(params: Params) -> tuple[Params, Params]:
    """Parameters without rates, and rates by the names of their parameters.

    >>> split_rates({"w": 1, "b": 2, "rate.w": 0.5})
    ({'w': 1, 'b': 2}, {'w': 0.5})
    """
    rates = {name.removeprefix(RATE): v for name, v in params.items() if name.startswith(RATE)}
    return {name: v for name, v in params.items() if not name.startswith(RATE)}, rates


def metasgd_update(loss: Loss, params: Params, support: Batch, loop: InnerLoop) -> Params:
    """Adapt the parameters that have a rate, each with its own.

    Args:
        loss: scalar loss of ``(params, batch)``.
        params: parameters and their rates, as from :func:`with_rates`.
        support: the labelled support set.
        loop: number of the steps, first or second order; its rate and scope are not read.

    Returns:
        The adapted parameters, without the rates: they have done their work.

    Raises:
        DataError: there are no rates.

    """
    start, rates = split_rates(params)
    if not rates:
        raise DataError("Meta-SGD was given no rates", "add them with with_rates")
    return descend(loss, start, support, loop, rates)
