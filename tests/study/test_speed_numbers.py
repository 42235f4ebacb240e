"""Savings, bills and slopes from rows."""

import numpy as np
import pandas as pd
import pytest

from mutmeta_lib.study.speed_numbers import per_assay, saved, size_numbers, speed_numbers


def draws(maml=0.5, finetune=1.0, n=6):
    rows = []
    for assay in range(n):
        for arm, seconds in (("maml", maml), ("multitask", 2.0), ("finetune", finetune)):
            rows.append(
                {
                    "assay": f"A{assay}",
                    "property": "fitness",
                    "cluster": assay,
                    "seed": 0,
                    "labels": 10,
                    "arm": arm,
                    "reached": True,
                    "steps": 5,
                    "seconds": seconds,
                    "seconds_end": 2.0,
                    "error_start": 1.0,
                    "error_end": 0.5 if arm == "maml" else 1.0,
                    "spearman_start": 0.0,
                    "spearman_end": 0.3,
                }
            )
    return pd.DataFrame(rows)


def rows(**changed):
    costs = pd.DataFrame([{"arm": arm, "seconds": 10.0} for arm in ("maml", "multitask")])
    embedding = pd.DataFrame([{"assay": "A", "length": 9, "seconds_per_variant": 0.01}])
    empty = pd.DataFrame()
    made = {"costs": costs, "embedding": embedding, "rapid": empty, "sizes": empty}
    return {"draws": draws(**changed), "left_out": empty, **made}


def test_half_the_time_saves_half_and_is_paid_for_after_twenty_assays():
    numbers = speed_numbers(rows(), [1, 20])
    assert numbers["saved_maml_10"]["value"] == pytest.approx(0.5)
    assert numbers["saved_of_all_maml_10"]["value"] == pytest.approx(0.75)
    assert numbers["break_even_maml_10"]["value"] == pytest.approx(20)
    assert numbers["saved_maml_10_over_20"]["value"] == pytest.approx(0.0)
    assert numbers["saved_maml_10_over_1"]["value"] == pytest.approx(-9.5)
    assert numbers["gain_maml_10"]["value"] == pytest.approx(0.5)


def test_what_is_slower_is_never_paid_for():
    numbers = speed_numbers(rows(maml=3.0), [1])
    assert numbers["saved_maml_10"]["value"] == pytest.approx(-2.0)
    assert numbers["break_even_maml_10"]["value"] is None


def test_a_target_that_is_there_from_the_start_has_a_place_in_a_sum():
    table = draws(maml=0.0)
    means = per_assay(table)
    found = saved(
        means.loc["maml"]["seconds"], means.loc["finetune"]["seconds"], means.loc["maml"]["cluster"]
    )
    assert (found["value"], found["low"], found["high"]) == (1.0, 1.0, 1.0)


def test_slopes_are_those_of_the_logarithms():
    grown = pd.DataFrame(
        [
            {"start": s, "kind": kind, "assay": a, "labels": k, "seconds": k**power, "seed": 0}
            for s in ("maml", "finetune")
            for kind, power in (("fixed", 0.0), ("steps", 0.5), ("epochs", 1.0))
            for a in ("A", "B")
            for k in (10, 100, 1000)
        ]
    )
    numbers = size_numbers(grown)
    for start in ("maml", "finetune"):
        for kind, power in (("fixed", 0.0), ("steps", 0.5), ("epochs", 1.0)):
            assert numbers[f"exponent_{start}_{kind}"]["value"] == pytest.approx(power, abs=1e-9)
    assert numbers["fixed_maml_over_finetune"]["value"] == pytest.approx(1.0)
    assert numbers["flat_saving"]["value"] == pytest.approx(1 - 1 / 1000)
    assert np.isclose(numbers["flat_saving"]["value"], numbers["flat_saving_finetune"]["value"])
