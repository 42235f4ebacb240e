"""The book's extensions: numbers and claims come from records or the build fails; code folds."""

import json
import re
from html import unescape
from pathlib import Path

import mutmeta_book as book
import mutmeta_claims
import mutmeta_folded as folded
import pandas as pd
import pytest
from docutils import nodes
from hypothesis import given
from hypothesis import strategies as st
from mutmeta_claims import claims, faults
from sphinx.testing.util import SphinxTestApp

from mutmeta_lib.records.record import Record, number, write_record

ROOT = Path(__file__).resolve().parents[1]
TOY = "book/records/full/few_shot.json"
NUMBERS = {
    "maml_10": number(0.4321, 0.31, 0.55, 24),
    "share": number(0.382, -0.13, 0.75, 24, "of the time"),
    "never": number(float("nan")),
    "a": number(0.2, 0.1, 0.3, 24),
    "b": number(0.1, -0.1, 0.4),
    "noise 0.3": number(3),
}
ROWS = pd.DataFrame({"x": [1, 2, 2], "y": [4.0, 3.0, 1.0], "kind": list("ppq")})
ENDS = {"mean": [0.2, 0.5, 0.7], "low": [0.1, 0.4, 0.6], "high": [0.3, 0.6, 0.8], "n_assays": 9}
RECORD = Record(
    experiment="few_shot", profile="full", parameters={"seeds": 2, "shots": [0, 5]},
    data={"a": "0" * 64, "b": "1" * 64}, numbers=NUMBERS,
    environment={"python": "3.11.7", "device": "CPU, some kind", "threads": 1,
                 "packages": {"torch": "2.13.0"}, "commit": "0123abc"},
    encoder={"name": "tiny", "sha256": "abcdef0123456789", "provenance": {"seed": 0}},
    seconds={"meta_training": 12.345}, peak_memory_mb=321.0,
    tables={"rows": ROWS, "means": ROWS.assign(**ENDS)},
    created="2026-11-23T10:00:00+00:00",
)  # fmt: skip


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (number(0.43219, 0.312, 0.5541), "0.43 [0.31, 0.55]"),
        (number(-0.0021, -0.31, 0.29), "0.00 [\u22120.31, 0.29]"),
        (number(1234.5, 1100.0, 1400.0, 5, "s"), "1234 [1100, 1400]\u00a0s"),
        (number(24), "24"),
        (number(54, 52, 56), "54 [52, 56]"),
        (number(3.14159, unit="s"), "3.14\u00a0s"),
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


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("book")
    write_record(RECORD, folder / TOY)
    return folder


def build(source: Path, page: str) -> tuple[str, str]:
    """Build one page; returns its html and the warnings, any of which fails the book under -W."""
    extensions = ["myst_parser", "mutmeta_book", "mutmeta_claims", "mutmeta_glossary"]
    (source / "conf.py").write_text(f"extensions = {extensions}\n")
    (source / "index.md").write_text(f"# Title\n\n{page}\n")
    app = SphinxTestApp("html", srcdir=source, freshenv=True)
    try:
        app.build()
        return unescape((app.outdir / "index.html").read_text()), app.warning.getvalue()
    finally:
        app.cleanup()


def test_roles_and_cards_print_numbers_and_where_they_come_from_and_claims_do_not_show(root):
    page = (
        "It is {record}`few_shot@full maml_10`.\n<!-- holds: few_shot.maml_10.low > 0 -->\n\n"
        "{record}`few_shot@full means[x == 2 and kind == 'q']`, "
        "{record-plain}`few_shot@full share` or {record-percent}`few_shot@full share`.\n\n"
        "```{record-card} few_shot@full\n```"
    )
    html, warnings = build(root, page)
    assert not warnings
    wanted = (
        "0.43 [0.31,\u00a00.55]</abbr>.", "0.70 [0.60,\u00a00.80]", "n = 9",
        f"maml_10, n = 24; record few_shot@full {RECORD.digest}",
        "0.38 [\u22120.13,\u00a00.75]</abbr>", "38 [\u221213,\u00a075]\u00a0%</abbr>.", TOY,
        f"Record few_shot@full {RECORD.digest}", "seeds = 2, shots = [0, 5]", "2 assays", "0123abc",
        "tiny, sha256 abcdef012345, seed 0", "Python 3.11.7, torch 2.13.0", RECORD.created,
        "CPU, some kind, 1 threads", "meta_training 12.3",
    )  # fmt: skip
    assert [told for told in wanted if told not in html] == []
    assert html.count("share, n = 24; record few_shot@full") == 2
    assert "holds" not in html


def test_a_card_tells_of_arms_what_they_share_once_and_of_long_lists_their_number():
    arms = {"a": {"seeds": 5, "cap": 0}, "b": {"seeds": 5, "cap": 9}}
    assert book.told({"arms": arms}) == "seeds = 5; a: cap = 0; b: cap = 9"
    assert book.told({"arms": {"a": {"ids": [0] * 300}}}) == "ids = 300 of them; a: "
    assert book.told({"shots": [0, 5], "list": "sound"}) == 'shots = [0, 5], list = "sound"'


