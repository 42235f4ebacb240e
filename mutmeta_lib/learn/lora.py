r"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) in an encoder, by the package peft.

.. math:: W x \;\to\; W x + \frac{\alpha}{r} B A x, \qquad
   A \in \mathbb{R}^{r \times d_\text{in}}, \; B \in \mathbb{R}^{d_\text{out} \times r}

in every linear layer that is asked for. B starts at zero, so that the encoder computes what it did.
With the scope ``"lora"`` the inner loop adapts A, B and the head; the outer loop learns all.
"""

import re
from copy import deepcopy
from dataclasses import replace

import torch

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoder import Encoder, fingerprint


def with_lora(
    encoder: Encoder, *, rank: int = 4, alpha: float = 8.0, seed: int = 0, targets: str = ""
) -> Encoder:
    """A copy of an encoder with adapters in its linear layers; it computes the same until adapted.

    ``targets`` is a regular expression that is searched for in the names of linear layers, such as
    ``"(query|value)$"`` or ``"layer.5."``; empty means all of them, none found is a DataError.
    ``seed`` decides the matrices A. Name, hash and provenance of the copy tell of the adapters.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        told = 'low-rank adapters need the package peft: pip install "mutmeta[lora]"'
        raise ImportError(told) from error
    if "lora" in encoder.provenance:
        told = f"the encoder {encoder.name} has adapters already"
        raise DataError(told, "start from the one without")
    # A layer whose weight is no parameter plays no part (ESM-2's contact head).
    used, layers = dict(encoder.module.named_parameters()), encoder.module.named_modules()
    linear = [n for n, one in layers if isinstance(one, torch.nn.Linear) and f"{n}.weight" in used]
    chosen = [name for name in linear if re.search(targets, name)]
    if not chosen:
        told = f"no linear layer of the encoder {encoder.name} matches {targets!r}"
        raise DataError(told, f"match some of {', '.join(linear[:8])}, ...")
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=chosen)
    with torch.random.fork_rng(devices=[]):  # peft draws from the global state, we do not
        module = inject_adapter_in_model(config, deepcopy(encoder.module)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in chosen:
            down = module.get_submodule(name).lora_A["default"].weight
            draw = torch.rand(down.shape, generator=generator)
            down.copy_((2 * draw - 1) * down.shape[1] ** -0.5)
    settings = {"rank": rank, "alpha": alpha, "seed": seed, "targets": targets}
    return replace(
        encoder,
        name=f"{encoder.name}+lora",
        module=module,
        sha256=fingerprint(module, {"base": encoder.sha256, "rank": rank, "alpha": alpha}),
        provenance=encoder.provenance | {"lora": settings | {"layers": len(chosen)}},
    )
