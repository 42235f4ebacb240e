"""The committed record of the depths, and what its chapter says in words."""

import re
from pathlib import Path

import pytest

from mutmeta_lib.app.notebooks import default_parameters, profile_parameters
from mutmeta_lib.data.lists import read_list
from mutmeta_lib.records.record import read_record

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks" / "12_depth.ipynb"
PAGE = " ".join(NOTEBOOK.with_suffix(".md").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def record():
    return read_record(ROOT / "book" / "records" / "full" / "transfer_depth.json")


@pytest.fixture(scope="module")
def numbers(record):
    return {name.removeprefix("esm2_"): number for name, number in record.numbers.items()}


def above(number):
    return number["low"] > 0


def holds_zero(number):
    return number["low"] < 0 < number["high"]


def test_the_record_is_clean_and_of_the_listed_assays(record):
    assert set(record.data) == set(read_list("sound")["id"])
    assert re.fullmatch(r"[0-9a-f]{40}", record.environment["commit"])
    asked = default_parameters(NOTEBOOK) | profile_parameters(NOTEBOOK, "full")
    shared = (asked.keys() & record.parameters.keys()) - {"data_dir"}
    assert {"depths", "encoder", "seeds", "meta_steps"} <= shared
    assert {k: asked[k] for k in shared} == {k: record.parameters[k] for k in shared}


def test_all_cells_are_of_the_same_assays_and_all_seeds(record):
    results = record.table("results")
    ten = results[results["shots"] == 10]
    assert ten.groupby(["depth", "method"])["assay"].agg(frozenset).nunique() == 1
    rates = record.table("rates")
    assert (rates.groupby(["depth", "method", "by", "case"])["seed"].nunique() == 5).all()


def test_the_short_answer(numbers):
    assert "Depth helps, but not MAML alone" in PAGE
    for method in ("fomaml", "finetune"):
        assert above(numbers[f"{method}_all_last_1_minus_head_10"])
    assert "There MAML leads fine-tuning by" in PAGE
    for other in ("finetune", "ridge"):
        assert above(numbers[f"last_1_all_fomaml_minus_{other}_10"])
    assert "which may be none" in PAGE
    assert holds_zero(numbers["last_1_all_fomaml_minus_multitask_10"])
    assert "nothing is saved over fine-tuning" in PAGE
    assert not above(numbers["last_1_all_gain_over_finetune"])
    assert "The paper's 29 % do not come from here either" in PAGE
    assert numbers["last_1_fitness_gain_over_finetune"]["high"] < 29


def test_the_figure(numbers):
    assert "Everything that learns by gradient ranks better with the last layer" in PAGE
    for method in ("fomaml", "multitask", "finetune"):
        for other in ("head", "raw_head"):
            assert numbers[f"{method}_all_last_1_minus_{other}_10"]["value"] > 0
        assert holds_zero(numbers[f"{method}_all_head_minus_raw_head_10"])
    assert "rank worse than in the [main test]" in PAGE
    main = read_record(ROOT / "book" / "records" / "full" / "transfer.json")
    assert numbers["head_all_fomaml_10"]["value"] < main.numbers["proteins_all_fomaml_10"]["value"]
    tasks = [r["meta_steps"] * r["tasks_per_step"] for r in (main.parameters, PARAMETERS)]
    assert tasks == [960, 320], "three times as many tasks"


PARAMETERS = profile_parameters(NOTEBOOK, "full")


def test_the_tables(numbers):
    assert "that of the jointly trained start holds it against *head*" in PAGE
    assert holds_zero(numbers["multitask_all_last_1_minus_head_10"])
    assert "MAML leads nothing but fine-tuning on raw vectors" in PAGE
    for depth in ("head", "raw_head"):
        leads = {
            other
            for other in ("finetune", "multitask", "ridge", "onehot")
            if above(numbers[f"{depth}_all_fomaml_minus_{other}_10"])
        }
        assert leads == ({"finetune"} if depth == "raw_head" else set())
    assert "it is *behind* the jointly trained start" in PAGE
    assert numbers["head_all_fomaml_minus_multitask_10"]["high"] < 0
    assert holds_zero(numbers["last_1_all_fomaml_minus_onehot_10"])
    assert "over all assays MAML saves nothing over fine-tuning at any depth" in PAGE
    for depth in ("head", "raw_head", "last_1"):
        assert not above(numbers[f"{depth}_all_gain_over_finetune"])
    assert "it errs more than the jointly trained start" in PAGE
    assert numbers["last_1_all_gain_over_multitask"]["high"] < 0


def test_the_costs_and_limits(record):
    spent = record.seconds
    meta = spent["esm2, last-1, meta_training_fomaml"] / spent["esm2, head, meta_training_fomaml"]
    assert 70 < meta < 130, "about a hundred times"
    assert 14 < spent["esm2, last-1, tuning"] / spent["esm2, head, tuning"] < 26, "about twenty"
    history = record.table("history")
    loss = history[history["method"] == "fomaml"].groupby(["depth", "step"])["validation_loss"]
    for _, falling in loss.mean().groupby(level=0):
        assert falling.idxmin()[1] == falling.index[-1][1] == 40
    outer = record.table("outer_rates")
    best = outer.loc[outer.groupby(["depth", "method", "case"])["validation_loss"].idxmin()]
    assert "The larger of the two pairs of rates was chosen everywhere" in PAGE
    assert (best["inner_lr"] == outer["inner_lr"].max()).all()


def test_the_first_page(numbers):
    page = " ".join((ROOT / "book" / "intro.md").read_text(encoding="utf-8").split())
    assert "fine-tuning gains as MAML does, and the 29 % do not come back" in page
    for method in ("fomaml", "finetune"):
        assert above(numbers[f"{method}_all_last_1_minus_head_10"])
    for group in ("all", "fitness"):
        assert numbers[f"last_1_{group}_gain_over_finetune"]["high"] < 29
    encodings = read_record(ROOT / "book" / "records" / "full" / "transfer_encodings.json").numbers
    assert "from the vector of the wild-type residue at the mutated site, everything ranks" in page
    for method in ("maml", "multitask", "finetune", "ridge"):
        other = encodings[f"all_first_minus_unknown_text_sites_{method}"]
        assert other["high"] < 0
