"""The committed runs: copies of the notebooks as they are, out of the records as they are.

When one of these fails after a change to a notebook, to its parameters or to a record, run
``make full-runs`` and commit ``book/runs/full``.
"""

import copy
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_output

from mutmeta_lib.app.notebooks import check_parameters, parse_defaults, profile_parameters
from mutmeta_lib.records.record import name_record, read_record

ROOT = Path(__file__).resolve().parents[1]
COPIES = ROOT / "book" / "runs" / "full"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
FILES = [TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])]
CHAPTERS = [Path(file).name for file in FILES if file.startswith("book/runs/shown/")]
RECORDS = {
    path: read_record(path)
    for folder in ("book/records/full", "benchmarks/results")
    for path in sorted((ROOT / folder).glob("*.json"))
}
NAMES = {path.stem: name_record(record) for path, record in RECORDS.items()}
PAGES = [
    *sorted((ROOT / "book").glob("[!_]*/*.md")),
    *sorted((ROOT / "book").glob("*.md")),
    *sorted((ROOT / "notebooks").glob("[0-9]*.md")),
]

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
VARIANT = re.compile(rf"\b[{RESIDUES}]\d+[{RESIDUES}]\b")
SEQUENCE = re.compile(rf"[{RESIDUES}]{{25,}}")
MOST_VARIANTS, LONGEST_OUTPUT, MOST_MEGABYTES = 12, 20_000, 7


def printed(output: NotebookNode) -> str:
    """What an output says in words."""
    data = output.get("data", {})
    return output.get("text") or data.get("text/html") or data.get("text/plain") or ""


def faults(
    executed: NotebookNode, source: NotebookNode, parameters: dict[str, Any], names: dict[str, str]
) -> list[str]:
    """What keeps an executed copy from being one of this notebook, in words.

    ``names`` are the committed records as pages print them, ``experiment@profile digest``.
    """
    found = []
    injected = [c for c in executed.cells if "injected-parameters" in c.metadata.get("tags", [])]
    rest = [cell for cell in executed.cells if cell not in injected]
    if [(c.cell_type, c.source) for c in rest] != [(c.cell_type, c.source) for c in source.cells]:
        found.append("its cells are not those of the notebook")
    set_there = [parse_defaults(cell.source) for cell in injected]
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

    for output in outputs:
        text = printed(output)
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


def test_every_chapter_has_a_committed_copy_and_no_other_is_there():
    assert len(CHAPTERS) > 5
    assert sorted(path.name for path in COPIES.iterdir()) == [f"{name}.ipynb" for name in CHAPTERS]
    assert sum(path.stat().st_size for path in COPIES.iterdir()) < MOST_MEGABYTES * 1e6


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_committed_copy_is_of_its_notebook_profile_and_records(name):
    assert faults(*read(name), NAMES) == [], "run `make full-runs`"


def test_every_full_record_is_shown_by_a_committed_copy():
    words = "\n".join(path.read_text(encoding="utf-8") for path in COPIES.glob("*.ipynb"))
    full = [name for name in NAMES.values() if "@full " in name]
    assert len(full) > 5
    assert [name for name in full if f"Record {name}:" not in words] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_number_on_a_page_is_in_a_committed_record(page):
    """Also of pages that are built only in the profile full, and without building them."""
    roles = re.findall(r"\{record(?:-plain|-percent)?\}`([^`]*)`", page.read_text(encoding="utf-8"))
    names = [(role.partition(" ")[0], role.partition(" ")[2].strip()) for role in roles]
    known = {
        f"{record.experiment}@{path.parent.name}": record.numbers
        for path, record in RECORDS.items()
    }
    assert [name for name in names if name[1] not in known.get(name[0], {})] == []


def test_the_records_page_has_a_card_and_a_command_for_every_full_record():
    page = (ROOT / "book" / "records.md").read_text(encoding="utf-8")
    full = sorted(path.stem for path in RECORDS if path.parent.name == "full")
    assert sorted(re.findall(r"^```\{record-card\} (\w+)@full$", page, re.M)) == full
    rows = re.findall(r"^\| (`.*`) \| `mutmeta run (\S+) --profile full(.*)` \|$", page, re.M)
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row[0])) == full
    for records, notebook, options in rows:
        code = (ROOT / notebook).with_suffix(".md").read_text(encoding="utf-8")
        assert [n for n in re.findall(r"`(\w+)`", records) if f'"{n}' not in code] == []
        folders = dict.fromkeys(re.findall(r"-p (\w+) \w+", options), "a folder")
        assert check_parameters(ROOT / notebook, folders) == folders


def first_output(notebook: NotebookNode, kind: str) -> NotebookNode:
    """The first output of a kind."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return next(output for output in outputs if output.output_type == kind)


def change_code(executed: NotebookNode) -> None:
    next(c for c in executed.cells if "import" in c.source).source += "\nseeds = 50"


def change_text(executed: NotebookNode) -> None:
    executed.cells[0].source += " MAML wins."


def drop_a_cell(executed: NotebookNode) -> None:
    del executed.cells[-1]


def change_a_parameter(executed: NotebookNode) -> None:
    (cell,) = [c for c in executed.cells if "injected-parameters" in c.metadata.get("tags", [])]
    cell.source = cell.source.replace("seeds = 5", "seeds = 4")


def take_the_quick_profile(executed: NotebookNode) -> None:
    tagged = [c for c in executed.cells if "injected-parameters" in c.metadata.get("tags", [])]
    executed.cells = [c for c in executed.cells if c not in tagged]


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
    rows = "".join(f"A{n}G 0.{n}\n" for n in range(40))
    first_output(executed, "stream").text += rows


def show_sequences(executed: NotebookNode) -> None:
    first_output(executed, "stream").text += f"{RESIDUES * 2} 0.5\n" * 3


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
    found = faults(damaged, source, parameters, NAMES)
    assert [fault for fault in found if told in fault]


def test_a_changed_record_makes_its_copies_stale():
    path = ROOT / "book/records/full/few_shot.json"
    other = NAMES | {path.stem: "few_shot@full 0123456789ab"}
    assert len(faults(*read("05_few_shot"), other)) == 2
