"""What is compared: the same meta-gradient by learn2learn's loop over modules and by our engine.

Inputs are made up and weights random, since time does not depend on their values. Their side is
written as a user of learn2learn writes it: a module, ``MAML(module).clone()``, ``adapt``, and
``backward`` on the query loss, task after task. Ours is what the backend ``auto`` stands for.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import AMINO_ACIDS, Substitution
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.gradients import meta_gradient
from mutmeta_lib.learn.inner import InnerLoop
from mutmeta_lib.learn.learn2learn import load_algorithm
from mutmeta_lib.models.embed import of_vectors
from mutmeta_lib.models.encoder import load_encoder
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.tasks.tasks import Task, encode_assay, sample_tasks

SHOTS = 16
"""Support and query examples of a task, as in the public code."""
ESM_TOKENS = ["<cls>", "<pad>", "<eos>", "<unk>"]
ESM_TOKENS += [*"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]


@dataclass(frozen=True, eq=False)
class Case:
    """Two ways to one gradient; both return it by our names of the parameters."""

    name: str
    loop: InnerLoop
    tasks: int
    residues: int
    backend: str
    theirs: Callable[[], Params]
    ours: Callable[[], Params]

    @property
    def order(self) -> str:
        """Order of the meta-gradient."""
        return "first" if self.loop.first_order else "second"

    def largest_difference(self) -> float:
        """The largest norm of a parameter's difference, relative to the norm of its gradient."""
        ours, theirs = self.ours(), self.theirs()
        if ours.keys() != theirs.keys():
            raise ValueError(f"only one side has {sorted(ours.keys() ^ theirs.keys())}")
        return max(
            float((own - theirs[name]).norm() / theirs[name].norm().clamp(min=1e-8))
            for name, own in ours.items()
        )


def made_up_assay(residues: int) -> Assay:
    """All single variants of a random protein, with random scores."""
    rng = np.random.default_rng(0)
    wild_type = "".join(rng.choice(list(AMINO_ACIDS), residues))
    variants = tuple(
        (Substitution(place, letter, mutant),)
        for place, letter in enumerate(wild_type, start=1)
        for mutant in AMINO_ACIDS
        if mutant != letter
    )
    return Assay(
        id="random",
        protein="random",
        property="fitness",
        wild_type=wild_type,
        variants=variants,
        scores=rng.normal(size=len(variants)),
        units="none",
        sign="higher = better",
        source="made up",
    )


def write_esm(
    folder: Path,
    layers: int = 6,
    width: int = 320,
    heads: int = 20,
    head: bool = False,
    **more: Any,
) -> Path:
    """An ESM-2 with random weights as Hugging Face saves it; the sizes are those of 8M.

    With ``head`` it has that of its language model; ``more`` are other settings.
    """
    from transformers import EsmConfig, EsmForMaskedLM, EsmModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    sizes |= {"intermediate_size": 4 * width, "max_position_embeddings": 1026}
    usual = {"position_embedding_type": "rotary", "token_dropout": True, "vocab_size": 33}
    usual |= {"pad_token_id": 1, "mask_token_id": 32}
    usual |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = EsmConfig(**sizes | usual | more)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        (EsmForMaskedLM if head else EsmModel)(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(ESM_TOKENS) + "\n")
    settings = json.dumps({"tokenizer_class": "EsmTokenizer"})
    (folder / "tokenizer_config.json").write_text(settings)
    return folder


def ours(
    predictor: Predictor, params: Params, tasks: list[Task], loop: InnerLoop
) -> tuple[str, Callable[[], Params]]:
    """Our backend for this model, and the gradient by it."""
    algorithm = ALGORITHMS["maml"](predictor)
    backends = algorithm.backends(loop)
    backend = "lowrank" if "lowrank" in backends else "autograd"
    pairs = [(task.support, task.query) for task in tasks]

    def gradient() -> Params:
        given = (predictor.loss, params, pairs, loop)
        return meta_gradient(*given, backend=backend, backends=backends)[1]

    return backend, gradient