def test_what_no_record_holds_fails_the_build(root):
    wanting = {
        "{record}`few_shot@full maml_11`": "it has maml_10",
        "{record}`few_shot@full means[x == 2]`": "are 2 rows",
        "{record}`few_shot@full means[z == 2]`": "cannot be asked",
        "{record}`few_shot@full mean[x == 2]`": "cannot be asked",
        "{record}`few_shot@full rows[x == 1]`": "cannot be asked",
        "{record}`few_shot@quick maml_10`": "there is no such record",
        "{record}`few_shot maml_10`": "write experiment@profile",
        "```{record-card} few_shot@quick\n```": "there is no such record",
        "<!-- holds: few_shot.maml_10.low > 1 -->": "does not hold",
        "<!-- holds: few_shot.maml_11 > 0 -->": "cannot be asked",
    }
    _, warnings = build(root, "\n\n".join(wanting))
    assert warnings.count("ERROR") == len(wanting)
    for told in set(wanting.values()):
        assert warnings.count(told) == list(wanting.values()).count(told)


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        ("0.05 < few_shot.a.low < few_shot.a < few_shot.a.high < 0.4 and few_shot.a.n == 24", ""),
        ("few_shot.parameters.seeds == 2 and not 0 in few_shot.a and 0 in few_shot.b", ""),
        ("few_shot.seconds['meta_training'] > 12 or few_shot.a > 1", ""),
        ("few_shot['noise 0.3'] == 3 and few_shot.never is None", ""),
        ("abs(-2) + max(few_shot.rows.x) / 2 - 1 * 2 == 1", ""),
        ("distinct(few_shot.rows.kind) == 2 and size(few_shot.rows.kind) == 3", ""),
        ("few_shot.rows[x == 2 and not kind == 'p'].y == 1", ""),
        ("few_shot.rows[x > 1](y <= 3 and x == 2)", ""),
        ("0.55 in few_shot.means[x == 2 and kind == 'p']", ""),
        ("0.55 in few_shot.means[x == 2]", "does not hold"),
        ("0 in few_shot.a", "does not hold"),
        ("few_shot.{b,a} > 0.15", "does not hold: few_shot.b"),
        ("few_shot.rows[kind == 'p'].y > 3", "does not hold"),
        ("few_shot.a", "does not hold"),  # a number is no claim
        ("few_shot.c > 0", "no table 'c'"),
        ("few_shots.a > 0", "no such record"),
        ("few_shot.rows[x == 3].y > 0", "no such row"),
        ("few_shot.a.mean > 0", "'mean'"),
        ("few_shot.a >", "invalid syntax"),
        ("few_shot.never > 0", "NoneType"),
        ("__import__('os').getcwd() == ''", "__import__"),
        ("(lambda: 1)() == 1", "no part of a claim"),
    ],
)
def test_a_true_claim_holds_and_a_false_or_unfounded_one_is_found(claim, told, root):
    found = "".join(faults(f"So.\n<!-- holds: {claim} -->\n", root))
    assert told in found
    assert bool(told) == bool(found)


def test_claims_stand_in_comments_and_are_taken_out_of_notebooks_too():
    text = (
        "A.\n<!-- holds: a.{b, c} > 1 -->\n\n- B.\n  <!-- holds:\n  d.e\n  f.g\n  -->\n<!-- h -->"
    )
    assert list(claims(text)) == ["a.b > 1", "a. c > 1", "d.e", "f.g"]
    cells = [
        {"cell_type": "markdown", "source": ["A.\n", "<!-- holds: 1 > 0 -->\n", "\n", "B."]},
        {"cell_type": "code", "source": ["x = 1"]},
    ]
    source = [json.dumps({"cells": cells, "metadata": {}})]
    mutmeta_claims.check(type("App", (), {"srcdir": str(ROOT)}), "page", source)
    left = ["".join(cell["source"]) for cell in json.loads(source[0])["cells"]]
    assert left == ["A.\n\nB.", "x = 1"]


def test_launch_addresses_open_the_committed_notebook():
    for url, wanted in (
        ("https://a.org/main/book/runs/shown/01.ipynb", "https://a.org/main/notebooks/01.ipynb"),
        (
            "https://b.org/?%2Fbook%2Fruns%2Fshown%2F1.ipynb",
            "https://b.org/?%2Fnotebooks%2F1.ipynb",
        ),
        ("../../_sources/book/runs/shown/01.ipynb", "../../_sources/book/runs/shown/01.ipynb"),
    ):
        buttons = [{"buttons": [{"url": url}]}]
        book.rewrite_urls(buttons)
        assert buttons == [{"buttons": [{"url": wanted}]}]


