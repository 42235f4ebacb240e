"""Siblings: rows of tokens that differ in one place only, and the work they share.

The substitutions at one site of a protein, written in the separator encoding (and others), are
rows that differ in one column. What enters an encoder's first layer for any other token is the same
in all of them, and so are its query, key and value and the logits among these tokens: they are
computed once per site, not once per variant. Above the first layer all tokens differ.
"""

from __future__ import annotations

import torch
from torch import Tensor


def distinct_tokens(x: Tensor, varying: int) -> Tensor:
    """The tokens of siblings, each once: those of the first row, then every row's own.

    ``(n, length, width)`` to ``(length + n, width)``.
    """
    return torch.cat([x[0], x[:, varying]])


def attend_siblings(query: Tensor, key: Tensor, value: Tensor, n: int, varying: int) -> Tensor:
    r"""Softmax attention of siblings; the query comes scaled.

    Attention to the shared tokens is computed once. If it gives :math:`a` to a query, with
    log-sum-exp :math:`\ell` of the logits, then one more token with logit :math:`z` and value
    :math:`v` makes it exactly :math:`a + \sigma(z - \ell)\,(v - a)`.

    Args:
        query: Of the `distinct_tokens`, ``(heads, length + n, head width)``.
        key: As the query.
        value: As the query.
        n: Number of siblings.
        varying: The column in which they differ.

    Returns:
        Shape ``(n, length, heads * head width)``.

    """
    length = query.shape[1] - n
    logits = query @ key[:, :length].transpose(1, 2)
    logits[..., varying] = torch.finfo(logits.dtype).min / 2  # belongs to the first row alone
    log_shares = logits.log_softmax(dim=-1)
    anywhere = 0 if varying else length - 1
    total = (logits - log_shares)[..., anywhere, None]
    mixed = log_shares.exp() @ value[:, :length]
    own = (query @ key[:, length:].transpose(1, 2) - total).sigmoid()  # (heads, length + n, n)
    # The layout of the result: rows, tokens, heads, head width.
    shared = mixed[:, :length].transpose(0, 1).contiguous()
    values = value[:, length:].transpose(0, 1).contiguous()[:, None]
    result = torch.lerp(shared, values, own[:, :length].permute(2, 1, 0).contiguous()[..., None])
    own = own[:, length:].diagonal(dim1=1, dim2=2)[..., None]
    result[:, varying] = torch.lerp(mixed[:, length:], value[:, length:], own).transpose(0, 1)
    return result.flatten(2)
