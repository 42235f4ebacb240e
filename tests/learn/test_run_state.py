import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_encoded, toy_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.run_state import begin, restore, run_identity, save
from mutmeta_lib.learn.training_settings import MetaTraining

SETTINGS = MetaTraining(steps=9)
# The end of one name is the other.
START = {"w": torch.arange(3.0), "encoder/w": torch.ones(2, 2)}


def fresh():
    return begin(START, SETTINGS, np.random.default_rng(0))


def moved(steps=3):
    """A state after some Adam steps, and one validation."""
    state = fresh()
    for step in range(1, steps + 1):
        for place, value in enumerate(state.current.values()):
            value.grad = torch.full_like(value, float(state.rng.normal()) + place)
        state.optimiser.step()
        state.history.append({"step": step, "train_loss": 1 / step, "validation_loss": np.nan})
    state.best = {name: value.clone() for name, value in state.params().items()}
    state.best_step, state.best_loss, state.seconds = steps, 0.1, 2.5
    return state


def test_the_start_is_copied():
    moved()
    assert torch.equal(START["w"], torch.arange(3.0))


@pytest.mark.parametrize("made", [fresh, moved])
def test_a_restored_state_goes_on_as_the_saved_one(tmp_path, made):
    first, second = made(), fresh()
    save(first, tmp_path / "x.safetensors", {"run": 1})
    restore(second, tmp_path / "x.safetensors", {"run": 1})
    for state in (first, second):
        for value in state.current.values():
            value.grad = torch.full_like(value, float(state.rng.normal()))
        state.optimiser.step()
    torch.testing.assert_close(first.params(), second.params(), rtol=0, atol=0)
    assert json.dumps(first.history) == json.dumps(second.history)
    assert (first.best_step, first.best_loss) == (second.best_step, second.best_loss)
    assert first.seconds == second.seconds
    torch.testing.assert_close(
        {name: value.detach() for name, value in first.best.items()},
        {name: value.detach() for name, value in second.best.items()},
        rtol=0,
        atol=0,
    )


def test_no_checkpoint_leaves_a_fresh_state(tmp_path):
    state = fresh()
    restore(state, tmp_path / "none.safetensors", {})
    assert state.history == []


def test_the_checkpoint_of_another_run_is_refused(tmp_path):
    save(fresh(), tmp_path / "x.safetensors", {"run": 1})
    with pytest.raises(DataError, match="other settings, data or start"):
        restore(fresh(), tmp_path / "x.safetensors", {"run": 2})


def test_identity_changes_with_everything_that_changes_a_run():
    predictor, assays = toy_predictor(), toy_encoded(3)
    start = predictor.init(torch.Generator().manual_seed(0))
    base = (predictor, start, assays[:2], SETTINGS, 0, assays[2:])
    other = predictor.init(torch.Generator().manual_seed(1))
    changed = [
        (toy_predictor(seed=1), *base[1:]),
        (replace(predictor, pooling="cls"), *base[1:]),
        (predictor, other, *base[2:]),
        (*base[:2], assays[1:2], *base[3:]),
        (*base[:2], toy_encoded(2, encoding="mutant"), *base[3:]),
        (*base[:3], replace(SETTINGS, meta_lr=0.5), *base[4:]),
        (*base[:4], 1, base[5]),
        (*base[:5], assays[1:]),
    ]
    identities = [json.dumps(run_identity(*given)) for given in (base, *changed)]
    assert len(set(identities)) == len(identities)
    assert json.loads(identities[0]) == run_identity(*base)
