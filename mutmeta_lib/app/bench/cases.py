"""What is compared: the same meta-gradient by learn2learn's loop over modules and by our engine.

Inputs are made up and weights random: time does not depend on their values. The theirs side is
written as a user of learn2learn writes it: a module, ``MAML(module).clone()``, ``adapt``, and
``backward`` on the query loss, task after task; what is frozen has ``requires_grad = False``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from mutmeta_lib.app.bench.shapes import EsmShape, random_esm
from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import AMINO_ACIDS, Substitution
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.inner import InnerLoop
from mutmeta_lib.learn.learn2learn import load_maml
from mutmeta_lib.learn.meta import meta_gradient
from mutmeta_lib.models.encoders import tiny_encoder
from mutmeta_lib.models.frozen import FrozenTokens, freeze
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.models.pretrained import HiddenStates
from mutmeta_lib.tasks.tasks import EncodedAssay, Task, encode_assay, sample_tasks

SHOTS = 16
"""Support and query examples of a task, as in the public code."""

Gradient = Callable[[], Params]


@dataclass(frozen=True, eq=False)
class Case:
    """One comparison: two ways to the same gradient (names without ``encoder.`` may differ)."""

    name: str
    order: str
    tasks: int
    residues: int
    backend: str
    theirs: Gradient
    ours: Gradient


def made_up_assay(residues: int, seed: int = 0) -> Assay:
    """All single mutants of a random protein with random scores."""
    rng = np.random.default_rng(seed)
    wild_type = "".join(rng.choice(list(AMINO_ACIDS), residues))
    variants = tuple(
        (Substitution(place, letter, mutant),)
        for place, letter in enumerate(wild_type, start=1)
        for mutant in AMINO_ACIDS
        if mutant != letter
    )
    return Assay(
        id=f"random{seed}",
        protein=f"random{seed}",
        property="fitness",
        wild_type=wild_type,
        variants=variants,
        scores=rng.normal(size=len(variants)),
        units="none",
        sign="higher = better",
        source="made up",
    )


def _tasks(assays: list[EncodedAssay], n: int) -> list[Task]:
    return sample_tasks(assays, n, support=SHOTS, query=SHOTS, rng=np.random.default_rng(0))


def _ours(
    predictor: Predictor,
    params: Params,
    tasks: list[Task],
    loop: InnerLoop,
    backend: str,
    coarse: bool = False,
) -> Gradient:
    algorithm = ALGORITHMS["maml"](predictor)
    pairs = [(task.support, task.query) for task in tasks]

    def gradient() -> Params:
        batched = algorithm.batched(loop)
        with torch.autocast("cpu", torch.bfloat16, enabled=coarse):
            return meta_gradient(
                predictor.loss, params, pairs, loop, backend=backend, batched=batched
            )[1]

    return gradient


def _theirs(make: Callable[[], nn.Module], tasks: list[Task], loop: InnerLoop) -> Gradient:
    """The loop of learn2learn over the tasks; a module maps an example set to its loss."""
    module = make()
    maml = load_maml()(module, lr=loop.lr, first_order=loop.first_order, allow_nograd=True)

    def gradient() -> Params:
        maml.zero_grad(set_to_none=True)
        for task in tasks:
            learner = maml.clone()
            for _ in range(loop.steps):
                learner.adapt(learner(task.support))
            (learner(task.query) / len(tasks)).backward()
        return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}

    return gradient


class _Head(nn.Sequential):
    """The predictor's head as a module, with its weights."""

    def __init__(self, params: Params):
        layers: list[nn.Module] = []
        for index in range(sum(name.startswith("head.") for name in params) // 2):
            weight, bias = params[f"head.{index}.weight"], params[f"head.{index}.bias"]
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.weight.data, linear.bias.data = weight.clone(), bias.clone()
            layers += [linear] if not layers else [nn.ReLU(), linear]
        super().__init__(*layers)


class _FeatureModel(nn.Module):
    """Head on pooled vectors, to a loss."""

    def __init__(self, params: Params):
        super().__init__()
        self.head = _Head(params)

    def forward(self, examples) -> Tensor:
        return ((self.head(examples.tokens.hidden).squeeze(-1) - examples.labels) ** 2).mean()


class _WholeModel(nn.Module):
    """Hugging Face's ESM-2, mean over the mutated sites, head, to a loss."""

    def __init__(self, encoder: nn.Module, params: Params, start: int):
        super().__init__()
        self.encoder, self.head = encoder, _Head(params)
        learning = {name.removeprefix("encoder.") for name in params}
        for name, parameter in self.encoder.named_parameters():
            parameter.requires_grad_(start == 0 or name in learning)

    def forward(self, examples) -> Tensor:
        tokens = examples.tokens
        hidden = self.encoder(tokens.token_ids, tokens.mask)
        share = tokens.sites.to(hidden.dtype) / tokens.sites.sum(dim=1, keepdim=True)
        pooled = (share[..., None] * hidden).sum(dim=1)
        return ((self.head(pooled).squeeze(-1) - examples.labels) ** 2).mean()


def head_case(
    n_tasks: int,
    first_order: bool,
    backend: str = "lowrank",
    hidden: tuple[int, ...] = (256, 128),
    width: int = 320,
) -> Case:
    """(a) The head on cached vectors of ESM-2 8M's width; `hidden` as in the public code."""
    assay = made_up_assay(60)
    encoder = tiny_encoder()
    encoded = encode_assay(assay, "separator", encoder.vocabulary, encoder.max_tokens)
    states = torch.randn(len(assay), width, generator=torch.Generator().manual_seed(0))
    frozen = replace(encoded, tokens=FrozenTokens(encoded.tokens, states))
    predictor = Predictor(replace(encoder, width=width), hidden=hidden, start=None)
    params = predictor.init(torch.Generator().manual_seed(0))
    tasks, loop = _tasks([frozen], n_tasks), InnerLoop(0.01, 5, first_order)
    return Case(
        f"a: head {'-'.join(map(str, (width, *hidden, 1)))} on cached vectors",
        _order(first_order),
        n_tasks,
        60,
        backend,
        _theirs(lambda: _FeatureModel(params), tasks, loop),
        _ours(predictor, params, tasks, loop, backend),
    )


def encoder_case(
    n_tasks: int,
    first_order: bool,
    residues: int,
    start: int,
    backend: str = "autograd",
    coarse: bool = False,
) -> Case:
    """(b) The last layers of ESM-2 8M's shape from layer `start` on, or (c) all of it (0).

    With `coarse`, our side computes matrix products in bfloat16, theirs in float32.
    """
    shape = EsmShape()
    encoder = random_esm(shape)
    predictor = Predictor(encoder)
    params = predictor.init(torch.Generator().manual_seed(0))
    assay = encode_assay(
        made_up_assay(residues), "separator", encoder.vocabulary, encoder.max_tokens
    )
    loop = InnerLoop(0.01, 5, first_order)
    tasks = own = _tasks([assay], n_tasks)
    model = predictor
    if start:
        model, frozen = freeze(predictor, [assay], start)
        own = _tasks(frozen, n_tasks)
    learning = model.learning(params)
    layers = f"last {shape.layers - start} layers" if start else "all"
    return Case(
        f"{'b' if start else 'c'}: {layers} of ESM-2 8M",
        _order(first_order),
        n_tasks,
        residues,
        backend + (", bfloat16" if coarse else ""),
        _theirs(
            lambda: _WholeModel(HiddenStates(encoder.module.model), learning, start), tasks, loop
        ),
        _ours(model, learning, own, loop, backend, coarse),
    )


def _order(first_order: bool) -> str:
    return "first" if first_order else "second"


def largest_difference(case: Case) -> float:
    """The largest norm of a parameter's difference, relative to its gradient's norm."""
    ours, theirs = case.ours(), case.theirs()
    names = {name: name.removeprefix("encoder.") for name in ours}
    pairs = []
    for name, own in ours.items():
        # Modules number their head by place among the ReLUs, and hold the encoder as a child.
        if name.startswith("head."):
            _, layer, kind = name.split(".")
            other = theirs[f"head.{2 * int(layer)}.{kind}"]
        else:
            other = theirs[f"encoder.{names[name]}"]
        pairs.append(float((own - other).norm() / other.norm().clamp(min=1e-8)))
    return max(pairs)
