"""A learned head on another encoder, on the bundled data."""

import pandas as pd
import pytest

from mutmeta_lib.app.experiments import swap_experiment
from mutmeta_lib.errors import DataError
from mutmeta_lib.study.encoder_swap import report

SMALL = dict(
    per_protein=2,
    test_ids=("GB1_NISTHAL2019_on_WT",),
    test_cap=40,
    swaps=("same", "int8", "noise 0.3"),
    shots=(0, 10),
    seeds=1,
    meta_steps=2,
    tasks_per_step=2,
    support=4,
    query=4,
    inner_steps=1,
    adapt_steps=2,
    tuning_tasks=2,
    profile="quick",
)


@pytest.fixture(scope="module")
def record():
    return swap_experiment(**SMALL)


def test_no_swap_loses_nothing(record):
    moved = record.table("moved").groupby("swap")["moved"].mean()
    assert moved["same"] == 0
    assert 0 < moved["int8"] < moved["noise 0.3"]
    lost = record.table("summary").query("what == 'lost' and swap == 'same'")
    assert (lost["mean"] == 0).all()


def test_a_loss_is_the_difference_of_the_scores(record):
    numbers = record.numbers
    for method in ("maml", "ridge"):
        before = numbers[f"{method}_10_same"]["value"]
        after = numbers[f"{method}_10_noise_0.3"]["value"]
        assert numbers[f"lost_{method}_10_noise_0.3"]["value"] == pytest.approx(before - after)


def test_the_original_is_level_with_itself_at_ten_labels(record):
    assert record.numbers["recovered_maml_same"]["value"] <= 10


def test_an_assay_that_is_not_there_is_not_replaced_by_another():
    with pytest.raises(DataError, match="no assay GB1_UNKNOWN to test on"):
        swap_experiment(**{**SMALL, "test_ids": ("GB1_NISTHAL2019_on_WT", "GB1_UNKNOWN")})


@pytest.mark.parametrize(("shots", "mended"), [((0, 10), 10), ((0, 20), None)])
def test_nothing_is_level_with_ten_labels_that_were_not_tried(shots, mended):
    results = pd.DataFrame(
        [
            {"swap": swap, "method": "maml", "shots": k, "assay": f"A{i}", "cluster": i}
            | {"spearman": 0.01 * k}
            for swap in ("same", "int8")
            for k in shots
            for i in range(3)
        ]
    )
    _, numbers = report(results, ("same", "int8"), shots)
    assert numbers["recovered_maml_int8"]["value"] == mended
