"""Sentences that state results: their claims hold, and a false or unfounded claim is found."""

from pathlib import Path

import pytest
from mutmeta_claims import claims, faults

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    page
    for page in (ROOT / "README.md", *ROOT.glob("book/*.md"), *ROOT.glob("notebooks/[0-9]*.md"))
    if page.name != "records.md"  # it shows how a number is found, and states none
]
TEXTS = {page.stem: page.read_text(encoding="utf-8") for page in PAGES}


@pytest.mark.parametrize("page", TEXTS)
def test_what_a_page_says_is_in_the_records(page):
    assert faults(TEXTS[page], ROOT) == []


@pytest.mark.parametrize("page", TEXTS)
def test_a_page_that_prints_numbers_or_shows_a_committed_record_makes_claims(page):
    text = TEXTS[page]
    if "{record" in text or "records_dir =" in text or page == "README":
        assert list(claims(text))


def fault(claim):
    """The one fault of a page whose one sentence claims this; empty if there is none."""
    return "".join(faults(f"It is so.\n<!-- holds: {claim} -->\n", ROOT))


@pytest.mark.parametrize(
    "claim",
    [
        "few_shot.maml_10_spearman.low < few_shot.maml_10_spearman",
        "0 in few_shot.maml_minus_ridge_10_spearman",
        "few_shot.parameters.seeds == 5 and not few_shot.parameters.seeds == 4",
        "few_shot.parameters.seeds == 4 or few_shot.seconds['tuning'] > 0",
        "protocols.labels_worth_maml is None",
        "abs(-2) + max(few_shot.results.shots) / 2 - 1 * 2 == 10",
        "distinct(few_shot.results.protein) == 3 and size(few_shot.results.protein) == 15000",
        'few_shot.results[shots == 0 and not method == "maml"].shots == 0',
        "few_shot.results[shots > 1](n_query >= 10 and spearman <= 1)",
        "few_shot.{maml,ridge}_10_spearman == few_shot.{maml,ridge}_10_spearman",
    ],
)
def test_a_true_claim_holds(claim):
    assert fault(claim) == ""


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        ("few_shot.maml_10_spearman > 1", "does not hold"),
        ("0 in few_shot.maml_minus_finetune_10_spearman", "does not hold"),
        ("few_shot.{maml,mean}_10_spearman > 0.01", "does not hold: few_shot.mean"),
        ("few_shot.{maml,ridge}_10_spearman == few_shot.{ridge,maml}_10_spearman", "does not hold"),
        ("few_shot.results[shots == 10].spearman > 0", "does not hold"),
        ("few_shot.results(spearman > 0)", "does not hold"),
        ("few_shot.maml_10_spearman", "does not hold"),  # a number is no claim
        ("few_shot.maml_11_spearman > 0", "maml_11_spearman"),
        ("few_shots.maml_10_spearman > 0", "no such record"),
        ("few_shot.results[shots == 3].spearman > 0", "no such row"),
        ("few_shot.results[shoots == 10].spearman > 0", "shoots"),
        ("few_shot.maml_10_spearman.mean > 0", "mean"),
        ("few_shot.maml_10_spearman >", "invalid syntax"),
        ("protocols.labels_worth_maml > 0", "NoneType"),
        ("__import__('os').getcwd() == ''", "__import__"),
        ("few_shot.__class__ == 0", "__class__"),
        ("(lambda: 1)() == 1", "no part of a claim"),
        ("[1 for one in (1, 2)] == 1", "no part of a claim"),
    ],
)
def test_a_false_or_unfounded_claim_is_found(claim, told):
    assert told in fault(claim)


def test_claims_stand_in_comments_of_one_line_or_many():
    text = (
        "A.\n<!-- holds: a.{b, c} > 1 -->\n\n- B.\n  <!-- holds:\n  d.e\n  f.g\n  -->\n<!-- h -->"
    )
    assert list(claims(text)) == ["a.b > 1", "a. c > 1", "d.e", "f.g"]
