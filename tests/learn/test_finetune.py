import pytest
import torch
from toy import toy_encoded, toy_predictor

from mutmeta_lib.learn.finetune import finetune, finetune_epochs
from mutmeta_lib.tasks.tasks import draw_task, task_generator

PREDICTOR = toy_predictor()
START = PREDICTOR.init(torch.Generator().manual_seed(0))
SUPPORT = draw_task(toy_encoded(1)[0], 20, task_generator(0, "f"), pool=20).support


def test_adam_matches_its_first_step_in_closed_form():
    """Adam's first step moves each parameter by lr against its gradient's sign."""

    def loss(params, target):
        return ((params["w"] - target) ** 2).sum()

    start = {"w": torch.tensor([0.0, 5.0])}
    tuned = finetune(loss, start, torch.tensor([3.0, 3.0]), lr=0.1, steps=1)
    torch.testing.assert_close(tuned["w"], torch.tensor([0.1, 4.9]))
    assert torch.equal(start["w"], torch.tensor([0.0, 5.0]))


def test_the_loss_falls_and_the_start_stays():
    before = {name: value.clone() for name, value in START.items()}
    tuned = finetune(PREDICTOR.loss, START, SUPPORT, lr=3e-3, steps=40)
    assert PREDICTOR.loss(tuned, SUPPORT) < 0.5 * PREDICTOR.loss(START, SUPPORT)
    torch.testing.assert_close(START, before, rtol=0, atol=0)


@pytest.mark.parametrize(("n", "epochs", "batch", "steps"), [(20, 3, 8, 9), (16, 2, 16, 2)])
def test_epochs_see_every_example_once_per_epoch(n, epochs, batch, steps):
    seen = []

    def loss(params, examples):
        seen.append(list(examples.rows))
        return PREDICTOR.loss(params, examples)

    support = SUPPORT.take(torch.arange(n).numpy())
    generator = torch.Generator().manual_seed(0)
    finetune_epochs(
        loss, START, support, lr=1e-3, epochs=epochs, batch_size=batch, generator=generator
    )
    assert len(seen) == steps
    per_epoch = steps // epochs
    for epoch in range(epochs):
        rows = [row for batch in seen[epoch * per_epoch : (epoch + 1) * per_epoch] for row in batch]
        assert sorted(rows) == sorted(support.rows)
    if epochs > 1 and per_epoch > 1:
        assert seen[0] != seen[per_epoch]
