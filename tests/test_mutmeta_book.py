"""The book's own Sphinx pieces: numbers come from records or the build fails."""

import importlib.util
import math
import sys
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sphinx.testing.util import SphinxTestApp

from mutmeta_lib.errors import DataError
from mutmeta_lib.records.record import Record, number, write_record

EXTENSIONS = Path(__file__).resolve().parents[1] / "book" / "_ext"
spec = importlib.util.spec_from_file_location("mutmeta_book", EXTENSIONS / "mutmeta_book.py")
book = importlib.util.module_from_spec(spec)
spec.loader.exec_module(book)


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


@given(
    st.floats(-1e3, 1e3),
    st.floats(1e-6, 1e3),
)
def test_rounding_error_is_small_against_the_interval(value, half):
    shown = book.format_number(number(value, value - half, value + half))
    printed = float(shown.split(" ")[0].replace(book.MINUS, "-"))
    assert abs(printed - value) <= 0.051 * half + 1e-9


def make_record(**changes) -> Record:
    fields = {
        "experiment": "few_shot",
        "profile": "quick",
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
        "numbers": {"maml_10_spearman": number(0.4321, 0.31, 0.55, 24)},
        "tables": {},
    }
    return Record(**(fields | changes))


def build(tmp_path: Path, page: str, record: Record | None) -> tuple[str, str]:
    """Build one page; returns its html and the warnings, any of which fails the book under -W."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "conf.py").write_text("extensions = ['myst_parser', 'mutmeta_book']\n")
    (source / "index.md").write_text(f"# Title\n\n{page}\n")
    if record is not None:
        write_record(record, source / "book/records/quick/few_shot.json")
    sys.modules["mutmeta_book"] = book
    app = SphinxTestApp("html", srcdir=source, freshenv=True)
    try:
        app.build()
        html = unescape((app.outdir / "index.html").read_text())
        return html, app.warning.getvalue()
    finally:
        app.cleanup()


def test_the_role_prints_number_interval_and_origin(tmp_path):
    record = make_record()
    html, warnings = build(tmp_path, "It is {record}`few_shot@quick maml_10_spearman`.", record)
    assert not warnings
    assert "0.43 [0.31,\u00a00.55]</abbr>." in html
    assert f"maml_10_spearman, n = 24; record few_shot@quick {record.digest}" in html


def test_a_table_may_hold_units_in_its_head_and_a_share_be_a_percentage(tmp_path):
    record = make_record(numbers={"share": number(0.382, -0.13, 0.75, 24, "of the time")})
    page = "{record-plain}`few_shot@quick share` or {record-percent}`few_shot@quick share`."
    html, warnings = build(tmp_path, page, record)
    assert not warnings
    assert "0.38 [\u22120.13,\u00a00.75]</abbr>" in html
    assert "38 [\u221213,\u00a075]\u00a0%</abbr>." in html
    assert html.count("share, n = 24; record few_shot@quick") == 2


@pytest.mark.parametrize(
    ("role", "told"),
    [
        ("few_shot@quick maml_11_spearman", "it has maml_10_spearman"),
        ("few_shot@full maml_10_spearman", "there is no such record"),
        ("few_shot maml_10_spearman", "write experiment@profile"),
    ],
)
def test_a_missing_number_fails_the_build(tmp_path, role, told):
    _, warnings = build(tmp_path, f"It is {{record}}`{role}`.", make_record())
    assert "ERROR" in warnings
    assert told in warnings


def test_an_edited_record_fails_the_build(tmp_path):
    write_record(make_record(), tmp_path / "book/records/quick/few_shot.json")
    path = tmp_path / "book/records/quick/few_shot.json"
    path.write_text(path.read_text().replace("0.4321", "0.9321"))
    with pytest.raises(DataError, match="changed"):
        book.find_record(tmp_path, "few_shot@quick")


def test_the_card_tells_where_a_record_comes_from(tmp_path):
    page = "```{record-card} few_shot@quick\n```"
    html, warnings = build(tmp_path, page, make_record())
    assert not warnings
    for told in [
        f"Record few_shot@quick {make_record().digest}",
        "book/records/quick/few_shot.json",
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


def test_a_card_without_a_record_fails_the_build(tmp_path):
    _, warnings = build(tmp_path, "```{record-card} few_shot@quick\n```", None)
    assert "ERROR" in warnings
    assert "there is no such record" in warnings


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


def test_decimals_are_never_negative():
    assert all(
        book.decimals(number(v, v - h, v + h)) >= 0 and math.isfinite(v)
        for v in (0.0, 1e5)
        for h in (1e-4, 1e4)
    )
