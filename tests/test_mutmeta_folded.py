"""Code cells fold, demonstrations stay open."""

import importlib.util
from pathlib import Path

import pytest
from docutils import nodes

PATH = Path(__file__).resolve().parents[1] / "book" / "_ext" / "mutmeta_folded.py"
spec = importlib.util.spec_from_file_location("mutmeta_folded", PATH)
folded = importlib.util.module_from_spec(spec)
spec.loader.exec_module(folded)


def fold(**attributes):
    doctree = nodes.section()
    cell = nodes.container(**{"nb_element": "cell_code", "classes": []} | attributes)
    doctree += cell
    folded.fold(None, doctree)
    return cell


@pytest.mark.parametrize(
    ("classes", "prompt"),
    [
        ([], "Show the code"),
        (["tag_parameters"], "Show the parameters"),
        (["tag_injected-parameters"], "Show this run’s parameters"),
    ],
)
def test_code_folds_under_a_name(classes, prompt):
    cell = fold(classes=classes)
    assert cell["hide_mode"] == "input"
    assert cell["prompt_show"] == prompt


@pytest.mark.parametrize("tag", ["nbval-check-output", "show-input"])
def test_a_demonstration_stays_open(tag):
    assert "hide_mode" not in fold(classes=[f"tag_{tag}"])


def test_other_containers_and_what_a_cell_asks_for_itself_are_left_alone():
    assert "hide_mode" not in fold(nb_element="cell_code_source")
    assert fold(hide_mode="all", prompt_show="own")["prompt_show"] == "own"


def test_a_figure_is_named_after_its_section_and_the_paragraph_that_follows():
    section = nodes.section("", nodes.title("", "Curves"))
    drawn, said = nodes.image(uri="a.png"), nodes.image(uri="b.png", alt="own words")
    section += [nodes.paragraph("", "Before."), nodes.container("", drawn, said)]
    section += nodes.paragraph("", "MAML is\nahead.")
    section += nodes.section("", nodes.title("", "Next"), nodes.image(uri="c.png"))
    doctree = nodes.container("", section)
    folded.name_figures(None, doctree)
    alts = [image["alt"] for image in doctree.findall(nodes.image)]
    assert alts == ["Figure, Curves. MAML is ahead.", "own words", "Figure, Next."]
