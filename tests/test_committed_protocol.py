"""The committed record of the protocol, and what its chapter says in words."""

import json
import re
from pathlib import Path

import pytest

from mutmeta_lib.app.notebooks import default_parameters, profile_parameters
from mutmeta_lib.records.record import read_record
from mutmeta_lib.reproduction.protocol_data import TARGETS
from mutmeta_lib.reproduction.protocol_run import ARMS

ROOT = Path(__file__).parent.parent
PATH = ROOT / "book" / "records" / "full" / "protocol.json"
SHORT = ("binding", "dTm", "solubility")


@pytest.fixture(scope="module")
def record():
    return read_record(PATH)


@pytest.fixture(scope="module")
def page():
    return " ".join((ROOT / "notebooks" / "08_protocol.md").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def gains(record):
    """The gains of chapters' main text: separator encoding, 16 rows."""
    return record.table("gains").query("encoding == 'separator' and size == 16")


def value(record, name):
    return record.numbers[name]["value"]


def test_the_record_is_whole_and_names_no_place(record):
    assert record.profile == "full"
    assert re.fullmatch(r"[0-9a-f]{7,40}", record.environment["commit"]), "a clean commit"
    assert set(record.table("gains")["target"]) == set(TARGETS)
    content = json.loads(PATH.read_text(encoding="utf-8"))
    texts = [json.dumps(content[name]) for name in ("parameters", "environment", "encoder")]
    assert not [text for text in texts if re.search(r'"(/|~|[A-Z]:\\)', text)]


def test_there_are_as_many_draws_and_seeds_as_the_criteria_ask_for(record):
    for name in ("gains", "encodings", "shares"):
        table = record.table(name)
        assert (table["draws"] >= 200).all()
        assert (table["seeds"] >= 5).all()
        assert set(table[table["encoder"] == "esm2"]["size"]) == {8, 16, 32}
        assert set(table[table["encoder"] == "tiny"]["size"]) <= {16}


def test_the_record_answers_the_question_its_notebook_asks(record):
    notebook = ROOT / "notebooks" / "08_protocol.ipynb"
    asked = default_parameters(notebook) | profile_parameters(notebook, "full")
    for name in ("encodings", "sizes", "tiny_encodings"):
        assert asked[name] == record.parameters[name]


def test_the_page_names_numbers_that_are_there(record):
    text = (ROOT / "notebooks" / "08_protocol.md").read_text(encoding="utf-8")
    named = re.findall(r"\{record[\w-]*\}`protocol@full (\w[^`]*)`", text)
    assert len(named) > 40
    assert not [name for name in named if name not in record.numbers]


def test_neither_arm_beats_fine_tuning_on_the_same_rows(gains, page):
    assert "On the same query rows neither arm beats fine-tuning" in page
    same = gains.query("against == 'same_rows'")
    assert len(same) == 2 * len(TARGETS) * len(ARMS)
    assert not (same["low"] > 0).any()
    assert "Its ranks are better on all three" in page
    assert (same[same["encoder"] == "esm2"]["spearman_high"] < 0).all()


def test_fine_tuning_over_itself_shows_the_gain_on_solubility(gains, page):
    assert "for every method, fine-tuning over itself included" in page
    assert "all four look good on all three targets" in page
    reported = gains.query("encoder == 'esm2' and against == 'reported'")
    assert (reported["first"] > 5).all()
    solubility = gains.query("target == @TARGETS[2] and against == 'reported'")
    assert len(solubility) == 2 * (len(ARMS) + 1)
    assert (solubility["low"] > 50).all()


def test_meta_training_helps_a_little_on_two_targets_and_hurts_on_one(record, page):
    assert "help a little on two targets and hurt on one" in page
    for arm in ("released", "second_order"):
        found = {t: record.numbers[f"esm2_separator_{t}_{arm}_same_labels"] for t in SHORT}
        assert found["binding"]["high"] < 0
        assert 0 < found["dTm"]["low"] < found["dTm"]["high"] < 29
        assert 0 < found["solubility"]["low"] < found["solubility"]["high"] < 29
    assert "Rank correlation does not rise with it" in page
    for target in ("dTm", "solubility"):
        for arm in ARMS:
            assert record.numbers[f"esm2_separator_{target}_{arm}_same_labels_spearman"]["low"] < 0
    assert "ranks go the other way as released" in page
    rank = record.numbers["esm2_separator_solubility_released_same_labels_spearman"]
    assert rank["high"] < 0
    assert "Better on one target, worse on another, level on the third" in page
    means = [record.numbers[f"esm2_separator_{t}_second_order_mean"] for t in SHORT]
    assert means[0]["low"] > 0 > means[1]["high"]
    assert means[2]["low"] < 0 < means[2]["high"]


def test_tiny_learns_next_to_nothing_but_by_fine_tuning_on_dtm(record, gains, page):
    assert "it learns next to nothing: but for fine-tuning on dTm" in page
    whole = (
        record.table("whole")
        .query("encoder == 'tiny' and encoding == 'separator'")
        .pivot(index="target", columns="method", values="mse")
    )
    distances = whole.sub(whole["mean"], axis=0).abs()
    assert distances.loc["fireprot_dTm", "finetuned"] > 0.05
    distances.loc["fireprot_dTm", "finetuned"] = 0
    assert distances.to_numpy().max() < 0.005
    assert "are within two points of zero, except on dTm" in page
    gains = gains.query("encoder == 'tiny'")
    close = gains[gains["against"].isin(["same_rows", "same_labels"])]
    other = close[(close["target"] != "fireprot_dTm") | (close["against"] == "same_labels")]
    assert (other["gain"].abs() < 2).all()


def accuracy_verdict(number, rank, claim):
    """The verdict of the criteria, from the interval of the gain and that of the ranks."""
    if number["low"] <= 0:
        return "not reproduced"
    if number["high"] < claim or rank["value"] < 0:
        return "partly"
    return "reproduced"


def test_verdicts_follow_the_criteria(record):
    text = (ROOT / "notebooks" / "08_protocol.md").read_text(encoding="utf-8")
    for target, claim in (("binding", 29), ("solubility", 94)):
        for arm in ARMS:
            name = f"esm2_separator_{target}_{arm}_same_labels"
            (row,) = [line for line in text.splitlines() if f"full {name}` |" in line]
            said = row.split("|")[-2].strip().split(",")[0]
            number, rank = record.numbers[name], record.numbers[f"{name}_spearman"]
            assert said == accuracy_verdict(number, rank, claim)


def test_the_number_of_rows_does_not_change_the_answer(record, page):
    assert "with none of three numbers of rows and neither of two encodings" in page
    every = record.table("gains").query("encoder == 'esm2'")
    assert len(every.query("against == 'same_rows'")) == 2 * 3 * len(TARGETS) * len(ARMS)
    assert not (every.query("against == 'same_rows'")["low"] > 0).any()
    own = every.query("encoding == 'separator' and against == 'same_labels'").set_index("target")
    assert "meta-training hurts on binding affinity and helps on dTm with any number" in page
    assert (own.loc[TARGETS[0], "high"] < 0).all()
    assert (own.loc[TARGETS[1], "low"] > 0).all()
    assert "On solubility the help grows to" in page
    solubility = own.loc[TARGETS[2]].query("method == 'second_order'").set_index("size")
    assert solubility.loc[32, "gain"] == solubility["gain"].max()
    assert "does not get clearly below the error of the mean" in page
    mean = record.numbers["esm2_separator_solubility_second_order_mean_at_32"]
    assert mean["low"] < 0 < mean["high"]
    assert "ranks rise a little with 32" in page
    rank = record.numbers["esm2_separator_dTm_second_order_same_labels_at_32_spearman"]
    assert 0 < rank["low"] < rank["high"] < 0.1
    errors = record.table("errors").query("encoder == 'esm2' and target == @TARGETS[1]")
    assert (errors[errors["method"].isin(ARMS)]["spearman"] < 0).all(), "to below zero"


def test_single_draws_stray_less_with_more_rows_but_for_solubility(record, page):
    assert "On solubility it goes from" in page
    spans = {}
    for target in ("binding", "solubility"):
        for end in ("_at_8", "", "_at_32"):
            draws = record.numbers[f"esm2_separator_{target}_finetuned_reported{end}_draws"]
            ratio = (1 - draws["low"] / 100) / (1 - draws["high"] / 100)
            spans[target, end] = ratio
    assert spans["binding", "_at_8"] > 3 * spans["binding", "_at_32"]
    assert spans["solubility", "_at_32"] > 40
    assert "noise alone looks like a gain" in page
    for target in ("binding", "dTm"):
        name = f"esm2_separator_{target}_finetuned_reported_at_"
        assert record.numbers[f"{name}8"]["low"] > 0
        assert value(record, f"{name}32") < value(record, f"{name}8") / 2


def test_texts_are_counted_as_told(record, page):
    texts = record.table("texts").query("encoder == 'esm2'").set_index(["target", "encoding"])
    separator = texts.xs("separator", level="encoding")
    assert "With separators every row is a text of its own" in page
    assert (separator["texts"] == separator["rows"]).all()
    unknown = texts.xs("unknown_text", level="encoding")
    assert "That is still more than there are sequences" in page
    assert (unknown["texts"] >= unknown["sequences"]).all()
    assert (
        unknown.loc[list(TARGETS[1:]), "texts"] < unknown["rows"].loc[list(TARGETS[1:])] / 3
    ).all()
    assert "nearly every row states" in page
    binding = unknown.loc[TARGETS[0]]
    assert binding["sequences"] > 0.99 * binding["rows"]


def test_the_encoding_changes_errors_more_than_ranks(record, page):
    over = "separator_over_unknown_text"
    numbers = record.numbers
    assert "makes *more* errors with separators on dTm" in page
    for target in ("dTm", "binding"):
        assert numbers[f"esm2_{target}_finetuned_{over}"]["high"] < 0
    solubility = numbers[f"esm2_solubility_finetuned_{over}"]
    assert solubility["low"] < 0 < solubility["high"]
    assert "ranks worse with them on dTm" in page
    assert numbers[f"esm2_dTm_finetuned_{over}_spearman"]["high"] < 0
    assert numbers[f"esm2_solubility_finetuned_{over}_spearman"]["low"] > 0
    assert "about a hundredth of their error with separators on binding affinity" in page
    assert "and rank a little better" in page
    assert "on dTm intervals hold zero" in page
    assert "a third of their error or more" in page
    for arm in ARMS:
        binding = numbers[f"esm2_binding_{arm}_{over}"]["value"]
        assert 0.5 < binding < 1.5
        assert numbers[f"esm2_binding_{arm}_{over}_spearman"]["low"] > 0
        dtm = numbers[f"esm2_dTm_{arm}_{over}"]
        assert dtm["low"] < 0 < dtm["high"]
        assert numbers[f"esm2_solubility_{arm}_{over}"]["value"] > 33
        assert numbers[f"esm2_solubility_{arm}_{over}_spearman"]["high"] < 0
    assert numbers[f"esm2_solubility_initial_adapted_{over}"]["value"] > 33
    initial = numbers["esm2_unknown_text_solubility_initial_whole"]
    mean = value(record, "esm2_separator_solubility_mean_whole")
    assert initial["value"] > 2 * mean
    assert numbers["esm2_separator_solubility_initial_whole"]["low"] > mean


def test_the_two_proposals_do_not_help_each_other(record, page):
    shares = record.table("shares").query(
        "encoder == 'esm2' and size == 16 and base == 'initial_adapted'"
    )
    shares = shares.set_index(["part", "target"]).sort_index()
    binding, dtm, solubility = TARGETS
    assert "meta-training alone loses, and both together still do" in page
    assert (shares.loc[("meta", binding), "high"] < 0).all()
    assert (shares.loc[("both", binding), "high"] < 0).all()
    assert "most of it is meta-training's" in page
    assert (shares.loc[("meta", dtm), "low"] > 0).all()
    assert (shares.loc[("encoding", dtm), "low"] < 0).all()
    assert "most is the encoding's" in page
    alone = [shares.loc[(part, solubility), "gain"].to_numpy() for part in ("encoding", "meta")]
    assert (alone[0] > alone[1]).all()
    assert "lies above zero on binding affinity alone" in page
    beyond = shares.loc["interaction"]
    assert (beyond.loc[binding, "low"] > 0).all()
    assert not (beyond.loc[[dtm, solubility], "low"] > 0).any()
    assert (beyond.loc[solubility, "gain"] < 0).all(), "they overlap"
    assert "it is error that is saved, not order" in page
    assert not (shares.loc["both", "spearman_low"] > 0).any()
    assert "they do not beat it on any target" in page
    over = "separator_over_unknown_text"
    for target in SHORT:
        name = f"esm2_{target}_second_order_and_finetuned_both_{over}"
        assert record.numbers[name]["low"] < 0


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
    for _, times in record.table("times").groupby(["encoder", "encoding"]):
        seconds = times.pivot_table(index="rows", columns="method", values="seconds")
        least, most = seconds.index.min(), seconds.index.max()
        assert seconds.loc[most, "epochs"] > 0.8 * most / least * seconds.loc[least, "epochs"]
        for way in ("steps", "meta"):
            assert seconds[way].max() < 1.5 * seconds[way].min()
    assert "meta-training's error is the highest of the three" in page
    errors = record.table("times").query("encoder == 'esm2' and encoding == 'separator'")
    errors = errors.pivot_table(index="rows", columns="method", values="mse")
    assert (errors.idxmax(axis=1) == "meta").all()
