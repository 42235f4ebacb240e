"""Every committed record can be read, belongs to the bundled data, and names no machine."""

import json
import re
from pathlib import Path

import pytest

from mutmeta_lib.assays import read_demo
from mutmeta_lib.encoders import tiny_encoder
from mutmeta_lib.evaluate import compare
from mutmeta_lib.experiments import EXPERIMENTS
from mutmeta_lib.parameters import default_parameters, profile_parameters
from mutmeta_lib.records import read_record

ROOT = Path(__file__).parent.parent
RECORDS = sorted((ROOT / "book" / "records").glob("full/*.json"))
STEMS = {
    "encodings": "02_encoding",
    "meta_training": "04_meta_training",
    "few_shot": "05_few_shot",
    "timing": "06_timing",
}


def test_there_are_committed_records():
    assert RECORDS, "the book's longer runs show records from book/records/full"


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_is_whole_and_of_the_bundled_data(path):
    record = read_record(path)
    assert record.experiment == path.stem
    assert record.experiment in EXPERIMENTS
    assert record.profile == path.parent.name
    hashes = {assay.id: assay.sha256 for assay in read_demo()}
    assert record.data
    assert {name: hashes.get(name) for name in record.data} == record.data
    assert record.encoder["sha256"] == tiny_encoder(seed=0).sha256
    assert re.fullmatch(r"[0-9a-f]{7,40}", record.environment["commit"]), "a clean commit"
    assert len(path.read_bytes()) < 6_000_000


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_answers_the_question_its_notebook_asks(path):
    """Otherwise the full profile would compute for an hour instead of loading it."""
    record = read_record(path)
    notebook = ROOT / "notebooks" / f"{STEMS[path.stem]}.ipynb"
    asked = default_parameters(notebook) | profile_parameters(notebook, path.parent.name)
    shared = asked.keys() & record.parameters.keys()
    assert {"data_dir", "encoder", "device"} <= shared
    assert {name: asked[name] for name in shared} == {
        name: record.parameters[name] for name in shared
    }


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_names_no_place_of_a_machine(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    texts = [json.dumps(content[name]) for name in ("parameters", "environment", "encoder")]
    assert not [text for text in texts if re.search(r'"(/|~|[A-Z]:\\)', text)]


def test_the_first_page_says_what_the_record_says():
    """The sentences of the introduction that put the record's numbers into words."""
    page = (ROOT / "book" / "intro.md").read_text(encoding="utf-8")
    record = read_record(ROOT / "book" / "records" / "full" / "few_shot.json")
    numbers, results = record.numbers, record.table("results")
    assert "**comes from one of the three proteins**, TDP-43; on Aβ42 MAML is behind" in page
    ten = results[results["shots"] == 10]
    means = ten.pivot_table(index="protein", columns="method", values="spearman")
    lead = means["maml"] - means["finetune"]
    assert lead["TDP-43 290-373"] > 0.1
    assert lead["Abeta42"] < 0
    assert abs(lead["GB1"]) < 0.02
    by_protein = compare(ten, "spearman", "maml", "finetune", unit="protein").iloc[0]
    assert by_protein["low"] < 0 < by_protein["high"]
    assert "is\nfound on all three" in page
    assert (means["maml"] > means["multitask"]).all()
    for control in ("finetune", "multitask"):
        assert numbers[f"maml_minus_{control}_10_spearman"]["low"] > 0
    assert "level with ridge regression" in page
    for control in ("ridge", "onehot"):
        difference = numbers[f"maml_minus_{control}_10_spearman"]
        assert difference["low"] < 0 < difference["high"]
    assert "does\nbetter than always saying the mean of the ten labels" in page
    floor = numbers["mean_10_relative_mse"]["value"]
    for method in ("maml", "multitask", "finetune"):
        assert numbers[f"{method}_10_relative_mse"]["value"] > floor
    assert "five seeds" in page


def test_the_chapter_on_meta_training_says_what_its_record_says():
    page = (ROOT / "notebooks" / "04_meta_training.md").read_text(encoding="utf-8")
    assert "lowest within the first fifth of the run" in page
    numbers = read_record(ROOT / "book" / "records" / "full" / "meta_training.json").numbers
    for arm in ("maml", "fomaml", "multitask"):
        best = numbers[f"{arm}_best_step"]
        assert best["value"] <= best["n"] / 5


def test_the_few_shot_chapter_says_what_its_record_says():
    page = (ROOT / "notebooks" / "05_few_shot.md").read_text(encoding="utf-8")
    record = read_record(ROOT / "book" / "records" / "full" / "few_shot.json")
    assert "with twenty, plain\nfine-tuning has caught up" in page
    caught = record.numbers["maml_minus_finetune_20_spearman"]
    assert caught["low"] < 0 < caught["high"]
    results = record.table("results")
    blind = results[(results["method"] == "maml") & (results["shots"] == 0)]
    mean = blind.groupby("protein")["spearman"].mean()
    assert "TDP-43 well before" in page
    assert mean["TDP-43 290-373"] > 0.2
    assert mean["Abeta42"] < -0.1
    assert mean["GB1"] < -0.1
