"""The scorecard holds what the records hold, in both schemes, and is not stale."""

import re
from dataclasses import replace

import draw_scorecard
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from draw_scorecard import INKS
from test_page_figures import cut_off

RECORDS = draw_scorecard.read_records()
CLAIMS = draw_scorecard.claims(RECORDS)
RANKING = draw_scorecard.ranking(RECORDS["transfer"])


def test_the_ranking_is_that_of_the_record_best_first():
    numbers = RECORDS["transfer"].numbers
    assert set(RANKING["method"]) == {"maml", *draw_scorecard.CONTROLS}
    assert RANKING["value"].is_monotonic_decreasing
    for row in RANKING.itertuples():
        assert row.value == numbers[f"proteins_all_{row.method}_10"]["value"]
        assert np.isnan(row.lead) == (row.method == "maml")
        if row.method != "maml":
            lead = numbers[f"proteins_all_maml_minus_{row.method}_10"]
            ends = tuple(lead[end] for end in ("value", "low", "high"))
            assert (row.lead, row.lead_low, row.lead_high) == ends


def test_every_figure_of_the_paper_has_the_verdict_that_the_criteria_give():
    assert CLAIMS.groupby("claim", sort=False)["claimed"].first().tolist() == [29, 65, 94, 55]
    for claim, block in CLAIMS.groupby("claim"):
        (said,), deciding = set(block["verdict"]), block[block["decides"]]
        assert f"{block['claimed'].iloc[0]} %" in claim
        unseen = deciding.iloc[-1]
        if said != "not testable here":
            assert said.startswith("not reproduced") == (unseen["low"] <= 0)
            open_yet = unseen["low"] <= 0 and unseen["high"] >= unseen["claimed"]
            assert ("not excluded" in said) == open_yet
    of_time = CLAIMS[CLAIMS["name"] == "to fine-tuning’s error"].set_index("claimed")
    assert of_time.loc[55, "verdict"] == "not testable here", "four clusters carry it"


def test_public_files_decide_nothing_where_one_that_the_claim_rests_on_is_missing():
    """As the criteria say. Where all are there, the arms on them count."""
    arms = CLAIMS["name"].isin(["as released", "as described"])
    assert arms.sum() == 4
    assert not CLAIMS[arms]["decides"].any()
    audit = RECORDS["audit"]
    found = audit.tables | {"missing": {"columns": ["table"], "rows": [["combined_ddG_raw"]]}}
    claims = draw_scorecard.claims(RECORDS | {"audit": replace(audit, tables=found)})
    assert claims[claims["name"].isin(["as released", "as described"])]["decides"].all()


def test_the_cards_and_the_words_of_the_figure_have_the_same_verdicts():
    page = (draw_scorecard.ROOT / "book" / "intro.md").read_text(encoding="utf-8")
    cards = re.findall(r"\{grid-item-card\} (.+?)\n.*?\{card-footer\}\n(.+?)\n", page, re.S)
    said = {title.split(" %")[0]: verdict for title, verdict in cards if " %" in title}
    verdicts = dict(CLAIMS[["claim", "verdict"]].values)
    drawn = {claim.split(" %")[0]: verdict for claim, verdict in verdicts.items()}
    assert {title: verdict.lower().split(":")[0] for title, verdict in said.items()} == drawn
    assert "none of the paper's four" in page
    assert not {"reproduced", "partly"} & set(drawn.values())
    words = draw_scorecard.in_words(RANKING, CLAIMS)
    for claim, verdict in verdicts.items():
        assert re.search(rf"{re.escape(claim)}: measured [^;]*, {verdict}", words)
    assert "nan" not in words


@pytest.mark.parametrize("scheme", INKS)
def test_each_number_is_written_once_nothing_is_cut_off_and_what_decides_is_filled(scheme):
    claims = [
        ("A: 29 %", 29, "not reproduced", "unseen", True, 1.6, -0.8, 3.5),
        ("A: 29 %", 29, "not reproduced", "otherwise", False, 94.0, np.nan, np.nan),
        ("B: 55 %", 55, "not testable here", "unseen", True, -228.0, -np.inf, -99.0),
    ]
    names = ["claim", "claimed", "verdict", "name", "decides", "value", "low", "high"]
    claims = pd.DataFrame(claims, columns=names)
    figure = draw_scorecard.draw(RANKING, claims, counted="12 assays", scheme=scheme)
    assert "12 assays" in [text.get_text() for text in figure.texts]
    lower = [text.get_text() for text in figure.axes[1].texts]
    for told in ("1.6 % [−0.8, 3.5]", "94 %", "−228 % [−∞, −99]", *claims["verdict"][1:]):
        assert lower.count(told) == 1
    points = [line for line in figure.axes[1].lines if line.get_marker() == "o"]
    filled = {x.get_xdata()[0]: x.get_markerfacecolor() == x.get_color() for x in points}
    assert filled == {1.6: True, 94.0: False}
    lines = [line for line in figure.axes[1].lines if line.get_linewidth() == 2.4]
    assert [line.get_xdata()[0] for line in lines] == [29, 55]
    assert cut_off(figure) == []
    plt.close(figure)
