"""Sentences that state results: their claims hold, and a false or unfounded claim is found."""

from pathlib import Path

import pandas as pd
import pytest
from mutmeta_claims import claims, faults
from test_extensions import make_record

from mutmeta_lib.records.record import number, write_record

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    page
    for page in (ROOT / "README.md", *ROOT.glob("book/*.md"), *ROOT.glob("notebooks/[0-9]*.md"))
    if page.name != "records.md"  # it shows how a number is found, and states none
]
TOY = "book/records/full/few_shot.json"
TEXTS = {page.stem: page.read_text(encoding="utf-8") for page in PAGES}


@pytest.mark.parametrize("page", TEXTS)
def test_what_a_page_says_is_in_the_records(page):
    assert faults(TEXTS[page], ROOT) == []


@pytest.mark.parametrize("page", TEXTS)
def test_a_page_that_prints_numbers_or_shows_a_committed_record_makes_claims(page):
    text = TEXTS[page]
    if "{record" in text or "records_dir =" in text or page == "README":
        assert list(claims(text))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with one small record."""
    folder = tmp_path_factory.mktemp("book")
    numbers = {
        "a": number(0.2, 0.1, 0.3, 24),
        "b": number(0.1, -0.1, 0.4),
        "never": number(float("nan")),
        "noise 0.3": number(3),
    }
    rows = pd.DataFrame({"x": [1, 2, 2], "y": [4.0, 3.0, 1.0], "kind": ["p", "p", "q"]})
    write_record(make_record(numbers=numbers, tables={"rows": rows}), folder / TOY)
    return folder


@pytest.mark.parametrize(
    "claim",
    [
        "0.05 < few_shot.a.low < few_shot.a < few_shot.a.high < 0.4 and few_shot.a.n == 24",
        "0 in few_shot.b and few_shot.a in few_shot.b",
        "few_shot.parameters.seeds == 2 and not few_shot.parameters.seeds == 4",
        "few_shot.parameters.seeds == 4 or few_shot.seconds['meta_training'] > 12",
        "few_shot['noise 0.3'] == 3 and few_shot.never is None",
        "abs(-2) + max(few_shot.rows.x) / 2 - 1 * 2 == 1",
        "distinct(few_shot.rows.kind) == 2 and size(few_shot.rows.kind) == 3",
        "few_shot.rows[x == 2 and not kind == 'p'].y == 1",
        "few_shot.rows[x > 1](y <= 3 and x == 2)",
        "few_shot.{a,b} == few_shot.{a,b}",
    ],
)
def test_a_true_claim_holds(claim, root):
    assert faults(f"So.\n<!-- holds: {claim} -->\n", root) == []


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        ("few_shot.a > 1", "does not hold"),
        ("0 in few_shot.a", "does not hold"),
        ("few_shot.{b,a} > 0.15", "does not hold: few_shot.b"),
        ("few_shot.{a,b} == few_shot.{b,a}", "does not hold"),
        ("few_shot.rows[kind == 'p'].y > 3", "does not hold"),
        ("few_shot.rows(y > x)", "does not hold"),
        ("few_shot.a", "does not hold"),  # a number is no claim
        ("few_shot.c > 0", "no table 'c'"),
        ("few_shots.a > 0", "no such record"),
        ("few_shot.rows[x == 3].y > 0", "no such row"),
        ("few_shot.rows[z == 10].y > 0", "'z'"),
        ("few_shot.a.mean > 0", "'mean'"),
        ("few_shot.a >", "invalid syntax"),
        ("few_shot.never > 0", "NoneType"),
        ("__import__('os').getcwd() == ''", "__import__"),
        ("few_shot.__class__ == 0", "__class__"),
        ("(lambda: 1)() == 1", "no part of a claim"),
        ("[1 for one in (1, 2)] == 1", "no part of a claim"),
    ],
)
def test_a_false_or_unfounded_claim_is_found(claim, told, root):
    assert told in "".join(faults(f"So.\n<!-- holds: {claim} -->\n", root))


def test_claims_stand_in_comments_of_one_line_or_many():
    text = (
        "A.\n<!-- holds: a.{b, c} > 1 -->\n\n- B.\n  <!-- holds:\n  d.e\n  f.g\n  -->\n<!-- h -->"
    )
    assert list(claims(text)) == ["a.b > 1", "a. c > 1", "d.e", "f.g"]