def theirs(
    module: nn.Module, named: dict[str, nn.Parameter], tasks: list[Task], loop: InnerLoop
) -> Callable[[], Params]:
    """learn2learn's loop over tasks; ``module`` maps examples to their loss."""
    for parameter in module.parameters():
        parameter.requires_grad_(any(parameter is one for one in named.values()))
    how = {"lr": loop.lr, "first_order": loop.first_order, "allow_nograd": True}
    maml = load_algorithm().MAML(module, **how)

    def gradient() -> Params:
        maml.zero_grad(set_to_none=True)
        for task in tasks:
            learner = maml.clone()
            for _ in range(loop.steps):
                learner.adapt(learner(task.support))
            (learner(task.query) / len(tasks)).backward()
        return {name: parameter.grad for name, parameter in named.items()}

    return gradient


class LossModule(nn.Module):
    """The predictor as modules: an encoder or none, the mean over mutated sites, head, loss."""

    def __init__(self, params: Params, encoder: nn.Module | None = None):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential()
        for index in range(sum(name.startswith("head.") for name in params) // 2):
            weight = params[f"head.{index}.weight"]
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.load_state_dict({"weight": weight, "bias": params[f"head.{index}.bias"]})
            self.head.extend([nn.ReLU(), linear] if index else [linear])

    def named(self, params: Params) -> dict[str, nn.Parameter]:
        """This module's parameters by our names, in our order."""
        linear = [layer for layer in self.head if isinstance(layer, nn.Linear)]
        found = {}
        for name in params:
            part, rest = name.split(".", 1)
            if part == "head":
                index, kind = rest.split(".")
                found[name] = linear[int(index)].get_parameter(kind)
            else:
                found[name] = self.encoder.get_parameter(rest.removeprefix("model."))
        return found

    def forward(self, examples) -> Tensor:
        """The mean squared error on the labels."""
        tokens = examples.tokens
        if self.encoder is None:
            pooled = tokens.hidden
        else:
            given = {"input_ids": tokens.token_ids, "attention_mask": tokens.mask.long()}
            hidden = self.encoder(**given).last_hidden_state
            share = tokens.sites.to(hidden.dtype) / tokens.sites.sum(dim=1, keepdim=True)
            pooled = (share[..., None] * hidden).sum(dim=1)
        return ((self.head(pooled).squeeze(-1) - examples.labels) ** 2).mean()


def head_case(
    n_tasks: int, first_order: bool, hidden: tuple[int, ...] = (256, 128), width: int = 320
) -> Case:
    """The head on cached vectors of ESM-2 8M's width; ``hidden`` as in the public code."""
    encoder, assay = load_encoder("tiny"), made_up_assay(60)
    encoded = encode_assay(assay, "separator", encoder.vocabulary, encoder.max_tokens)
    states = torch.randn(len(assay), width, generator=torch.Generator().manual_seed(0))
    frozen = replace(encoded, tokens=of_vectors(states))
    predictor = Predictor(replace(encoder, width=width), hidden=hidden, start=None)
    name = f"head {'-'.join(map(str, (width, *hidden, 1)))} on cached vectors"
    return _case(name, predictor, frozen, n_tasks, first_order)


def encoder_case(n_tasks: int, first_order: bool, folder: Path, residues: int = 60) -> Case:
    """All of the encoder that `write_esm` wrote, and the head."""
    from transformers import EsmModel

    encoder = load_encoder(str(folder))
    model = EsmModel.from_pretrained(folder, attn_implementation="eager").eval()
    assay = made_up_assay(residues)
    encoded = encode_assay(assay, "separator", encoder.vocabulary, encoder.max_tokens)
    return _case("all of ESM-2 8M", Predictor(encoder), encoded, n_tasks, first_order, model)


def _case(name, predictor, encoded, n_tasks, first_order, model=None) -> Case:
    """The same tasks and start for both sides."""
    loop = InnerLoop(0.01, 5, first_order)
    params = predictor.init(torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    tasks = sample_tasks([encoded], n_tasks, support=SHOTS, query=SHOTS, rng=rng)
    module = LossModule(params, model)
    backend, own = ours(predictor, params, tasks, loop)
    other = theirs(module, module.named(params), tasks, loop)
    return Case(name, loop, n_tasks, len(encoded.assay.wild_type), backend, other, own)
