"""The property predictor: encoder + MLP head as a pure function of its parameters.

``predict = predictor(params, tokens)``: nothing is stored in the predictor, so MAML may hand it
adapted parameters and differentiate through them (paper, pipeline figure: sequence -> encoder ->
meta-learner -> property predictor -> task loss).
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mutmeta_lib.encoders import Encoder, pool
from mutmeta_lib.encoding import TokenBatch
from mutmeta_lib.errors import DataError
from mutmeta_lib.losses import LOSSES
from mutmeta_lib.tasks import Examples

Params = dict[str, Tensor]
"""Named parameters; names start with ``encoder.`` or ``head.``."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """Encoder, pooling and an MLP head ``width -> hidden... -> 1`` with ReLU and dropout.

    Sizes 256 and 128 and dropout 0.1 are those of the public code (see the method chapter).
    Dropout is active only when a call is given a ``generator``, and draws from it alone.
    ``objective`` names the task loss (``losses.LOSSES``). Trained on a ranking loss, a predictor
    leaves location and scale of its predictions free: rank metrics apply, errors do not.
    """

    encoder: Encoder
    pooling: str = "sites"
    hidden: tuple[int, ...] = (256, 128)
    dropout: float = 0.1
    objective: str = "mse"

    def __post_init__(self):
        if self.objective not in LOSSES:
            raise DataError(f"unknown loss {self.objective!r}", f"use one of {', '.join(LOSSES)}")

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters: the encoder's weights (copied) and a random head.

        Head layers are drawn uniformly in ±1/sqrt(fan_in), torch's own rule for linear layers,
        the last one ten times smaller so that an untrained predictor says about 0, the support
        mean.
        """
        params = {
            f"encoder.{name}": value.detach().clone()
            for name, value in self.encoder.module.named_parameters()
        }
        widths = (self.encoder.width, *self.hidden, 1)
        for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
            bound = fan_in**-0.5 * (0.1 if layer == len(widths) - 2 else 1.0)
            for name, shape in (("weight", (fan_out, fan_in)), ("bias", (fan_out,))):
                draw = torch.rand(shape, generator=generator)
                params[f"head.{layer}.{name}"] = (2 * draw - 1) * bound
        return params

    def pooled(self, params: Params, tokens: TokenBatch) -> Tensor:
        """Pooled encoder output, ``(n, width)``."""
        prefix = "encoder."
        own = {k.removeprefix(prefix): v for k, v in params.items() if k.startswith(prefix)}
        hidden = functional_call(self.encoder.module, own, (tokens.token_ids, tokens.mask))
        return pool(hidden, tokens, self.pooling)

    def head(
        self, params: Params, pooled: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The MLP head on pooled embeddings ``(n, width)``; returns ``(n,)`` labels."""
        x = pooled
        for layer in range(len(self.hidden) + 1):
            if layer:
                x = torch.relu(x)
                if generator is not None and self.dropout:
                    keep = torch.empty_like(x).bernoulli_(1 - self.dropout, generator=generator)
                    x = x * keep / (1 - self.dropout)
            x = nn.functional.linear(
                x, params[f"head.{layer}.weight"], params[f"head.{layer}.bias"]
            )
        return x.squeeze(-1)

    def __call__(
        self, params: Params, tokens: TokenBatch, generator: torch.Generator | None = None
    ) -> Tensor:
        """Predicted labels, ``(n,)``."""
        return self.head(params, self.pooled(params, tokens), generator)

    def loss(
        self, params: Params, examples: Examples, generator: torch.Generator | None = None
    ) -> Tensor:
        """The task loss on scaled labels, a scalar: ``objective``, by default the paper's MSE."""
        device = next(iter(params.values())).device
        labels = examples.labels.to(device)
        predicted = self(params, examples.tokens.to(device), generator)
        return LOSSES[self.objective](predicted, labels)


def predict(predictor: Predictor, params: Params, tokens: TokenBatch, batch_size: int = 256):
    """Predict without gradients, in batches; returns a float tensor ``(n,)`` on the CPU."""
    device = next(iter(params.values())).device
    parts = []
    with torch.no_grad():
        for start in range(0, len(tokens), batch_size):
            rows = range(start, min(start + batch_size, len(tokens)))
            parts.append(predictor(params, tokens.rows(rows).to(device)).cpu())
    return torch.cat(parts) if parts else torch.empty(0)
