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

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoders import Encoder
from mutmeta_lib.models.layers import layer_of
from mutmeta_lib.models.pooling import Inputs, inputs, weighted_sum
from mutmeta_lib.tasks.batches import TokenBatch, distinct_rows, run_batches
from mutmeta_lib.tasks.losses import LOSSES
from mutmeta_lib.tasks.tasks import Examples

Params = dict[str, Tensor]
"""Named parameters; names start with ``encoder.`` or ``head.``."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """Encoder, pooling and an MLP head ``width -> hidden... -> 1`` with ReLU and dropout.

    Sizes 256 and 128 and dropout 0.1 are those of the public code (see the method chapter).
    Dropout is active only when a call is given a ``generator``, and draws from it alone.
    ``objective`` names the task loss (``losses.LOSSES``). Trained on a ranking loss, a predictor
    leaves location and scale of its predictions free: rank metrics apply, errors do not.

    ``start`` is the first encoder layer that is run. Those below it, and the token vectors, are
    frozen, have no parameters here, and batches bring what enters the layer (see ``frozen``). With
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

        Head layers are drawn uniformly in ±1/sqrt(fan_in), torch's own rule for linear layers,
        the last one ten times smaller so that an untrained predictor says about 0, the support
        mean.
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
        if self.start is None:
            frozen = set(names)
        else:
            # What stands before the first layer feeds it; what stands after the last reads it.
            first = next((i for i, layer in enumerate(layers) if layer is not None), len(layers))
            below = [layer is not None and layer < self.start for layer in layers]
            frozen = {name for i, name in enumerate(names) if i < first or below[i]}
        return {name: value for name, value in params.items() if name not in frozen}

    def inputs(self, tokens: TokenBatch) -> Inputs:
        """The tensors that ``pooled_inputs`` reads, on the tokens' device."""
        if self.start is None:
            return Inputs(tokens.hidden, None, None, None)
        return inputs(tokens, self.pooling, layered=hasattr(self.encoder.module, "layers"))

    def pooled_inputs(self, params: Params, given: Inputs) -> Tensor:
        """Pooled encoder output, ``(n, width)``; no decision depends on a tensor's values."""
        if self.start is None:
            return given.states
        prefix = "encoder."
        own = {k.removeprefix(prefix): v for k, v in params.items() if k.startswith(prefix)}
        options = given.options
        if self.start:
            options |= {"hidden": given.states, "start": self.start}
        reads = (None if self.start else given.states, given.mask)
        hidden = functional_call(self.encoder.module, own, reads, options)
        return weighted_sum(hidden, given.weights)

    def pooled(self, params: Params, tokens: TokenBatch) -> Tensor:
        """Pooled encoder output, ``(n, width)``."""
        return self.pooled_inputs(params, self.inputs(tokens))

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


def predict(predictor: Predictor, params: Params, tokens: TokenBatch, batch_size: int = 64):
    """Predict without gradients, in batches; returns a float tensor ``(n,)`` on the CPU.

    Variants at one site share work where the encoder allows it, and the same text gets the same
    prediction (`mutmeta_lib.tasks.batches`).
    """
    first = next(iter(params.values()))
    layered = hasattr(predictor.encoder.module, "layers")
    which = None
    if tokens.hidden is None:
        texts, which = distinct_rows(tokens, predictor.pooling)
        tokens = tokens.rows(texts) if len(texts) < len(tokens) else tokens
    predicted = torch.empty(len(tokens), dtype=first.dtype)
    with torch.no_grad():
        for rows, part in run_batches(tokens, batch_size, layered=layered):
            predicted[rows] = predictor(params, part.to(first.device)).cpu()
    return predicted if which is None else predicted[torch.from_numpy(which)]