def test_the_api_page_lists_every_module():
    paths = [path.relative_to(ROOT) for path in (ROOT / "mutmeta_lib").rglob("*.py")]
    modules = {".".join(p.with_suffix("").parts).removesuffix(".__init__") for p in paths}
    page = book.list_rooms(ROOT / "mutmeta_lib")
    listed = re.findall(r"automodule:: ([\w.]+)", page)
    assert sorted(listed) == sorted(modules - {"mutmeta_lib", "mutmeta_lib.cli"})
    assert "cli_train\n```" in page, "a command's options are no signature"
    assert "learn.train\n   :members:\n" in page
    assert "% rooms\n" in (ROOT / "book/api.md").read_text()


@pytest.mark.parametrize(
    ("attributes", "source", "prompt"),
    [
        ({}, "figures.curve(record.table('history'))", "Show the code"),
        ({"classes": ["tag_parameters"]}, "shots = 10", "Show the parameters"),
        ({"classes": ["tag_injected-parameters"]}, "shots = 5", "Show this run’s parameters"),
        ({"classes": ["tag_nbval-check-output"]}, "print(1)", None),
        ({}, "study = Study(shots=shots)", None),
        ({}, "from mutmeta_lib.study.study import Study", "Show the code"),
        ({"classes": ["tag_exercise"]}, "def mine(): ...", None),
        ({"hide_mode": "all", "classes": ["tag_solution"]}, "Study(1)", "Show the solution"),
    ],
)
def test_code_folds_under_a_name_and_what_is_asked_stays_open(attributes, source, prompt):
    cell = nodes.container(**{"nb_element": "cell_code", "classes": []} | attributes)
    cell += [nodes.literal_block("", source), nodes.literal_block("", "InnerLoop(steps=5)")]
    folded.fold(None, nodes.section("", cell))
    assert cell.get("prompt_show") == prompt
    assert cell.get("hide_mode") == attributes.get("hide_mode", "input" if prompt else None)


def test_a_figure_is_named_after_its_section_and_the_paragraph_that_follows():
    section = nodes.section("", nodes.title("", "Curves"))
    drawn, said = nodes.image(uri="a.png"), nodes.image(uri="b.png", alt="own words")
    section += [nodes.paragraph("", "Before."), nodes.container("", drawn, said)]
    section += nodes.paragraph("", "MAML is\nahead.")
    several = [nodes.image(uri="c.png"), nodes.image(uri="d.png")]
    long = nodes.paragraph("", "No. " + folded.LONGEST * "long ")
    section += nodes.section("", nodes.title("", "Why?"), *several, long)
    doctree = nodes.container("", section)
    folded.name_figures(None, doctree)
    alts = [image["alt"] for image in doctree.findall(nodes.image)]
    assert alts == [
        *("Figure, Curves. MAML is ahead.", "own words"),
        *("Figure 1 of 2, Why? No.", "Figure 2 of 2, Why? No."),
    ]


def test_the_first_use_of_a_term_in_prose_links_to_the_glossary(tmp_path):
    terms = "Few-shot\n  A.\n\nQuery\nQuery set\n  B, few-shot.\n\nWild type\n  C.\n\nFitness\n  D."
    (tmp_path / "terms.md").write_text(f"# Terms\n\n```{{glossary}}\n{terms}\n```\n")
    page = (
        "```{toctree}\nterms\n```\n\n## Fitness\n\n`fitness` [fitness](terms.md) "
        "{math}`fitness`\n\n| Fitness |\n|---|\n| no-query |\n\nWild-type *query\nsets*, fitness, "
        "queryable. Few-shot tasks, a query set, a wild type, a query.\n"
    )
    html, warnings = build(tmp_path, page)
    assert not warnings
    linked = r'<a class="reference internal" href="([^"]+)"><span class="glossary-term">([^<]+)'
    assert re.findall(linked, html) == [
        ("terms.html#term-Wild-type", "Wild-type"),
        ("terms.html#term-Query-set", "query\nsets"),
        ("terms.html#term-Fitness", "fitness"),
        ("terms.html#term-Few-shot", "Few-shot"),
        ("terms.html#term-Query", "query"),
    ]
    assert "glossary-term" not in (tmp_path / "_build/html/terms.html").read_text()


def test_signatures_and_tables_are_html_that_a_screen_reader_can_say():
    signature = (
        '<dt class="sig py"><span class="p"><span class="pre">f</span></span><dl>\n'
        '<dd><a href="#x"><span class="n"><span class="pre">x</span></span></a></dd></dl></dt>'
    )
    after = '<dd><dl><dd class="p"><span class="pre">y</span></dd></dl></dd>'
    context = {"body": signature + after + '<th></th><th class="head"><p></p></th><th>a</th>'}
    book.mend_markup(None, "page", "page.html", context, None)
    mended = '<dt class="sig py">f<div>\n<div><a href="#x">x</a></div></div></dt>'
    assert context["body"] == f'{mended}{after}<td></td><td class="head"></td><th>a</th>'
