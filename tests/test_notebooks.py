"""The committed notebooks and their executed copies: pairs in step, run in order, of these records.

When a test of a copy fails after a change to a notebook, to its parameters or to a record, run
``make full-runs`` and commit ``book/runs/full``.
"""

import re

import jupytext
import nbformat
import pytest
from test_committed import CHAPTERS, FULL, NAMES, PLACE, ROOT

from mutmeta_lib.app.notebooks import (
    check_parameters,
    default_parameters,
    parse_defaults,
    profile_parameters,
    read_yaml,
)

FOLDER, COPIES = ROOT / "notebooks", ROOT / "book/runs/full"
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
VARIANT = re.compile(rf"\b[{RESIDUES}]\d+[{RESIDUES}]\b")
SEQUENCE = re.compile(rf"[{RESIDUES}]{{25,}}")
MOST_VARIANTS, LONGEST_OUTPUT, MOST_MEGABYTES = 12, 20_000, 7


def texts(value, key=""):
    """Every text in a notebook except base64 pictures."""
    if isinstance(value, str):
        return [] if key.startswith("image/png") else [value]
    if isinstance(value, dict):
        return [text for name, item in value.items() for text in texts(item, name)]
    return [text for item in value for text in texts(item)] if isinstance(value, list) else []


def tags(cell):
    return cell.metadata.get("tags", [])


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def unsound(notebook):
    """What is wrong with an executed notebook, in words."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    shown = outputs(notebook)
    places = [text[:80] for text in texts(notebook) if PLACE.search(text)]
    found = {
        "a cell was not run in order": [cell.execution_count for cell in code]
        != list(range(1, len(code) + 1)),
        "a cell ended in an error": any(one.output_type == "error" for one in shown),
        "a cell wrote to standard error": any(one.get("name") == "stderr" for one in shown),
        "there is not one cell of parameters": sum("parameters" in tags(c) for c in code) != 1,
        "it does not begin with a title": not notebook.cells[0].source.startswith("# "),
        f"it names a place of a machine: {places}": places,
    }
    return [words for words, wrong in found.items() if wrong]


def stale(executed, name, names):
    """What keeps an executed copy from being one of this notebook and these records, in words.

    ``names`` are the committed records as pages print them, ``experiment@profile digest``.
    """
    notebook, source = FOLDER / f"{name}.ipynb", at(name)
    wanted = check_parameters(notebook, profile_parameters(notebook, "full"))
    rest = [cell for cell in executed.cells if "injected-parameters" not in tags(cell)]
    given = [parse_defaults(cell.source) for cell in executed.cells if cell not in rest]
    printed = [
        one.get("text") or data.get("text/html") or data.get("text/plain") or ""
        for one in outputs(executed)
        for data in [one.get("data", {})]
    ]
    told = set(re.findall(r"Record (\w+@\w+ [0-9a-f]{12}):", "\n".join(printed)))
    code = "\n".join(cell.source for cell in source.cells if cell.cell_type == "code")
    code = re.sub(r"\.table\([\"']\w+[\"']\)", "", code)  # a record's table, not a record
    asked = {name for name in names if re.search(rf"[\"'/]{name}(\.json)?[\"']", code)}
    found = {
        "its cells are not those of the notebook": [(c.cell_type, c.source) for c in rest]
        != [(c.cell_type, c.source) for c in source.cells],
        "its parameters are not those of the profile full": given != ([wanted] if wanted else []),
        "it shows a record that is not the committed one": told - set(names.values()),
        "it does not say which record it shows": {names[name] for name in asked} - told,
        "an output may hold measured data": any(
            len(VARIANT.findall(text)) > MOST_VARIANTS
            or len(SEQUENCE.findall(text)) > 2
            or len(text) > LONGEST_OUTPUT
            for text in printed
        ),
    }
    return [words for words, wrong in found.items() if wrong]


def step(notebook):
    """What must be the same in both halves of a pair."""
    return [(cell.cell_type, cell.source, sorted(tags(cell))) for cell in notebook.cells]


def at(name, folder=FOLDER):
    return nbformat.read(folder / f"{name}.ipynb", as_version=4)


def test_every_chapter_is_a_pair_with_a_copy_and_every_record_is_shown_by_one():
    assert len(CHAPTERS) > 5
    for folder, ending in ((FOLDER, "md"), (FOLDER, "ipynb"), (COPIES, "ipynb")):
        assert sorted(path.stem for path in folder.glob(f"*.{ending}")) == sorted(CHAPTERS)
    assert sum(path.stat().st_size for path in COPIES.iterdir()) < MOST_MEGABYTES * 1e6
    words = "\n".join(path.read_text(encoding="utf-8") for path in COPIES.iterdir())
    assert [name for name in FULL if f"Record {NAMES[name]}:" not in words] == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_notebook_and_copy_are_sound_and_in_step(name):
    notebook, executed = at(name), at(name, COPIES)
    for one in (notebook, executed):
        nbformat.validate(one)
        assert unsound(one) == []
    assert step(notebook) == step(jupytext.read(FOLDER / f"{name}.md")), "run `make notebooks`"
    assert stale(executed, name, NAMES) == [], "run `make full-runs`"


KINDS, GRADES = "predict|run|explain|write|design", "easy|middle|hard"


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_ends_with_exercises_whose_solutions_ran_and_whose_checks_can_refuse(name):
    cells = at(name).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    headings = re.findall(r"^## (.+)$", text, re.M)
    assert headings[-2:] == ["What would change our mind", "Exercises"]
    found = re.findall(r"^\*\*Exercise (\d+)\.(\d+) · (.+?) · (.+?)\.\*\*", text, re.M)
    assert 3 <= len(found) == text.count("**Exercise ") <= 5
    assert [(int(a), int(b)) for a, b, *_ in found] == [
        (int(name[:2]), place) for place in range(1, len(found) + 1)
    ]
    assert all(re.fullmatch(KINDS, kind) and re.fullmatch(GRADES, how) for *_, kind, how in found)
    assert text.count("{dropdown} Hint") == len(found)
    said = {
        tag: [str([one.get("text") for one in c.outputs]) for c in cells if tag in tags(c)]
        for tag in ("exercise", "check", "solution")
    }
    assert len(said["exercise"]) >= 1
    assert said["check"]
    assert all("Not yet" in told and "Right" not in told for told in said["check"])
    assert sum("Right" in told and "Not yet" in told for told in said["solution"]) >= 1
    for cell in cells:
        if "solution" in tags(cell) and cell.cell_type == "code":
            assert "hide-cell" in tags(cell)
            assert cell.metadata["jupyter"] == {"source_hidden": True, "outputs_hidden": True}


@pytest.mark.parametrize("profile", ["quick", "full"])
@pytest.mark.parametrize("name", CHAPTERS)
def test_profiles_fit_the_parameters_of_every_notebook(profile, name):
    assert sorted(read_yaml(FOLDER / "params" / f"{profile}.yml")) == sorted(CHAPTERS)
    notebook = FOLDER / f"{name}.ipynb"
    checked = check_parameters(notebook, profile_parameters(notebook, profile))
    if profile == "quick":
        # The committed notebook shows its defaults, and the book calls them the quick profile.
        assert checked.items() <= default_parameters(notebook).items()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"# ', '"', "title"),
        ("labels", "words", "cells are not"),
        ("seeds = 5", "seeds = 4", "profile full"),
        ('"parameters"', '"else"', "one cell of parameters"),
        ('"execution_count": 2', '"execution_count": 3', "in order"),
        ('"output_type": "stream"', '"output_type": "error"', "ended in an error"),
        ('"name": "stdout"', '"name": "stderr"', "standard error"),
        (NAMES["few_shot"], "few_shot@full 0123456789ab", "not the committed one"),
        (f"Record {NAMES['few_shot']}", "", "which record"),
        ("Record few_shot", "saved /home/ada/x.csv", "/home/"),
        ("Record few_shot", "<a title='/tmp/x'>", "/tmp/"),
        ("Record few_shot", "".join(f"A{n}G 0.{n} " for n in range(40)), "measured data"),
        ("Record few_shot", f"{RESIDUES * 2} 0.5 " * 3, "measured data"),
    ],
)
def test_a_damaged_copy_is_found(old, new, told):
    text = (COPIES / "05_few_shot.ipynb").read_text(encoding="utf-8")
    assert old in text
    every = -1 if told == "which record" else 1
    damaged = nbformat.reads(text.replace(old, new, every), as_version=4)
    assert told in "; ".join(unsound(damaged) + stale(damaged, "05_few_shot", NAMES))


def test_addresses_are_no_places():
    assert not PLACE.search("https://a.org/home/x and/or a </root> b src/var/x")
