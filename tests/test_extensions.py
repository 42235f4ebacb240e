"""The book's own Sphinx extensions: numbers come from records or the build fails; code folds."""

import json
import re
from html import unescape
from pathlib import Path

import mutmeta_book as book
import mutmeta_claims
import mutmeta_folded as folded
import pytest
from docutils import nodes
from hypothesis import given
from hypothesis import strategies as st
from sphinx.testing.util import SphinxTestApp

from mutmeta_lib.errors import DataError
from mutmeta_lib.records.record import Record, number, write_record

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (number(0.43219, 0.312, 0.5541), "0.43 [0.31, 0.55]"),
        (number(0.43219, 0.4312, 0.4331), "0.43219 [0.43120, 0.43310]"),
        (number(-0.0021, -0.31, 0.29), "0.00 [\u22120.31, 0.29]"),
        (number(-1.5, -2.5, -0.5), "\u22121.5 [\u22122.5, \u22120.5]"),
        (number(1234.5, 1100.0, 1400.0, 5, "s"), "1234 [1100, 1400]\u00a0s"),
        (number(0.5, 0.5, 0.5), "0.500 [0.500, 0.500]"),
        (number(24), "24"),
        (number(0.0), "0"),
        (number(3.14159, unit="s"), "3.14\u00a0s"),
        (number(0.00012345), "0.000123"),
        (number(float("nan")), "not defined"),
    ],
)
def test_numbers_are_rounded_to_what_the_interval_supports(given, text):
    assert book.format_number(given) == text


@given(st.floats(-1e5, 1e5), st.floats(1e-6, 1e4))
def test_rounding_error_is_small_against_the_interval(value, half):
    shown = book.format_number(number(value, value - half, value + half))
    printed = float(shown.split(" ")[0].replace(book.MINUS, "-"))
    assert abs(printed - value) <= max(0.051 * half, 0.5 * (half > 10)) + 1e-9


def make_record(**changes) -> Record:
    fields = {
        "experiment": "few_shot",
        "profile": "full",
        "parameters": {"seeds": 2, "shots": [0, 5]},
        "data": {"a": "0" * 64, "b": "1" * 64},
        "encoder": {"name": "tiny", "sha256": "abcdef0123456789", "provenance": {"seed": 0}},
        "environment": {
            "python": "3.11.7",
            "device": "CPU, some kind",
            "threads": 1,
            "packages": {"torch": "2.13.0"},
            "commit": "0123abc",
        },
        "seconds": {"meta_training": 12.345},
        "peak_memory_mb": 321.0,
        "created": "2026-11-23T10:00:00+00:00",
        "numbers": {
            "maml_10_spearman": number(0.4321, 0.31, 0.55, 24),
            "share": number(0.382, -0.13, 0.75, 24, "of the time"),
        },
        "tables": {},
    }
    return Record(**(fields | changes))


def build(tmp_path: Path, page: str, record: Record | None) -> tuple[str, str]:
    """Build one page; returns its html and the warnings, any of which fails the book under -W."""
    source = tmp_path / "source"
    source.mkdir()
    extensions = ["myst_parser", "mutmeta_book", "mutmeta_claims"]
    (source / "conf.py").write_text(f"extensions = {extensions}\n")
    (source / "index.md").write_text(f"# Title\n\n{page}\n")
    if record is not None:
        write_record(record, source / "book/records/full/few_shot.json")
    app = SphinxTestApp("html", srcdir=source, freshenv=True)
    try:
        app.build()
        html = unescape((app.outdir / "index.html").read_text())
        return html, app.warning.getvalue()
    finally:
        app.cleanup()


def test_roles_print_number_interval_and_origin_and_claims_do_not_show(tmp_path):
    page = (
        "It is {record}`few_shot@full maml_10_spearman`.\n"
        "<!-- holds: few_shot.maml_10_spearman.low > 0 -->\n\n"
        "{record-plain}`few_shot@full share` or {record-percent}`few_shot@full share`."
    )
    record = make_record()
    html, warnings = build(tmp_path, page, record)
    assert not warnings
    assert "0.43 [0.31,\u00a00.55]</abbr>." in html
    assert f"maml_10_spearman, n = 24; record few_shot@full {record.digest}" in html
    assert "0.38 [\u22120.13,\u00a00.75]</abbr>" in html
    assert "38 [\u221213,\u00a075]\u00a0%</abbr>." in html
    assert html.count("share, n = 24; record few_shot@full") == 2
    assert "holds" not in html


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("{record}`few_shot@full maml_11_spearman`", "it has maml_10_spearman"),
        ("{record}`few_shot@quick maml_10_spearman`", "there is no such record"),
        ("{record}`few_shot maml_10_spearman`", "write experiment@profile"),
        ("```{record-card} few_shot@quick\n```", "there is no such record"),
        ("<!-- holds: few_shot.maml_10_spearman.low > 1 -->", "does not hold"),
        ("<!-- holds: few_shot.maml_11_spearman > 0 -->", "cannot be asked"),
    ],
)
def test_what_no_record_holds_fails_the_build(tmp_path, page, told):
    _, warnings = build(tmp_path, page, make_record())
    assert "ERROR" in warnings
    assert told in warnings


