import numpy as np
import pandas as pd
import pytest

from mutmeta_lib.reproduction.protocol_numbers import (
    AGAINST,
    compared,
    gain_row,
    protocol_numbers,
    shown,
)


def result(scale, seed):
    rng = np.random.default_rng(seed)
    base = rng.lognormal(size=30)
    methods = {"released": scale, "finetuned": 1.0, "initial_adapted": 2.0, "mean": 4.0}
    methods["finetuned_slow"] = 3.0
    drawn = {
        name: {"mse": (factor * base).tolist(), "spearman": [0.5 / factor] * 30}
        for name, factor in methods.items()
    }
    whole = {name: {"mse": 10.0 * factor, "spearman": 0.1} for name, factor in methods.items()}
    return {"draws": {"16": drawn}, "whole": whole}


def test_each_comparison_takes_its_own_method_and_rows():
    results = [result(0.5, seed) for seed in range(3)]
    rows = {against: gain_row(results, 16, "released", against)[0] for against in AGAINST}
    assert rows["same_rows"]["gain"] == pytest.approx(50)
    assert rows["same_labels"]["gain"] == pytest.approx(75)
    assert rows["mean"]["gain"] == pytest.approx(87.5)
    assert rows["same_rows_slow"]["gain"] == pytest.approx(100 * 5 / 6)
    assert rows["same_rows"]["over_29"] == 100
    assert rows["same_rows"]["over_94"] == 0
    assert rows["same_rows"]["spearman"] == pytest.approx(0.5)
    single = np.array([r["draws"]["16"]["released"]["mse"] for r in results]) / 10
    reported = rows["reported"]
    assert reported["first"] == pytest.approx(100 * (1 - single[0, 0]))
    assert reported["over_94"] == pytest.approx(100 * np.mean(single <= 0.06))
    assert reported["q50"] == pytest.approx(100 * (1 - np.median(single)))
    assert (reported["seeds"], reported["draws"]) == (3, 30)


def test_the_histogram_holds_every_draw():
    _, bins = gain_row([result(0.5, 0)], 16, "released", "reported")
    assert bins["share"].sum() == pytest.approx(1)


def test_fine_tuning_is_compared_with_itself_once():
    assert compared().count(("finetuned", "reported")) == 1
    assert len(set(compared())) == len(compared())


def test_the_usual_size_is_shown_where_it_was_run():
    assert shown((8, 16, 32)) == 16
    assert shown((4, 8)) == 8


def test_other_sizes_are_named():
    rows = [
        {"encoder": "tiny", "encoding": "mutant", "target": "fireprot_dTm", **row}
        for row in (
            gain_row([result(0.5, 0)], 16, "released", "same_rows")[0],
            gain_row([result(0.5, 0)], 16, "released", "same_rows")[0] | {"size": 8, "gain": 7.0},
        )
    ]
    empty = pd.DataFrame(columns=["phase"])
    numbers = protocol_numbers(pd.DataFrame(rows), empty, empty)
    assert numbers["tiny_mutant_dTm_released_same_rows"]["value"] == pytest.approx(50)
    assert numbers["tiny_mutant_dTm_released_same_rows_at_8"]["value"] == 7
    assert "tiny_mutant_dTm_released_same_rows_at_16" not in numbers
