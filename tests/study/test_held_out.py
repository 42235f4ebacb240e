"""Encodings on held-out mutations of a frozen encoder."""

import numpy as np
import pytest
from toy import toy_encoded

from mutmeta_lib.app.experiments import held_out_experiment
from mutmeta_lib.study.held_out import typed_errors
from mutmeta_lib.tasks.tasks import make_task


@pytest.fixture(scope="module")
def record():
    return held_out_experiment(
        per_protein=1,
        encodings=("mutant", "separator"),
        poolings=("sites", "cls"),
        seeds=1,
        mlp_steps=2,
        profile="quick",
    )


def test_every_encoding_is_scored_on_every_assay(record):
    results = record.table("results")
    cells = results.groupby(["assay", "pooling", "head", "hold_out"])["encoding"].nunique()
    assert (cells == 2).all()
    assert set(results.loc[results["pooling"] == "cls", "head"]) == {"ridge"}


def test_differences_are_paired(record):
    numbers = record.numbers
    for hold_out in ("variants", "sites"):
        one = numbers[f"separator_sites_ridge_{hold_out}"]["value"]
        other = numbers[f"mutant_sites_ridge_{hold_out}"]["value"]
        named = numbers[f"separator_minus_mutant_sites_ridge_{hold_out}"]["value"]
        assert named == pytest.approx(one - other, abs=1e-6)
    assert "separator_minus_mutant_sites_ridge_sites_fitness" in numbers


def test_errors_by_type_average_to_the_whole():
    (assay,) = toy_encoded(1)
    task = make_task(assay, np.arange(20), np.arange(20, 60))
    rows = {row["type"]: row for row in typed_errors(task, np.zeros(40))}
    sides = [row for name, row in rows.items() if name.split()[0] in ("polar", "hydrophobic")]
    assert sum(row["n"] for row in sides) == rows["all"]["n"] == 40
    whole = sum(row["n"] * row["error"] for row in sides) / 40
    assert whole == pytest.approx(rows["all"]["error"])
