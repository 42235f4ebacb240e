import pytest
import torch
from torch.func import functional_call, grad, vmap

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoders import tiny_encoder
from mutmeta_lib.models.transformer import sinusoidal_positions


@pytest.fixture(scope="module")
def module():
    """A small one in double precision, so that derivatives can be compared closely."""
    return tiny_encoder(width=16, heads=2, max_tokens=32).module.double()


@pytest.fixture
def params(module):
    return {name: value.detach() for name, value in module.named_parameters()}


def random_tokens(seed, *shape):
    return torch.randint(4, 24, shape, generator=torch.Generator().manual_seed(seed))


def loss(module, params, token_ids):
    mask = torch.ones_like(token_ids, dtype=torch.bool)
    hidden = functional_call(module, params, (token_ids, mask))
    return (hidden[:, 0, :3] ** 3).mean()


def after_one_step(module, params, support, query, rate=0.05):
    """The query loss after one gradient step on the support: MAML's outer loss."""
    gradients = grad(loss, argnums=1)(module, params, support)
    adapted = {name: value - rate * gradients[name] for name, value in params.items()}
    return loss(module, adapted, query)


def test_nested_gradients_agree_with_finite_differences(module, params):
    support, query = random_tokens(0, 3, 9), random_tokens(1, 3, 9)
    gradients = grad(after_one_step, argnums=1)(module, params, support, query)
    generator = torch.Generator().manual_seed(2)
    step = 1e-5
    for name, value in params.items():
        direction = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        shifted = [
            after_one_step(
                module, {**params, name: value + sign * step * direction}, support, query
            )
            for sign in (1, -1)
        ]
        expected = (shifted[0] - shifted[1]) / (2 * step)
        torch.testing.assert_close(
            (gradients[name] * direction).sum(), expected, rtol=1e-5, atol=1e-8
        )


def test_nested_gradients_are_not_first_order_ones(module, params):
    support, query = random_tokens(0, 3, 9), random_tokens(1, 3, 9)
    second = grad(after_one_step, argnums=1)(module, params, support, query)
    inner = grad(loss, argnums=1)(module, params, support)
    adapted = {name: value - 0.05 * inner[name] for name, value in params.items()}
    first = grad(loss, argnums=1)(module, adapted, query)
    name = "blocks.0.query_key_value.weight"
    assert (second[name] - first[name]).norm() > 1e-3 * first[name].norm()


def test_vmap_over_tasks_equals_a_loop(module, params):
    supports, queries = random_tokens(0, 4, 3, 9), random_tokens(1, 4, 3, 9)
    outer = grad(after_one_step, argnums=1)
    together = vmap(outer, in_dims=(None, None, 0, 0))(module, params, supports, queries)
    for task in range(4):
        alone = outer(module, params, supports[task], queries[task])
        for name in params:
            torch.testing.assert_close(together[name][task], alone[name], rtol=1e-9, atol=1e-12)


def test_vmap_over_parameters_equals_a_loop(module, params):
    token_ids = random_tokens(0, 3, 9)
    stacked = {name: torch.stack([value, 0.9 * value]) for name, value in params.items()}
    together = vmap(loss, in_dims=(None, 0, None))(module, stacked, token_ids)
    alone = [
        loss(module, {name: factor * value for name, value in params.items()}, token_ids)
        for factor in (1.0, 0.9)
    ]
    torch.testing.assert_close(together, torch.stack(alone))


def test_padding_changes_neither_results_nor_gradients(module, params):
    token_ids = random_tokens(0, 2, 7)
    padded = torch.cat([token_ids, torch.zeros(2, 5, dtype=torch.int64)], dim=1)

    def total(params, token_ids):
        mask = token_ids != 0
        hidden = functional_call(module, params, (token_ids, mask))[:, :7]
        return (hidden**3).sum(), hidden

    plain, hidden = grad(total, has_aux=True)(params, token_ids)
    with_padding, hidden_padded = grad(total, has_aux=True)(params, padded)
    torch.testing.assert_close(hidden_padded, hidden, rtol=1e-10, atol=1e-12)
    for name in params:
        torch.testing.assert_close(with_padding[name], plain[name], rtol=1e-8, atol=1e-10)


def test_tokens_and_their_order_matter(module):
    token_ids = random_tokens(0, 1, 9)
    mask = torch.ones_like(token_ids, dtype=torch.bool)
    swapped = token_ids[:, [0, 2, 1, *range(3, 9)]]
    assert (token_ids != swapped).any()
    difference = module(token_ids, mask)[0, 0] - module(swapped, mask)[0, 0]
    assert difference.abs().max() > 1e-3


def test_hidden_states_and_gradients_have_a_healthy_size():
    module = tiny_encoder().module
    token_ids = random_tokens(0, 8, 60)
    hidden = module(token_ids, torch.ones_like(token_ids, dtype=torch.bool))
    assert 0.9 < hidden.std() < 1.1
    hidden[:, 0, 0].sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in module.parameters())


def test_no_real_token_is_still_finite(module):
    token_ids = random_tokens(0, 2, 5)
    assert module(token_ids, torch.zeros(2, 5, dtype=torch.bool)).isfinite().all()


def test_no_rows(module):
    empty = torch.zeros((0, 1), dtype=torch.int64)
    assert module(empty, empty.bool()).shape == (0, 1, 16)


def test_neighbouring_positions_are_similar_and_all_differ():
    positions = torch.nn.functional.normalize(sinusoidal_positions(256, 64), dim=1)
    similarity = positions @ positions.T
    shifted_by_four = similarity.diagonal(4)
    assert shifted_by_four.min() > similarity[0, 128:].max()
    assert (similarity - 2 * torch.eye(256)).max() < 0.999


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tiny_encoder(width=60, heads=8), "width of 60 cannot be shared by 8 heads"),
        (
            lambda: tiny_encoder(max_tokens=8).module(
                torch.zeros((1, 9), dtype=torch.int64), torch.ones((1, 9), dtype=torch.bool)
            ),
            "9 tokens exceed this encoder's context of 8",
        ),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(DataError, match=says):
        call()
