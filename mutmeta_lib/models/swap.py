"""Encoders that differ from the one a head was learned on: noise, rounding, a layer less, none."""

import copy
from dataclasses import replace

import torch
from torch import Tensor

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoder import Encoder, fingerprint


def swap(encoder: Encoder, kind: str, *, seed: int = 0) -> Encoder:
    """An encoder of the same width in the place of the given one, which is not changed.

    ``noise <share>``: Gaussian noise on every weight matrix, its standard deviation that share of
    the matrix's own; ``bfloat16``: all weights rounded to that format; ``int8``: weight matrices
    rounded to 255 levels per row, as dynamic quantisation keeps them; ``one layer less``: states
    that enter the last layer; ``shuffled``: the entries of every weight matrix in random order.
    """
    if kind == "same":
        return encoder
    module = copy.deepcopy(encoder.module)
    if kind == "one layer less":
        if encoder.layers < 2:
            raise DataError(f"{encoder.name} has no layer to spare", "use an ESM-2 or a BERT")
        module.layers -= 1
        module.finish = lambda x: x  # nothing follows a layer that is not the last
    else:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for value in module.parameters():
                value.copy_(_changed(value, kind, generator))
    return replace(
        encoder,
        name=f"{encoder.name}, {kind}",
        module=module,
        sha256=fingerprint(module, {"from": encoder.sha256, "swap": kind}),
    )


def _changed(w: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """What becomes of a weight; of vectors only their format changes."""
    if kind == "bfloat16":
        return w.bfloat16().float()
    if w.dim() < 2:
        return w
    if kind == "shuffled":
        return w.flatten()[torch.randperm(w.numel(), generator=generator)].view_as(w)
    if kind == "int8":
        step = w.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / 127
        return (w / step).round() * step
    if not kind.startswith("noise "):
        mend = "use same, noise <share>, bfloat16, int8, one layer less, or shuffled"
        raise DataError(f"there is no swap '{kind}'", mend)
    share = float(kind.removeprefix("noise "))
    return w + share * w.std() * torch.randn(w.shape, generator=generator)
