"""What holds for every member of the family, each through the gradient that it is trained by."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, vmap
from toy import toy_encoded

from mutmeta_lib.learn import InnerLoop, meta_gradient
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.models.encoders import tiny_encoder
from mutmeta_lib.models.frozen import freeze
from mutmeta_lib.models.predictor import Predictor, predict
from mutmeta_lib.tasks.batches import TokenBatch
from mutmeta_lib.tasks.tasks import Examples, sample_tasks

PREDICTOR = Predictor(tiny_encoder(width=8, layers=1, heads=2), hidden=(6,))
TASKS = sample_tasks(
    toy_encoded(3, predictor=PREDICTOR), 3, support=5, query=6, rng=np.random.default_rng(0)
)
LOOP = InnerLoop(lr=0.05, steps=2)
DESCENDING = ("anil", "boil", "maml", "metasgd")
# Reptile's direction is not the gradient of anything; its tests are its own.
GRADIENTS = sorted(set(ALGORITHMS) - {"reptile"})


class Member:
    """An algorithm with parameters in float64 that all matter, and its view of the tasks."""

    def __init__(self, name, loop=LOOP):
        self.algorithm = ALGORITHMS[name](PREDICTOR)
        self.loop = self.algorithm.loop(loop)
        self.training_loop = self.algorithm.training_loop(self.loop)
        start = PREDICTOR.init(torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(1)
        self.params = {
            key: value.double() + 0.02 * torch.randn(value.shape, generator=generator)
            for key, value in self.algorithm.prepare(start, self.loop).items()
        }
        self.batches = [self.algorithm.batches(task) for task in TASKS]

    def gradient(self, params=None, batches=None):
        return meta_gradient(
            self.algorithm.model.loss,
            self.params if params is None else params,
            self.batches if batches is None else batches,
            self.training_loop,
            backends=self.algorithm.backends,
        )

    def predicted(self, support, query):
        model = self.algorithm.model
        adapted = self.algorithm.update(model.loss, self.params, support, self.loop)
        return predict(model, adapted, query.tokens)


@pytest.fixture(scope="module", params=sorted(ALGORITHMS))
def member(request):
    return Member(request.param)


@dataclass(frozen=True, eq=False)
class Padded(Examples):
    """The same examples with more padding than they need."""

    @property
    def tokens(self):
        given = self.assay.tokens.rows(self.rows)

        def longer(tensor, value):
            return torch.nn.functional.pad(tensor, (0, 5), value=value)

        vocabulary = PREDICTOR.encoder.vocabulary
        pad = vocabulary.id(vocabulary.pad)
        return TokenBatch(
            longer(given.token_ids, pad), longer(given.mask, False), longer(given.sites, False)
        )


def padded(examples):
    return Padded(examples.assay, examples.rows, examples.labels)


def turned(examples):
    return examples.take(np.random.default_rng(3).permutation(len(examples)))


@pytest.mark.parametrize("change", [padded, turned])
def test_padding_and_the_order_of_examples_change_nothing(member, change):
    changed = [tuple(map(change, pair)) for pair in member.batches]
    before, after = (pairs[0][0].tokens.token_ids for pairs in (member.batches, changed))
    assert before.shape != after.shape or not torch.equal(before, after)
    plain, other = member.gradient(), member.gradient(batches=changed)
    torch.testing.assert_close(other, plain, rtol=1e-8, atol=1e-11)
    support, query = TASKS[0].support, TASKS[0].query
    found = member.predicted(change(support), query)
    torch.testing.assert_close(found, member.predicted(support, query), rtol=1e-8, atol=1e-11)


def test_the_order_of_tasks_changes_nothing(member):
    plain, other = member.gradient(), member.gradient(batches=member.batches[::-1])
    torch.testing.assert_close(other[:2], plain[:2], rtol=1e-10, atol=1e-13)


def test_the_gradient_is_named_like_the_parameters_which_stay(member):
    before = {name: value.clone() for name, value in member.params.items()}
    _, gradient, losses = member.gradient()
    assert list(gradient) == list(member.params)
    assert all(gradient[name].shape == value.shape for name, value in member.params.items())
    assert losses.shape == (len(TASKS),)
    torch.testing.assert_close(member.params, before, rtol=0, atol=0)


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_equal_finite_differences_learned_rates_included(name):
    """Second order: the gradient passes through the inner loop, or through the solution."""
    member = Member(name)
    _, gradient, _ = member.gradient()
    generator = torch.Generator().manual_seed(2)
    parts = sorted({key.split(".")[0] for key in member.params})
    assert ("rate" in parts) == (name == "metasgd")
    for part in parts:
        direction = {
            key: torch.randn(value.shape, generator=generator, dtype=value.dtype)
            for key, value in member.params.items()
            if key.split(".")[0] == part
        }
        up, down = (
            member.gradient(
                {**member.params, **{k: member.params[k] + h * d for k, d in direction.items()}}
            )[0].item()
            for h in (1e-6, -1e-6)
        )
        exact = sum(float((gradient[key] * d).sum()) for key, d in direction.items())
        assert exact == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-8), part
        assert abs(exact) > 1e-6, part


@pytest.mark.parametrize("name", DESCENDING)
def test_zero_inner_steps_are_joint_training(name):
    still = Member(name, replace(LOOP, steps=0))
    leaves = {key: value.clone().requires_grad_(True) for key, value in still.params.items()}
    joint = sum(PREDICTOR.loss(leaves, query) for _, query in still.batches) / len(TASKS)
    expected = torch.autograd.grad(
        joint, list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    loss, gradient, _ = still.gradient()
    torch.testing.assert_close(loss, joint.detach())
    torch.testing.assert_close(list(gradient.values()), list(expected))


def test_joint_training_is_the_member_without_an_inner_loop_on_all_labels():
    joint, maml = Member("multitask"), Member("maml", replace(LOOP, steps=0))
    torch.testing.assert_close(joint.gradient(), maml.gradient(batches=joint.batches))


def test_without_steps_reptile_stands_still():
    _, gradient, _ = Member("reptile", replace(LOOP, steps=0)).gradient()
    assert not any(value.any() for value in gradient.values())


class Tokens(NamedTuple):
    """Tokens as tensors alone."""

    token_ids: Tensor
    mask: Tensor

    def to(self, device):
        return self


class Tensors:
    """In the place of examples, so that tasks can be stacked."""

    def __init__(self, token_ids, mask, labels):
        self.tokens, self.labels = Tokens(token_ids, mask), labels

    def __len__(self):
        return self.labels.shape[0]


def test_vmapped_over_tasks_equals_the_loop(member, monkeypatch):
    def pooled(self, params, tokens):
        own = {k.removeprefix("encoder."): v for k, v in params.items() if "encoder." in k[:8]}
        hidden = functional_call(self.encoder.module, own, tuple(tokens))
        weights = tokens.mask.to(hidden.dtype)
        return (weights[:, None, :] @ hidden).squeeze(1) / weights.sum(dim=1, keepdim=True)

    monkeypatch.setattr(Predictor, "pooled", pooled)
    generator = torch.Generator().manual_seed(4)

    def draw(n):
        """Token ids, mask and labels of three tasks."""
        ids = torch.randint(4, 20, (3, n, 7), generator=generator)
        mask = torch.arange(7) < torch.randint(3, 8, (3, n, 1), generator=generator)
        return ids, mask, torch.randn(3, n, generator=generator).double()

    support, query = draw(4), draw(5)
    model = member.algorithm.model

    def gradient(support, query):
        one = member.algorithm.backends["torch.func"]
        pair = Tensors(*support), Tensors(*query)
        return one(model.loss, member.params, *pair, member.training_loop)

    values, gradients = vmap(gradient)(support, query)
    for index in range(3):
        value, expected = gradient(*(tuple(t[index] for t in part) for part in (support, query)))
        torch.testing.assert_close(values[index], value, rtol=1e-8, atol=1e-11)
        found = {name: stacked[index] for name, stacked in gradients.items()}
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("start", [1, None])
@pytest.mark.parametrize("name", ["anil", "deepkernel", "multitask", "r2d2"])
def test_members_whose_inner_loop_leaves_the_trunk_work_on_a_frozen_one(name, start):
    """What is left to learn has the same gradient, up to the trunk's single precision."""
    deep = Predictor(tiny_encoder(width=8, layers=2, heads=2), hidden=(6,))
    assays = toy_encoded(2, predictor=deep)
    params = deep.init(torch.Generator().manual_seed(0))
    frozen, kept = freeze(deep, assays, start)
    found = []
    for predictor, encoded in ((deep, assays), (frozen, kept)):
        algorithm = ALGORITHMS[name](predictor)
        loop = algorithm.loop(LOOP)
        tasks = sample_tasks(encoded, 2, support=5, query=6, rng=np.random.default_rng(0))
        value, gradient, _ = meta_gradient(
            algorithm.model.loss,
            algorithm.prepare(predictor.learning(params), loop),
            [algorithm.batches(task) for task in tasks],
            algorithm.training_loop(loop),
            backends=algorithm.backends,
        )
        found.append((value, gradient))
    (value, whole), (same, left) = found
    assert 0 < len(left) < len(whole)
    torch.testing.assert_close(same, value, rtol=1e-4, atol=1e-5)
    size = max(float(part.abs().max()) for part in left.values())
    for key, part in left.items():
        torch.testing.assert_close(part, whole[key], rtol=1e-3, atol=1e-4 * size)
