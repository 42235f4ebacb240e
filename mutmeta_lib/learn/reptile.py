r"""Reptile (Nichol et al. 2018, arXiv 1803.02999): move the start towards adapted parameters.

.. math:: g_t = \theta - \theta'_t

takes the place of a gradient in the outer loop; its mean over tasks is the paper's batched version.
Nothing is differentiated through, and no query set is needed.
"""

from dataclasses import replace

import torch
from torch import Tensor

from mutmeta_lib.learn.inner import Batch, InnerLoop, Loss, Params, inner_update


def reptile_task_gradient(
    loss: Loss, params: Params, support: Batch, query: Batch, loop: InnerLoop
) -> tuple[Tensor, Params]:
    """Query loss after adaptation (for the record only), and start minus adapted parameters.

    With one step this is ``loop.lr`` times the support gradient at the start.
    """
    adapted = inner_update(loss, params, support, replace(loop, first_order=True))
    with torch.no_grad():
        value = loss(adapted, query)
        return value, {name: start - adapted[name] for name, start in params.items()}
