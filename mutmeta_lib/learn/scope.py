"""Which parameters the inner loop adapts, by their names.

Parameters outside the scope stay at the start in the inner loop. They still receive the outer
gradient: they are learned across tasks, only not within one.

=========== ============================================ ==========================================
scope       adapted                                      known as
=========== ============================================ ==========================================
``all``     every parameter                              MAML (arXiv 1703.03400)
``head``    ``head.*``                                   ANIL (Raghu et al. 2020, arXiv 1909.09157)
``encoder`` ``encoder.*``                                BOIL (Oh et al. 2021, arXiv 2008.08882)
``last-k``  the last k layers of the encoder and the     between ``head`` and ``all``
            head; embeddings and a norm after the last
            layer stay
=========== ============================================ ==========================================
"""

import re
from collections.abc import Iterable

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.layers import layer_of

SCOPES = ("all", "head", "encoder", "lora", "last-<k>")
"""The known scopes; k is a number from 1 to the number of layers."""


def adapted_names(names: Iterable[str], scope: str) -> tuple[str, ...]:
    """The names in ``scope``, in the order given.

    Args:
        names: names of all parameters, as in ``predictor.Params``.
        scope: ``all``, ``head``, ``encoder``, ``lora`` or ``last-<k>``.

    Raises:
        DataError: the scope is unknown, asks for more layers than there are, or holds no
            parameter.

    >>> names = ["encoder.blocks.0.w", "encoder.blocks.1.w", "encoder.norm.w", "head.0.w"]
    >>> adapted_names(names, "last-1")
    ('encoder.blocks.1.w', 'head.0.w')

    """
    names = tuple(names)
    if scope == "all":
        return names
    if scope in ("head", "encoder"):
        chosen = tuple(name for name in names if name.startswith(f"{scope}."))
    elif scope == "lora":
        chosen = tuple(name for name in names if ".lora_" in name or name.startswith("head."))
        if not any(".lora_" in name for name in chosen):
            raise DataError(
                "the inner-loop scope 'lora' holds no parameter",
                "give the encoder adapters with maml.lora.with_lora",
            )
    elif re.fullmatch(r"last-[1-9]\d*", scope):
        chosen = _last_layers(names, int(scope.removeprefix("last-")))
    else:
        raise DataError(
            f"unknown inner-loop scope {scope!r}", f"choose from {', '.join(SCOPES)} with k >= 1"
        )
    if not chosen:
        raise DataError(
            f"the inner-loop scope {scope!r} holds no parameter",
            f"use a model whose parameters are named {scope}.*, or the scope 'all'",
        )
    return chosen


def _last_layers(names: tuple[str, ...], k: int) -> tuple[str, ...]:
    """Names in the last k layers and in the head."""
    layers = sorted({layer for name in names if (layer := layer_of(name)) is not None})
    if k > len(layers):
        raise DataError(
            f"inner-loop scope 'last-{k}' asks for more layers than the encoder's {len(layers)}",
            f"ask for last-1 to last-{len(layers)}, or for 'all'"
            if layers
            else "use 'all', 'head' or 'encoder'",
        )
    last = set(layers[-k:])
    return tuple(name for name in names if name.startswith("head.") or layer_of(name) in last)
