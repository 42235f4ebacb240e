"""The first page's figure holds what the records hold, and the committed copy is not stale."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from mutmeta_lib.records.record import read_record
from mutmeta_lib.reproduction import scorecard

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "draw_scorecard.py"
FIGURES = ROOT / "book" / "figures"
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?|-?\d+")


@pytest.fixture(scope="module")
def records():
    folder = ROOT / "book" / "records" / "full"
    return {name: read_record(folder / f"{name}.json") for name in scorecard.RECORDS}


@pytest.fixture(scope="module")
def claims(records):
    return scorecard.claims(records)


def test_the_ranking_is_that_of_the_record_best_first(records):
    table = scorecard.ranking(records["transfer"])
    numbers = records["transfer"].numbers
    assert set(table["method"]) == {"maml", *scorecard.CONTROLS}
    known = table[table["known"]]
    assert known["value"].is_monotonic_decreasing
    for row in table.itertuples():
        regime = "proteins" if row.known else "properties"
        assert row.value == numbers[f"{regime}_all_{row.method}_10"]["value"]
        if row.method == "maml":
            assert np.isnan(row.lead)
        else:
            lead = numbers[f"{regime}_all_maml_minus_{row.method}_10"]
            assert (row.lead, row.lead_low, row.lead_high) == tuple(
                lead[end] for end in ("value", "low", "high")
            )
    for method, rows in table.groupby("method"):
        assert rows.index.max() - rows.index.min() == len(rows) - 1, f"{method} stands together"


def test_every_figure_of_the_paper_has_one_verdict_and_a_number_that_decides(claims):
    assert claims.groupby("claim")["verdict"].nunique().eq(1).all()
    assert claims.groupby("claim", sort=False)["claimed"].first().tolist() == [29, 65, 94, 55]
    for claim, claimed in zip(claims["claim"], claims["claimed"], strict=True):
        assert f"{claimed} %" in claim
    assert claims.groupby("claim")["decides"].any().all()


def test_verdicts_follow_the_criteria(claims):
    for _, block in claims[claims["decides"]].groupby("claim"):
        unseen, said = block.iloc[-1], block["verdict"].iloc[0]
        if said == "reproduced":
            assert unseen["low"] > 0
            assert unseen["high"] >= unseen["claimed"]
        elif said == "partly":
            assert unseen["low"] > 0
        elif said == "not reproduced, not excluded":
            assert unseen["low"] <= 0
            assert unseen["high"] >= unseen["claimed"]
        elif said == "not reproduced in any arm":
            assert (block["low"] <= 0).all()
            assert unseen["high"] < unseen["claimed"]
        else:
            assert said in ("not reproduced", "not testable here")
    of_time = claims[claims["name"] == "to fine-tuning’s error"].set_index("claimed")
    assert of_time.loc[55, "verdict"] == "not testable here", "four clusters carry it"


def test_words_hold_every_verdict(records, claims):
    words = scorecard.in_words(scorecard.ranking(records["transfer"]), claims)
    for claim, said in claims.groupby("claim")["verdict"].first().items():
        assert claim in words
        assert said in words
    assert "nan" not in words


def parts(text):
    """The numbers of a drawing, and everything else."""
    return [float(x) for x in NUMBER.findall(text)], NUMBER.sub("#", text)


def test_the_committed_figure_is_drawn_from_the_committed_records(tmp_path):
    """After a change of a record: `make figures`."""
    spec = importlib.util.spec_from_file_location("draw_scorecard", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    drawn = module.write(tmp_path)
    assert {path.name for path in drawn} == {path.name for path in FIGURES.iterdir()}
    for path in drawn:
        committed = (FIGURES / path.name).read_text(encoding="utf-8")
        ours, theirs = parts(path.read_text(encoding="utf-8")), parts(committed)
        assert ours[1] == theirs[1], f"{path.name} is stale: run `make figures`"
        # Processors round differently in the last digit; a moved point is farther away.
        assert np.allclose(ours[0], theirs[0], atol=0.01), f"{path.name}: run `make figures`"
