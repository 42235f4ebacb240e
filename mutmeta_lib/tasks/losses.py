r"""Task losses: what a predictor is asked for, as functions of predicted and measured labels.

``mse`` asks for the values, the others for the order alone: a predictor trained on these ranks, and
``study.evaluate`` reports its errors as NaN. Each takes two vectors ``(n,)`` and returns a mean, so
that a learning rate means the same at any number of labels, without branches on values.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, mse_loss


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


def bradley_terry(predicted: Tensor, labels: Tensor) -> Tensor:
    r"""Logistic loss of all pairs that differ in their labels (Bradley and Terry 1952).

    .. math:: \frac{1}{|P|} \sum_{(i, j) \in P} \log\bigl(1 + e^{-(s_i - s_j)}\bigr),
       \qquad P = \{(i, j): y_i > y_j\}

    (Biometrika 39, 324-345). Pairs with *equal labels* are left out. Without any pair the loss and
    its gradient are 0.

    >>> bradley_terry(torch.zeros(3), torch.tensor([3.0, 1.0, 1.0]))  # two pairs, log 2 each
    tensor(0.6931)
    """
    better = (labels[:, None] > labels[None, :]).to(predicted.dtype)
    margin = predicted[:, None] - predicted[None, :]
    return -(better * logsigmoid(margin)).sum() / better.sum().clamp(min=1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse_loss,
    "list_mle": list_mle,
    "bradley_terry": bradley_terry,
}
"""Name -> loss; the names of ``Predictor.objective``. The paper's is ``mse``."""

RANKING = ("list_mle", "bradley_terry")
"""The losses that leave location and scale of the predictions free."""
