"""What holds for every member of the family, in every scope and by every gradient it has."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from toy import toy_encoded, toy_site_assays, toy_site_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop, inner_update, meta_gradient
from mutmeta_lib.learn.algorithms import ALGORITHMS, everything
from mutmeta_lib.learn.closed_form import SolvedPredictor
from mutmeta_lib.learn.inner import RATE, adapted_names
from mutmeta_lib.models.embed import freeze
from mutmeta_lib.models.encoder import tiny_encoder
from mutmeta_lib.models.predictor import Predictor, predict
from mutmeta_lib.models.sites import site_assay
from mutmeta_lib.tasks.losses import LOSSES
from mutmeta_lib.tasks.tasks import Examples, sample_tasks

PREDICTOR = Predictor(tiny_encoder(width=8, layers=2, heads=2), hidden=(6,))
START = PREDICTOR.init(torch.Generator().manual_seed(0))
# Of different lengths, so that tasks taken together are padded to each other.
ASSAYS = [*toy_encoded(2, predictor=PREDICTOR), *toy_encoded(1, predictor=PREDICTOR, length=9)]
POOLED, FROZEN = freeze(PREDICTOR, ASSAYS, None)
LOOP = InnerLoop(lr=0.05, steps=2)
TEXTS = sorted(set(ALGORITHMS) - {"ranker"})
SCOPED = [(name, scope) for name in ("maml", "metasgd") for scope in ("all", "head")]
MEMBERS = [
    *SCOPED,
    *((name, "all") for name in sorted(set(ALGORITHMS) - {"maml", "metasgd", "ranker"})),
]
# Reptile's direction is not the gradient of anything; its tests are its own.
GRADIENTS = [one for one in MEMBERS if one[0] != "reptile"]
EXACT = {"rtol": 1e-8, "atol": 1e-11}


@dataclass(frozen=True, eq=False)
class Double(Examples):
    """The same examples in double precision, with more padding than they need."""

    padding: int = 0

    @property
    def tokens(self):
        given = super().tokens
        if given.hidden is not None:
            return replace(given, hidden=given.hidden.double())
        vocabulary = PREDICTOR.encoder.vocabulary
        blanks = {"token_ids": vocabulary.id(vocabulary.pad), "mask": False, "sites": False}
        longer = {
            name: torch.nn.functional.pad(getattr(given, name), (0, self.padding), value=value)
            for name, value in blanks.items()
        }
        return replace(given, **longer)


def double(examples, padding=0):
    return Double(examples.assay, examples.rows, examples.labels.double(), padding)


def turned(examples):
    order = np.random.default_rng(3).permutation(len(examples))
    return Double(examples.assay, examples.rows[order], examples.labels[torch.as_tensor(order)])


class Member:
    """An algorithm with parameters in float64 that all matter, and its view of the tasks."""

    def __init__(self, name, scope="all", loop=LOOP, predictor=PREDICTOR, assays=ASSAYS):
        self.algorithm = ALGORITHMS[name](predictor)
        self.model = self.algorithm.model
        self.loop = self.algorithm.loop(replace(loop, scope=scope))
        self.training_loop = self.algorithm.training_loop(self.loop)
        self.backends = self.algorithm.backends(self.training_loop)
        generator = torch.Generator().manual_seed(1)
        self.params = {
            key: value.double() + 0.02 * torch.randn(value.shape, generator=generator)
            for key, value in self.algorithm.prepare(predictor.learning(START), self.loop).items()
        }
        draws = np.random.default_rng(0)
        tasks = sample_tasks(assays, 3, support=5, query=6, rng=draws)
        self.task = tasks[0]
        self.batches = [tuple(map(double, self.algorithm.batches(task))) for task in tasks]

    def gradient(self, params=None, batches=None, **more):
        return meta_gradient(
            self.model.loss,
            self.params if params is None else params,
            self.batches if batches is None else batches,
            self.training_loop,
            backends=self.backends,
            **more,
        )

    def adapt(self, support, loop=None):
        return self.algorithm.update(self.model.loss, self.params, support, loop or self.loop)


@pytest.fixture(scope="module", params=MEMBERS, ids=" ".join)
def member(request):
    return Member(*request.param)


@pytest.mark.parametrize("change", [lambda one: double(one, padding=5), turned])
def test_padding_and_the_order_of_examples_and_tasks_change_nothing(member, change):
    value, gradient, losses = member.gradient()
    changed = [tuple(map(change, pair)) for pair in member.batches[::-1]]
    expected = (value, gradient, losses.flip(0))
    torch.testing.assert_close(member.gradient(batches=changed), expected, **EXACT)
    support, query = member.task.support, member.task.query
    found, expected = (
        predict(member.model, member.adapt(one), query.tokens)
        for one in (change(double(support)), double(support))
    )
    torch.testing.assert_close(found, expected, **EXACT)


def test_the_sides_of_a_task_are_not_alike(member):
    value, gradient, _ = member.gradient()
    swapped = [(query, support) for support, query in member.batches]
    other, turned, _ = member.gradient(batches=swapped)
    assert abs(other - value) > 1e-6
    assert max(float((turned[name] - part).abs().max()) for name, part in gradient.items()) > 1e-6


def test_without_steps_or_labels_the_start_is_used(member):
    support = double(member.task.support)
    none = support.take(np.array([], dtype=int))
    solved = isinstance(member.model, SolvedPredictor)
    stays = member.adapt(none) if solved else member.adapt(support, replace(LOOP, steps=0))
    params = {name: v for name, v in member.params.items() if not name.startswith(RATE)}
    assert stays.keys() == params.keys()
    assert all(stays[name] is value for name, value in params.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_gradient(member):
    params = {name: value.to("cuda") for name, value in member.params.items()}
    value, gradient, losses = member.gradient(params)
    found = (value.cpu(), {name: part.cpu() for name, part in gradient.items()}, losses.cpu())
    torch.testing.assert_close(found, member.gradient(), **EXACT)


@pytest.mark.parametrize("name", GRADIENTS, ids=" ".join)
def test_gradients_equal_finite_differences_learned_rates_included(name):
    """Second order: the gradient passes through the inner loop, or through the solution."""
    member = Member(*name)
    _, gradient, _ = member.gradient()
    generator = torch.Generator().manual_seed(2)
    # By layer, so that those that stay in the inner loop are judged by themselves.
    parts = sorted({key.rpartition(".")[0] for key in member.params})
    assert any(part.startswith("rate.") for part in parts) == (name[0] == "metasgd")
    for part in parts:
        own = {key: v for key, v in member.params.items() if key.rpartition(".")[0] == part}
        way = {k: torch.randn(v.shape, generator=generator, dtype=v.dtype) for k, v in own.items()}
        up, down = (
            member.gradient(member.params | {key: v + h * way[key] for key, v in own.items()})[0]
            for h in (1e-5, -1e-5)
        )
        exact = sum(float((gradient[key] * v).sum()) for key, v in way.items())
        assert exact == pytest.approx(float(up - down) / 2e-5, rel=1e-4, abs=1e-8), part


@pytest.mark.parametrize(("name", "scope"), SCOPED, ids="{}".format)
def test_exactly_the_scope_moves_and_everything_has_an_outer_gradient(name, scope):
    member = Member(name, scope)
    adapted = member.adapt(double(member.task.support))
    moved = {key for key, value in adapted.items() if not torch.equal(value, member.params[key])}
    assert moved == set(adapted_names(START, scope))
    _, gradient, _ = member.gradient()
    assert [key for key, value in gradient.items() if not value.any()] == []
    rates = {key.removeprefix(RATE) for key in member.params if key.startswith(RATE)}
    assert rates == (moved if name == "metasgd" else set())


@pytest.mark.parametrize(
    ("name", "scope"), [("maml", "all"), ("maml", "head"), ("multitask", "all")]
)
@pytest.mark.parametrize("objective", sorted(LOSSES))
@pytest.mark.parametrize("first_order", [False, True])
def test_tasks_taken_together_are_tasks_taken_one_by_one(name, scope, objective, first_order):
    predictor, loop = replace(POOLED, objective=objective), replace(LOOP, first_order=first_order)
    member = Member(name, scope, loop, predictor, FROZEN)
    torch.testing.assert_close(member.gradient(backend="lowrank"), member.gradient(), **EXACT)


@pytest.mark.parametrize("name", ["maml", "anil", "boil", "metasgd", "multitask"])
@pytest.mark.parametrize("first_order", [False, True])
def test_tasks_of_sites_taken_together_are_tasks_taken_one_by_one(name, first_order):
    predictor, loop = toy_site_predictor(), replace(LOOP, first_order=first_order)
    algorithm = ALGORITHMS[name](predictor)
    loop = algorithm.training_loop(algorithm.loop(loop))
    ways = algorithm.backends(loop)
    assert ways["auto"] is ways["batched"]
    params = algorithm.prepare(predictor.init(torch.Generator().manual_seed(0)), loop)
    doubles = [pairs_of(one) for one in toy_site_assays(2, n=80)]
    drawn = {"support": 5, "query": 6, "rng": np.random.default_rng(0)}
    tasks = [algorithm.batches(one) for one in sample_tasks(doubles, 4, **drawn)]
    found, expected = (
        meta_gradient(algorithm.model.loss, params, tasks, loop, backend=way, backends=ways)
        for way in ("batched", "autograd")
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def pairs_of(encoded):
    """Half of the variants as they are, and pairs of them with the others."""
    assay, half = encoded.assay, len(encoded) // 2
    both = zip(assay.variants[:half], assay.variants[half:], strict=True)
    pairs = [(*a, *b) for a, b in both if a[0].position < b[0].position]
    variants = (*assay.variants[:half], *pairs)
    fewer = replace(assay, variants=variants, scores=assay.scores[: len(variants)])
    return site_assay(fewer, "no_encoder", encoded.tokens.sites)


def test_what_each_member_offers():
    for name in TEXTS:
        make = ALGORITHMS[name]
        for predictor in (PREDICTOR, POOLED):
            loop = make(predictor).loop(LOOP)
            ways = make(predictor).backends(loop)
            lowrank = predictor is POOLED and name in ("maml", "anil", "multitask")
            assert ways["auto"] is ways["lowrank" if lowrank else "autograd"]
            assert ("lowrank" in ways) == lowrank
            assert ("learn2learn" in ways) == (
                name in ("maml", "anil", "boil", "lora", "multitask")
            )


def test_anil_boil_constant_rates_and_joint_training_are_maml():
    for name, scope in (("anil", "head"), ("boil", "encoder")):
        torch.testing.assert_close(Member(name).gradient(), Member("maml", scope).gradient())
        with pytest.raises(DataError, match=f"adapts '{scope}', its inner loop asks for 'lora'"):
            Member(name, "lora")
    maml, joint = Member("maml"), Member("multitask")
    rates = {RATE + name: torch.full_like(v, LOOP.lr) for name, v in maml.params.items()}
    value, gradient, losses = Member("metasgd").gradient(maml.params | rates)
    ours = {name: gradient[name] for name in maml.params}
    torch.testing.assert_close((value, ours, losses), maml.gradient(), **EXACT)
    # Joint training: no step, and all labels.
    expected = [PREDICTOR.loss(maml.params, everything) for _, everything in joint.batches]
    torch.testing.assert_close(joint.gradient()[2], torch.stack(expected))


def test_reptile_lands_on_the_mean_of_the_adapted_parameters():
    member = Member("reptile")
    value, gradient, losses = member.gradient()
    adapted = [
        inner_update(PREDICTOR.loss, member.params, support, LOOP) for support, _ in member.batches
    ]
    for name, start in member.params.items():
        mean = sum(one[name] for one in adapted) / 3
        torch.testing.assert_close(start - gradient[name], mean, **EXACT)
    queries = [PREDICTOR.loss(one, q) for one, (_, q) in zip(adapted, member.batches, strict=True)]
    torch.testing.assert_close(losses, torch.stack(queries))
    assert value == losses.mean()
    other = [(support, member.batches[0][1]) for support, _ in member.batches]
    torch.testing.assert_close(member.gradient(batches=other)[1], gradient, rtol=0, atol=0)


def test_the_same_labels_reach_every_algorithm():
    task = Member("maml").task
    seen = everything(task)
    assert torch.equal(seen.labels, torch.cat([task.support.labels, task.query.labels]))
    for name in TEXTS:
        inner, outer = ALGORITHMS[name](PREDICTOR).batches(task)
        rows = {*task.support.rows, *task.query.rows}
        assert {*inner.rows, *outer.rows} == {*seen.rows} == rows, name
