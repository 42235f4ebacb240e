"""Every committed record can be read, belongs to the bundled data, and names no machine."""

import json
import re
from pathlib import Path

import pytest
from draw_scorecard import claims, read_records

from mutmeta_lib.app.notebooks import default_parameters, profile_parameters
from mutmeta_lib.data.folders import read_data_dir
from mutmeta_lib.models.encoders import tiny_encoder
from mutmeta_lib.records.record import read_record
from mutmeta_lib.study.estimates import contrast

ROOT = Path(__file__).parent.parent
ALL = sorted((ROOT / "book" / "records").glob("full/*.json"))
ELSEWHERE = {"audit", "held_out", "protocol", "protocols", "speed", "swap"}
ELSEWHERE |= {"transfer", "transfer_depth", "transfer_encodings"}
RECORDS = [path for path in ALL if path.stem not in ELSEWHERE]
"""Records of experiments on the bundled data; the others are of files that are not bundled."""
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
    assert record.profile == path.parent.name
    hashes = {assay.id: assay.sha256 for assay in read_data_dir()}
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


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_record_names_no_place_of_a_machine(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    texts = [json.dumps(content[name]) for name in ("parameters", "environment", "encoder")]
    assert not [text for text in texts if re.search(r'"(/|~|[A-Z]:\\)', text)]


def first_page():
    """The introduction with its lines joined."""
    return " ".join((ROOT / "book" / "intro.md").read_text(encoding="utf-8").split())


def test_the_first_page_says_what_the_record_says():
    """The sentences of the introduction that put the record's numbers into words."""
    page = first_page()
    record = read_record(ROOT / "book" / "records" / "full" / "few_shot.json")
    numbers, results = record.numbers, record.table("results")
    assert "**comes from one of the three proteins**, TDP-43; on Aβ42 MAML is behind" in page
    ten = results[results["shots"] == 10]
    means = ten.pivot_table(index="protein", columns="method", values="spearman")
    lead = means["maml"] - means["finetune"]
    assert lead["TDP-43 290-373"] > 0.1
    assert lead["Abeta42"] < 0
    assert abs(lead["GB1"]) < 0.02
    ten = ten[ten["method"].isin(["maml", "finetune"])]
    by_protein = contrast(ten, "spearman", "method", "maml", over="protein").iloc[0]
    assert by_protein["low"] < 0 < by_protein["high"]
    assert "is found on all three" in page
    assert (means["maml"] > means["multitask"]).all()
    for control in ("finetune", "multitask"):
        assert numbers[f"maml_minus_{control}_10_spearman"]["low"] > 0
    assert "level with ridge regression" in page
    for control in ("ridge", "onehot"):
        difference = numbers[f"maml_minus_{control}_10_spearman"]
        assert difference["low"] < 0 < difference["high"]
    assert "does better than always saying the mean of the ten labels" in page
    floor = numbers["mean_10_relative_mse"]["value"]
    for method in ("maml", "multitask", "finetune"):
        assert numbers[f"{method}_10_relative_mse"]["value"] > floor
    assert "five seeds" in page


def test_the_verdicts_of_the_first_page_follow_the_criteria():
    page = first_page()
    folder = ROOT / "book" / "records" / "full"
    names = ("protocol", "speed", "transfer", "transfer_encodings")
    protocol, speed, transfer, encodings = (
        read_record(folder / f"{name}.json").numbers for name in names
    )
    assert "Not reproduced in any arm" in page
    fitness = transfer["proteins_fitness_gain_over_finetune_mse"]
    assert fitness["low"] <= 0 <= fitness["high"] < 0.29
    assert "helps to rank, a little, where meta-training has seen the property" in page
    lead = {c: transfer[f"proteins_all_maml_minus_{c}_10"] for c in ("finetune", "multitask")}
    assert lead["finetune"]["low"] > 0
    assert lead["multitask"]["low"] > 0
    assert "More than half of the lead over fine-tuning is that of a start" in page
    assert lead["multitask"]["value"] < lead["finetune"]["value"] / 2
    assert "lead over ridge regression on one-hot sequences is not certain" in page
    onehot = transfer["proteins_all_maml_minus_onehot_10"]
    assert onehot["low"] <= 0 < onehot["value"]
    new = transfer["properties_all_maml_minus_finetune_10"]
    assert new["low"] < 0 < new["high"]
    for other in ("unknown_text", "unknown_site", "mutant"):
        assert encodings[f"all_first_minus_{other}_sites_maml"]["value"] < 0
    assert encodings["all_first_minus_unknown_text_cls_maml"]["low"] > 0
    assert transfer["rapid_share"]["value"] < 0.9
    for arm in ("released", "first_order", "second_order"):
        assert protocol[f"esm2_separator_binding_{arm}_same_labels"]["high"] < 29
        assert protocol[f"esm2_separator_binding_{arm}_same_labels"]["low"] <= 0
    assert "Not reproduced, not excluded" in page
    saved = speed["saved_maml_10_fitness"]
    assert saved["low"] <= 0 < 0.65 <= saved["high"]
    assert speed["saved_maml_10_solubility"]["n"] == 6
    assert speed["rapid_maml_share"]["value"] < 0.9
    ours = protocol["esm2_separator_solubility_second_order_reported"]
    itself = protocol["esm2_separator_solubility_finetuned_reported"]
    assert ours["low"] < itself["value"] < ours["high"]


def test_the_verdict_on_each_figure_is_that_of_the_scorecard():
    page = (ROOT / "book" / "intro.md").read_text(encoding="utf-8")
    found = re.findall(r"\{grid-item-card\} (.+?)\n.*?\{card-footer\}\n(.+?)\n", page, re.S)
    drawn = claims(read_records()).groupby("claim")["verdict"].first()
    drawn = {claim.split(" %")[0]: said for claim, said in drawn.items()}
    cards = {title.split(" %")[0]: said for title, said in found if " %" in title}
    assert cards.keys() == drawn.keys()
    for claim, said in cards.items():
        assert said.lower().split(":")[0] == drawn[claim]
    assert len(found) == 7
    assert "none of the paper's four figures was reproduced" in first_page()
    assert not {"reproduced", "partly"} & set(drawn.values())


def test_the_readme_says_what_the_records_say():
    page = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    numbers = read_record(ROOT / "book" / "records" / "full" / "transfer.json").numbers
    assert "by a few hundredths of Spearman correlation" in page
    for control in ("finetune", "multitask", "ridge"):
        lead = numbers[f"proteins_all_maml_minus_{control}_10"]
        assert lead["low"] > 0
        assert 0.02 < lead["value"] < 0.08
    assert (
        "one-hot sequences, which learns from the ten labels alone, the lead is not certain" in page
    )
    assert numbers["proteins_all_maml_minus_onehot_10"]["low"] < 0
    assert "where the property is new as well there is none" in page
    for control in ("finetune", "multitask", "ridge", "onehot"):
        assert numbers[f"properties_all_maml_minus_{control}_10"]["low"] < 0
    assert "none of the paper's four figures was reproduced" in page


def test_the_chapter_on_meta_training_says_what_its_record_says():
    page = (ROOT / "notebooks" / "04_meta_training.md").read_text(encoding="utf-8")
    assert "lowest within the first fifth of that run" in page
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


AUDIT = ROOT / "book" / "records" / "full" / "audit.json"


def test_the_audit_names_its_numbers_and_files():
    page = (ROOT / "notebooks" / "07_audit.md").read_text(encoding="utf-8")
    record = read_record(AUDIT)
    named = re.findall(r"\{record\}`audit@full (\w[^`]*)`", page)
    assert len(named) > 20
    assert not [name for name in named if name not in record.numbers]
    assert re.search(r"^profile = \"quick\"$", page, re.M)
    files = record.table("files")["table"]
    missing = set(record.table("missing")["table"])
    assert set(files) <= set(record.data)
    assert missing == {
        "combined_ddG_raw",
        "functional_fitness_raw",
        "soluprotmut_solubility_train",
        "soluprotmut_solubility_raw",
    }


def test_the_audit_chapter_says_in_words_what_its_record_says():
    page = " ".join((ROOT / "notebooks" / "07_audit.md").read_text(encoding="utf-8").split())
    record = read_record(AUDIT)
    numbers = {name: number["value"] for name, number in record.numbers.items()}

    assert "against 548 to 4255" in page
    rows = [numbers[f"{name}_test_rows"] for name in ("fireprot_dTm", "binding_affinity")]
    assert [*rows, numbers["soluprotmut_solubility_test_rows"]] == [548, 4255, 3214]

    assert "but for 25 rows, log10 K50 of trypsin of 64 domains" in page
    found = record.table("directions").set_index(["table", "source"])
    raw = found.loc["binding_affinity_raw"]
    assert raw[~raw["backwards"]]["rows"].tolist() == [25]
    assert raw["backwards"].sum() == 64
    assert "5 test rows of binding_affinity" in page
    test = found.loc["binding_affinity_test"]
    assert test[~test["backwards"]]["rows"].tolist() == [5]

    texts = record.table("texts").query("form == 'spaced'").set_index("table")
    assert "no row of the other files does" in page
    several = record.table("files").set_index("table")["several_mutations"]
    assert several[several > 0].index.tolist() == ["soluprotmut_solubility_test"]
    assert "none of the second ones is marked in its place" in page
    solubility = texts.loc["soluprotmut_solubility_test"]
    assert solubility["astray"] == 0
    assert solubility["in place"] + solubility["rows_as_words"] == solubility["rows"]
    assert "about one row in ten of the dTm files" in page
    for part in ("train", "test"):
        assert 7 < numbers[f"fireprot_dTm_{part}_as_words"] < 12

    assert "About half of the dTm test rows" in page
    assert 45 < numbers["fireprot_dTm_test_in_initial"] < 55
    assert "Of the solubility test rows three are there" in page
    seen = record.table("agreement").groupby("table")["rows"].sum()
    assert seen["soluprotmut_solubility_test"] == 3

    backwards = record.numbers["reference_backwards_rows"]
    assert backwards["value"] == backwards["n"] > 0
    assert record.numbers["reference_backwards_wild_types"]["value"] > 0
    assert "none of the true wild types occurs" in page
    assert numbers["reference_clash_wild_types"] == 0
    assert "given one sequence" in page
    assert numbers["clash_sequences"] == 1

    assert "No variant is in both parts" in page
    shared = record.table("shared")
    assert (shared["same_rows"] == 0).all()
    assert "nearly every test row is of a protein that is in training" in page
    assert (shared["wild_type_rows"] / shared["test_rows"] > 0.99).all()
    assert "most often at a position that is in training" in page
    assert (shared["site_rows"] / shared["test_rows"] >= 0.5).all()

    proline = {name: record.numbers[f"proline_{name}"] for name in ("deltag_t", "ddG", "ddg_stat")}
    assert proline["deltag_t"]["high"] < 0 < proline["ddG"]["low"]
    assert proline["ddg_stat"]["low"] < 0 < proline["ddg_stat"]["high"]
    assert numbers["BLAT_ECOLX_Deng_2012_reference"] == -1
    assert "no difference at all" in page
    assert record.table("scaling")["from_raw"].max() == 0

    queries = record.table("queries").set_index(["table", "query_rows"])
    at_16 = queries.loc[("soluprotmut_solubility_test", 16)]
    assert "come out near a tenth" in page
    assert 0.05 < at_16["q50"] < 0.15
    assert "about a quarter less error" in page
    assert 0.7 < at_16["skilled_relative"] < 0.8
    assert "the median error on solubility is still less than half" in page
    assert queries.loc[("soluprotmut_solubility_test", 128), "q50"] < 0.5
    assert "On binding_affinity the answers scatter around 1" in page
    assert 0.9 < queries.loc[("binding_affinity_test", 16), "q50"] < 1.1
