"""Differences between methods at a depth and between depths of a method."""

import pandas as pd
import pytest

from mutmeta_lib.study.depth_tables import depth_numbers, depth_tables, with_controls

ASSAYS = pd.DataFrame(
    {
        "assay": ["A", "B", "C"],
        "property": ["fitness", "fitness", "solubility"],
        "role": ["functional fitness", "functional fitness", "solubility classes"],
        "cluster": [1, 2, 3],
    }
)
SPEARMAN = {
    ("head", "maml"): [0.1, 0.2, 0.3],
    ("head", "finetune"): [0.0, 0.0, 0.0],
    ("head", "ridge"): [0.2, 0.2, 0.2],
    ("last-1", "maml"): [0.4, 0.4, 0.4],
    ("last-1", "finetune"): [0.3, 0.1, 0.2],
}


def results():
    rows = []
    for (depth, method), values in SPEARMAN.items():
        for name, error in ((method, 2.0), (f"{method}_mse", 1.0 if method == "maml" else 2.0)):
            rows += [
                {"encoder": "esm2", "depth": depth, "method": name, "assay": assay, "shots": 10,
                 "spearman": value, "mse": error, "seconds_adapt": 0.1}
                for assay, value in zip("ABC", values, strict=True)
            ]  # fmt: skip
    return pd.DataFrame(rows).query("method != 'ridge_mse'")


@pytest.fixture(scope="module")
def numbers():
    return depth_numbers(depth_tables(results(), ASSAYS, 10))


@pytest.mark.parametrize(
    ("name", "value", "n"),
    [
        ("esm2_head_all_maml_10", 0.2, 3),
        ("esm2_head_all_maml_minus_finetune_10", 0.2, 3),
        ("esm2_last_1_all_maml_minus_finetune_10", 0.2, 3),
        ("esm2_last_1_all_maml_minus_ridge_10", 0.2, 3),
        ("esm2_maml_all_last_1_minus_head_10", 0.2, 3),
        ("esm2_maml_all_head_minus_last_1_10", -0.2, 3),
        ("esm2_finetune_fitness_last_1_minus_head_10", 0.2, 2),
        ("esm2_last_1_fitness_maml_10", 0.4, 2),
    ],
)
def test_means_and_differences(numbers, name, value, n):
    assert numbers[name]["value"] == pytest.approx(value)
    assert numbers[name]["n"] == n
    assert numbers[name]["unit"] == "Spearman"


def test_gains_take_rates_chosen_for_error_and_leave_classes_out(numbers):
    gain = numbers["esm2_head_all_gain_over_finetune"]
    assert gain["value"] == pytest.approx(50.0)
    assert gain["n"] == 2
    assert gain["unit"] == "%"
    assert "esm2_head_solubility_gain_over_finetune" not in numbers


def test_rates_for_error_have_no_row_among_the_ranks():
    tables = depth_tables(results(), ASSAYS, 10)
    for name in ("summary", "differences"):
        assert "mse" not in tables[name].to_string()


def test_controls_stand_beside_every_depth():
    made = with_controls(results())
    assert set(made.loc[made["method"] == "ridge", "depth"]) == {"head", "last-1"}
    assert not made.duplicated(["depth", "method", "assay"]).any()
