r"""MAML on an MLP head without a copy of the head per task: exact, and one large product for all.

A gradient step on a linear layer adds an outer product, so after :math:`s` steps on the same k
examples its weight is

.. math:: W_s = W_0 - \alpha \sum_{r<s} D_r^\top H_r, \qquad
   h W_s^\top = h W_0^\top - \alpha \sum_{r<s} (h H_r^\top) D_r

with the layer's inputs :math:`H_r` (k, in) and the loss's derivative by its outputs :math:`D_r`
(k, out) at step r. The first layer's inputs never change, so there the sum over steps is kept;
biases are the similarity 1; the last layer has one output and is adapted directly. The inner loop's
backward pass is written out, so the meta-gradient is a first derivative of what is computed here.
"""

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import linear

from mutmeta_lib.learn.inner import InnerLoop, Params
from mutmeta_lib.tasks.losses import LOSSES

Memory = list[tuple[Tensor, Tensor] | None]
"""Per layer the inputs H ``(n_tasks, r, in)`` and derivatives D ``(n_tasks, r, out)`` so far."""


def lowrank_losses(
    params: Params,
    support: tuple[Tensor, Tensor],
    query: tuple[Tensor, Tensor],
    loop: InnerLoop,
    objective: str = "mse",
) -> Tensor:
    """Query losses ``(n_tasks,)`` after adapting a ReLU MLP with hidden layers, differentiable.

    ``support`` and ``query`` are features ``(n_tasks, k, width)`` and labels ``(n_tasks, k)``.
    """
    layers = len(params) // 2
    weights = [params[f"head.{i}.weight"] for i in range(layers)]
    biases = [params[f"head.{i}.bias"] for i in range(layers)]
    (examples, labels), (others, others_labels) = support, query
    n_tasks, k, _ = examples.shape
    loss = vmap(LOSSES[objective])
    slope = vmap(grad(LOSSES[objective]))

    last = weights[-1].expand(n_tasks, 1, -1), biases[-1].expand(n_tasks, 1, 1)
    both, sizes = torch.cat([examples, others], dim=1), [k, others.shape[1]]
    # Split once: a slice in every step would be as many zero-padded gradients to add up.
    start, start_others = linear(both, weights[0], biases[0]).split(sizes, dim=1)
    alike, alike_others = _alike(both, examples).split(sizes, dim=1)
    first: Tensor | None = None
    memory: Memory = [None] * layers
    for _ in range(loop.steps):
        inputs = _run(start, alike, first, weights, biases, memory, loop.lr)
        delta = slope(_out(inputs[-1], last), labels)[..., None]
        back = delta * last[0]
        last = _descend(last, inputs[-1], delta, loop)
        for i in range(layers - 2, -1, -1):
            # What a ReLU lets through; its output tells where its input was positive.
            back = torch.ops.aten.threshold_backward(back, inputs[i].detach(), 0)
            known, own = memory[i], _constant(back, loop)
            if i == 0:
                first = own if first is None else first + own
                break
            onward = back @ weights[i]
            if known is not None:
                seen, derivative = known
                onward = torch.baddbmm(onward, back @ derivative.mT, seen, alpha=-loop.lr)
            new = _constant(inputs[i - 1], loop), own
            pairs = zip(known, new, strict=True) if known else ()
            memory[i] = tuple(torch.cat(pair, dim=1) for pair in pairs) or new
            back = onward
    inputs = _run(start_others, alike_others, first, weights, biases, memory, loop.lr)
    return loss(_out(inputs[-1], last), others_labels)


def _run(start, alike, first, weights, biases, memory: Memory, rate: float) -> list[Tensor]:
    """The outputs of all hidden layers at the adapted weights."""
    x = start if first is None else torch.baddbmm(start, alike, first, alpha=-rate)
    outputs = [torch.relu(x)]
    for i in range(1, len(weights) - 1):
        x = linear(outputs[-1], weights[i], biases[i])
        if memory[i] is not None:
            seen, derivative = memory[i]
            x = torch.baddbmm(x, _alike(outputs[-1], seen), derivative, alpha=-rate)
        outputs.append(torch.relu(x))
    return outputs


def _alike(x: Tensor, seen: Tensor) -> Tensor:
    """Inner products of inputs, the bias's constant input 1 included, ``(n_tasks, n, r)``."""
    return torch.baddbmm(x.new_ones(1, 1, 1), x, seen.mT)


def _out(x: Tensor, last: tuple[Tensor, Tensor]) -> Tensor:
    """Predictions ``(n_tasks, n)`` from the last hidden layer and each task's own last layer."""
    return torch.baddbmm(last[1], x, last[0].mT).squeeze(-1)


def _descend(last: tuple[Tensor, Tensor], x: Tensor, delta: Tensor, loop: InnerLoop):
    """One step of the last layer's weight ``(n_tasks, 1, in)`` and bias ``(n_tasks, 1, 1)``."""
    delta, x = _constant(delta, loop), _constant(x, loop)
    weight = torch.baddbmm(last[0], delta.mT, x, alpha=-loop.lr)
    return weight, last[1] - loop.lr * delta.sum(dim=1, keepdim=True)


def _constant(value: Tensor, loop: InnerLoop) -> Tensor:
    """First order: the inner gradient is a constant."""
    return value.detach() if loop.first_order else value
