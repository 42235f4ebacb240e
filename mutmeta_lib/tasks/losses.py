r"""Task losses: what a predictor is asked for, as functions of predicted and measured labels.

``mse`` asks for the values, ``list_mle`` for the order alone: a predictor trained on it ranks, and
``study.evaluate`` reports its errors as NaN. Each takes two vectors ``(n,)`` and returns a mean, so
that a learning rate means the same at any number of labels, without branches on values.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import mse_loss


def list_mle(predicted: Tensor, labels: Tensor) -> Tensor:
    r"""Plackett-Luce likelihood of the measured order (ListMLE; Xia et al. 2008), divided by n.

    .. math:: \frac{1}{n} \sum_i \Bigl(\log \sum_{j:\, y_j \le y_i} e^{s_j} - s_i\Bigr)

    with predictions s and labels y: the best is drawn first, then the best of the rest, and so on
    (doi:10.1145/1390156.1390306). Examples with *equal labels* are each drawn from all that are no
    better (Breslow's treatment of ties): their predictions are pulled together. Fewer than two
    examples have no order: the loss and its gradient are 0.

    >>> list_mle(torch.zeros(2), torch.tensor([3.0, 1.0]))  # (log 2 + log 1) / 2
    tensor(0.3466)
    """
    no_better = labels[None, :] <= labels[:, None]
    rest = torch.where(no_better, predicted[None, :], -torch.inf).logsumexp(dim=1)
    return (rest - predicted).sum() / max(len(labels), 1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": mse_loss, "list_mle": list_mle}
"""Name -> loss; the names of ``Predictor.objective``. The paper's is ``mse``."""

RANKING = ("list_mle",)
"""Those that leave location and scale of the predictions free."""
