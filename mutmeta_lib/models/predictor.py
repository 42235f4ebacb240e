"""The property predictor: encoder, pooling and MLP head as a pure function of its parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoder import Encoder
from mutmeta_lib.models.layers import layer_of
from mutmeta_lib.models.trunk import SUM, Latent
from mutmeta_lib.tasks.batches import TokenBatch, distinct_rows, run_batches
from mutmeta_lib.tasks.losses import LOSSES
from mutmeta_lib.tasks.tasks import Examples

Params = dict[str, Tensor]
"""Named parameters; names start with ``encoder.`` or ``head.``."""

POOLINGS = ("cls", "mean", "sites")
"""One vector per variant: the first token (the public code's choice), the mean over all real
tokens, special ones included, or the mean over the tokens of mutated sites. The wild type has no
site; the mean over all its real tokens stands in."""


def pooling_weights(batch: TokenBatch, pooling: str) -> Tensor:
    """The share of every token in its variant's vector, float32, ``(n, length)``; rows sum to 1."""
    if pooling not in POOLINGS:
        raise DataError(f"there is no pooling '{pooling}'", f"use one of {', '.join(POOLINGS)}")
    chosen = batch.mask
    if pooling == "cls":
        chosen = torch.zeros_like(batch.mask)
        chosen[:, 0] = True
    elif pooling == "sites":
        chosen = torch.where(batch.sites.any(dim=1, keepdim=True), batch.sites, chosen)
    weights = chosen.float()
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=1)


def run(module: nn.Module, weights: Params, batch: TokenBatch, **options) -> Tensor:
    """Hidden states of a batch with these weights; options as of `models.layers.Layered`."""
    if batch.varying is not None:
        options["varying"] = batch.varying
    mask = None if bool(batch.mask.all()) else batch.mask
    return functional_call(module, weights, (batch.token_ids, mask), options)


def pooled(
    module: nn.Module, weights: Params, batch: TokenBatch, pooling: str, start: int = 0
) -> Tensor:
    """Pooled hidden states ``(n, width)`` of an encoder with these weights, begun at a layer.

    Where the pooling takes a quarter of the tokens or fewer, only these are wanted.
    """
    shares = pooling_weights(batch, pooling)
    options = {"hidden": batch.hidden, "start": start} if start else {}
    most = int((shares > 0).sum(dim=1).max()) if len(shares) else 0
    if 0 < most <= shares.shape[1] // 4:
        shares, options["wanted"] = shares.topk(most, dim=1)
    hidden = run(module, weights, batch, **options)
    return (shares.to(hidden.dtype)[:, None, :] @ hidden).squeeze(1)


def own(params: Params) -> Params:
    """The encoder's parameters, by the names that it knows."""
    prefix = "encoder."
    return {k.removeprefix(prefix): v for k, v in params.items() if k.startswith(prefix)}


@dataclass(frozen=True, eq=False)
class Predictor:
    """Encoder, pooling and an MLP head ``width -> hidden... -> 1`` with ReLU and dropout.

    Sizes and dropout are by default those of the public code. Dropout is active only when a call is
    given a ``generator``, and draws from it alone. ``objective`` names one of `tasks.losses`.

    ``start`` is the first encoder layer that is run. Those below it, and the token vectors, are
    frozen, have no parameters here, and batches bring what enters the layer (`models.embed`). With
    None the entire encoder is frozen and batches bring pooled vectors.
    """

    encoder: Encoder
    pooling: str = "sites"
    hidden: tuple[int, ...] = (256, 128)
    dropout: float = 0.1
    objective: str = "mse"
    start: int | None = 0

    def __post_init__(self):
        if self.objective not in LOSSES:
            raise DataError(f"unknown loss {self.objective!r}", f"use one of {', '.join(LOSSES)}")

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters: the encoder's weights that learn (copied) and a random head.

        Head layers are uniform in ±1/sqrt(fan_in), torch's own rule for linear layers, the last
        one ten times smaller, so that an untrained predictor says about 0, the support mean.
        """
        encoder = {f"encoder.{k}": v for k, v in self.encoder.module.named_parameters()}
        params = {name: v.detach().clone() for name, v in self.learning(encoder).items()}
        widths = (self.encoder.width, *self.hidden, 1)
        for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
            bound = fan_in**-0.5 * (0.1 if layer == len(widths) - 2 else 1.0)
            for name, shape in (("weight", (fan_out, fan_in)), ("bias", (fan_out,))):
                draw = torch.rand(shape, generator=generator)
                params[f"head.{layer}.{name}"] = (2 * draw - 1) * bound
        return params

    def learning(self, params: Params) -> Params:
        """Those of the parameters that are not in the frozen part of the encoder."""
        if self.start == 0:
            return params
        names = [name for name in params if name.startswith("encoder.")]
        layers = [layer_of(name) for name in names]
        frozen = set(names)
        if self.start is not None:
            # What stands before the first layer feeds it; what stands after the last reads it.
            first = next((i for i, layer in enumerate(layers) if layer is not None), len(layers))
            below = [layer is not None and layer < self.start for layer in layers]
            frozen = {name for i, name in enumerate(names) if i < first or below[i]}
        return {name: value for name, value in params.items() if name not in frozen}

    def pooled(self, params: Params, tokens: TokenBatch) -> Tensor:
        """Pooled encoder output, ``(n, width)``."""
        if self.start is None:
            return tokens.hidden
        if self.pooling == SUM:
            return self.latent(params, tokens).hidden.sum(dim=-2)
        return pooled(self.encoder.module, own(params), tokens, self.pooling, self.start)

    def latent(self, params: Params, tokens: TokenBatch) -> Latent:
        """What the trunk of a site read makes of each substitution."""
        return functional_call(self.encoder.module, own(params), (tokens.hidden, tokens.mask))

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
            named = (params[f"head.{layer}.{part}"] for part in ("weight", "bias"))
            x = nn.functional.linear(x, *named)
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


def predict(
    predictor: Predictor,
    params: Params,
    tokens: TokenBatch,
    batch_size: int = 64,
    what: Callable[[Params, TokenBatch], Tensor] | None = None,
):
    """Predict without gradients, in batches; returns a float tensor ``(n,)`` on the CPU.

    ``what`` is another number of the predictor, in the place of labels. The same text gets the same
    prediction (`tasks.batches.distinct_rows`).
    """
    first, which, what = next(iter(params.values())), slice(None), what or predictor
    if tokens.hidden is None:
        texts, which = distinct_rows(tokens, predictor.pooling)
        tokens = tokens.rows(texts)
    predicted = torch.empty(len(tokens), dtype=first.dtype)
    if predictor.pooling == SUM:  # rows of few columns
        batch_size = max(1, len(tokens))
    with torch.no_grad():
        for rows, part in run_batches(tokens, batch_size, siblings=predictor.encoder.siblings):
            predicted[rows] = what(params, part.to(first.device)).cpu()
    return predicted[which]
