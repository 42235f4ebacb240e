"""The committed record of the protocol, and what its chapter says in words."""

import json
import re
from pathlib import Path

import pytest

from mutmeta_lib.experiments import EXPERIMENTS
from mutmeta_lib.protocol_data import TARGETS
from mutmeta_lib.protocol_steps import ARMS
from mutmeta_lib.records import read_record

ROOT = Path(__file__).parent.parent
PATH = ROOT / "book" / "records" / "full" / "protocol.json"
SHORT = ("binding", "dTm", "solubility")


@pytest.fixture(scope="module")
def record():
    return read_record(PATH)


@pytest.fixture(scope="module")
def page():
    return " ".join((ROOT / "notebooks" / "08_protocol.md").read_text(encoding="utf-8").split())


def value(record, name):
    return record.numbers[name]["value"]


def test_the_record_is_whole_and_names_no_place(record):
    assert record.experiment in EXPERIMENTS
    assert record.profile == "full"
    assert re.fullmatch(r"[0-9a-f]{7,40}", record.environment["commit"]), "a clean commit"
    assert set(record.table("gains")["target"]) == set(TARGETS)
    content = json.loads(PATH.read_text(encoding="utf-8"))
    texts = [json.dumps(content[name]) for name in ("parameters", "environment", "encoder")]
    assert not [text for text in texts if re.search(r'"(/|~|[A-Z]:\\)', text)]


def test_there_are_as_many_draws_and_seeds_as_the_criteria_ask_for(record):
    gains = record.table("gains")
    assert (gains["draws"] >= 200).all()
    assert (gains["seeds"] >= 5).all()
    assert (gains["size"] == 16).all()


def test_the_page_names_numbers_that_are_there(record):
    text = (ROOT / "notebooks" / "08_protocol.md").read_text(encoding="utf-8")
    named = re.findall(r"\{record\}`protocol@full (\w[^`]*)`", text)
    assert len(named) > 40
    assert not [name for name in named if name not in record.numbers]


def test_neither_arm_beats_fine_tuning_on_the_same_rows(record, page):
    assert "On the same query rows neither arm beats fine-tuning" in page
    same = record.table("gains").query("against == 'same_rows'")
    assert len(same) == 2 * len(TARGETS) * len(ARMS)
    assert not (same["low"] > 0).any()
    assert "Its ranks are better on all three" in page
    assert (same[same["encoder"] == "esm2"]["spearman_high"] < 0).all()


def test_fine_tuning_over_itself_shows_the_gain_on_solubility(record, page):
    assert "for every method, fine-tuning over itself included" in page
    solubility = record.table("gains").query("target == @TARGETS[2] and against == 'reported'")
    assert len(solubility) == 2 * (len(ARMS) + 1)
    assert (solubility["low"] > 50).all()


def test_meta_training_helps_a_little_on_two_targets_and_hurts_on_one(record, page):
    assert "help a little on two targets and hurt on one" in page
    for arm in ("released", "second_order"):
        found = {t: record.numbers[f"esm2_separator_{t}_{arm}_same_labels"] for t in SHORT}
        assert found["binding"]["high"] < 0
        assert 0 < found["dTm"]["low"] < found["dTm"]["high"] < 29
        assert 0 < found["solubility"]["low"] < found["solubility"]["high"] < 29
    first = record.numbers["esm2_separator_solubility_first_order_same_labels"]
    assert first["low"] < 0 < first["high"]
    assert "Rank correlation does not rise" in page
    for target in ("dTm", "solubility"):
        for arm in ("released", "second_order"):
            rank = record.numbers[f"esm2_separator_{target}_{arm}_same_labels_spearman"]
            assert rank["low"] < 0 < rank["high"]
    assert "Better on one target, worse on another, level on the third" in page
    means = [record.numbers[f"esm2_separator_{t}_second_order_mean"] for t in SHORT]
    assert means[0]["low"] > 0 > means[1]["high"]
    assert means[2]["low"] < 0 < means[2]["high"]


def test_tiny_learns_next_to_nothing_but_by_fine_tuning_on_dtm(record, page):
    assert "it learns next to nothing: but for fine-tuning on dTm" in page
    whole = (
        record.table("whole")
        .query("encoder == 'tiny'")
        .pivot(index="target", columns="method", values="mse")
    )
    distances = whole.sub(whole["mean"], axis=0).abs()
    assert distances.loc["fireprot_dTm", "finetuned"] > 0.05
    distances.loc["fireprot_dTm", "finetuned"] = 0
    assert distances.to_numpy().max() < 0.005
    assert "are within two points of zero, except on dTm" in page
    gains = record.table("gains").query("encoder == 'tiny'")
    close = gains[gains["against"].isin(["same_rows", "same_labels"])]
    other = close[(close["target"] != "fireprot_dTm") | (close["against"] == "same_labels")]
    assert (other["gain"].abs() < 2).all()


def test_the_split_anew_is_told(record, page):
    rows = record.table("rows")
    split = set(rows[rows["resplit"]]["part"].str.split().str[0])
    assert split == {"soluprotmut_solubility"}
    assert "The training file for solubility is not in our copy" in page
    assert value(record, "esm2_separator_solubility_mean_whole") < 0.5


def test_the_initial_fit_ranks_dtm_backwards_and_is_no_help_on_solubility(record, page):
    assert "ranks *backwards*" in page
    assert value(record, "esm2_separator_dTm_initial_whole_spearman") < -0.2
    assert "an initial fit that has more error than saying the mean" in page
    initial, mean = (
        value(record, f"esm2_separator_solubility_{m}_whole") for m in ("initial", "mean")
    )
    assert initial > mean


def test_time_is_that_of_the_gradients(record, page):
    assert "the same time whatever their number" in page
    for _, times in record.table("times").groupby("encoder"):
        seconds = times.pivot_table(index="rows", columns="method", values="seconds")
        least, most = seconds.index.min(), seconds.index.max()
        assert seconds.loc[most, "epochs"] > 0.8 * most / least * seconds.loc[least, "epochs"]
        for way in ("steps", "meta"):
            assert seconds[way].max() < 1.5 * seconds[way].min()
    assert "meta-training's error is the highest of the three" in page
    errors = record.table("times").query("encoder == 'esm2'")
    errors = errors.pivot_table(index="rows", columns="method", values="mse")
    assert (errors.idxmax(axis=1) == "meta").all()
