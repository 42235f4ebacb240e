"""Numbers of the transfer between two assays."""

import pandas as pd
import pytest

from mutmeta_lib.reproduction.pair_numbers import pair_numbers, pair_tables

LEVEL = {"maml": 0.1, "finetune": 0.0, "maml_a": 0.4, "finetune_a": 0.3, "ridge": 0.04}
LEVEL |= {"ridge_a": 0.5, "scores_a": 0.45}


def table():
    return pd.DataFrame(
        [
            {
                "kind": "x y",
                "a": f"A{i}",
                "assay": f"B{i}",
                "cluster": i,
                "seed": seed,
                "shots": k,
                "n_query": 20,
                "diverged": 0,
                "method": method,
                "spearman": value + (0.01 * k if method in ("maml", "ridge") else 0) + 0.001 * seed,
            }
            for i in range(3)
            for seed in (0, 1)
            for k in (0, 10, 40)
            for method, value in LEVEL.items()
        ]
    )


KNOWN = pd.DataFrame(
    [{"kind": "x y", "a": f"A{i}", "b": f"B{i}", "cluster": i, "spearman": 0.5} for i in range(3)]
)


def test_differences_and_the_labels_that_a_is_worth():
    numbers = pair_numbers(table(), KNOWN)
    assert numbers["scores_a_minus_maml_0"]["value"] == pytest.approx(0.35)
    assert numbers["maml_minus_ridge_10_x_y"]["value"] == pytest.approx(0.06)
    assert numbers["labels_worth_maml"]["value"] == 40  # 0.1 + 0.4 reaches 0.45
    assert numbers["labels_worth_ridge"]["value"] is None  # 0.04 + 0.4 does not
    assert numbers["agreement"]["value"] == pytest.approx(0.5)
    assert numbers["pairs"]["value"] == 3


def test_tables_hold_all_kinds_together_and_each_alone():
    tables = pair_tables(table(), KNOWN)
    assert set(tables["summary"]["kind"]) == {"all", "x y"}
    assert (tables["summary"]["n_proteins"] == 3).all()