def test_claims_are_taken_out_of_notebooks_too():
    cells = [
        {"cell_type": "markdown", "source": ["A.\n", "<!-- holds: 1 > 0 -->\n", "\n", "B."]},
        {"cell_type": "code", "source": ["x = 1"]},
    ]
    source = [json.dumps({"cells": cells, "metadata": {}})]
    app = type("App", (), {"srcdir": str(ROOT)})
    mutmeta_claims.check(app, "page", source)
    left = ["".join(cell["source"]) for cell in json.loads(source[0])["cells"]]
    assert left == ["A.\n\nB.", "x = 1"]


def test_an_edited_record_fails_the_build(tmp_path):
    path = tmp_path / "book/records/full/few_shot.json"
    write_record(make_record(), path)
    path.write_text(path.read_text().replace("0.4321", "0.9321"))
    with pytest.raises(DataError, match="changed"):
        book.find_record(tmp_path, "few_shot@full")


def test_the_card_tells_where_a_record_comes_from(tmp_path):
    html, warnings = build(tmp_path, "```{record-card} few_shot@full\n```", make_record())
    assert not warnings
    for told in [
        f"Record few_shot@full {make_record().digest}",
        "book/records/full/few_shot.json",
        "seeds = 2, shots = [0, 5]",
        "2 assays",
        "tiny, sha256 abcdef012345, seed 0",
        "Python 3.11.7, torch 2.13.0",
        "0123abc",
        "CPU, some kind, 1 threads",
        "2026-11-23T10:00:00+00:00",
        "meta_training 12.3",
    ]:
        assert told in html, told


def test_launch_addresses_open_the_committed_notebook():
    buttons = [
        {"type": "link", "url": "https://a.org/blob/main/book/runs/shown/01_data.ipynb"},
        {"buttons": [{"url": "https://b.org/main?urlpath=tree%2Fbook%2Fruns%2Fshown%2F01.ipynb"}]},
        {"url": "../../_sources/book/runs/shown/01_data.ipynb"},
    ]
    book.rewrite_urls(buttons)
    assert buttons == [
        {"type": "link", "url": "https://a.org/blob/main/notebooks/01_data.ipynb"},
        {"buttons": [{"url": "https://b.org/main?urlpath=tree%2Fnotebooks%2F01.ipynb"}]},
        {"url": "../../_sources/book/runs/shown/01_data.ipynb"},
    ]


def test_the_api_page_lists_every_module():
    library = ROOT / "mutmeta_lib"
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in library.rglob("*.py")
    }
    listed = re.findall(r"automodule:: ([\w.]+)", book.list_rooms(library))
    assert sorted(listed) == sorted(modules - {"mutmeta_lib", "mutmeta_lib.cli"})
    assert "% rooms\n" in (ROOT / "book/api.md").read_text()


@pytest.mark.parametrize(
    ("attributes", "prompt"),
    [
        ({}, "Show the code"),
        ({"classes": ["tag_parameters"]}, "Show the parameters"),
        ({"classes": ["tag_injected-parameters"]}, "Show this run’s parameters"),
        ({"classes": ["tag_nbval-check-output"]}, None),
        ({"classes": ["tag_show-input"]}, None),
        ({"nb_element": "cell_code_source"}, None),
        ({"hide_mode": "all", "prompt_show": "own"}, "own"),
    ],
)
def test_code_folds_under_a_name_and_a_demonstration_stays_open(attributes, prompt):
    doctree = nodes.section()
    cell = nodes.container(**{"nb_element": "cell_code", "classes": []} | attributes)
    doctree += cell
    folded.fold(None, doctree)
    assert cell.get("prompt_show") == prompt
    assert cell.get("hide_mode") == ("input" if prompt and "Show" in prompt else
                                     attributes.get("hide_mode"))  # fmt: skip


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
