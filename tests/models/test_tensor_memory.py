"""Bytes are counted while they live, and not after."""

import torch

from mutmeta_lib.models.tensor_memory import peak_tensor_bytes


def test_what_is_freed_makes_room():
    def one_after_the_other():
        for _ in range(10):
            kept = torch.zeros(1000)
        return kept

    # The new one is there before the old one goes.
    assert peak_tensor_bytes(one_after_the_other)[0] == 8000
    assert peak_tensor_bytes(lambda: [torch.zeros(1000) for _ in range(10)])[0] == 40_000


def test_views_and_given_tensors_cost_nothing():
    given = torch.ones(1000)
    assert peak_tensor_bytes(lambda: given.view(10, 100).T[3])[0] == 0


def test_the_result_comes_through_and_graphs_are_counted():
    weight = torch.ones(1000, requires_grad=True)
    most, result = peak_tensor_bytes(lambda: (weight.sin().cos().sum(), "kept")[1])
    assert result == "kept"
    assert most >= 2 * 4000
