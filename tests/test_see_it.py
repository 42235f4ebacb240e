"""The page "See it happen" computes what the library computes, and is moved with the keyboard."""

import re
from itertools import combinations

import draw_inner_loop as toy
import numpy as np
import pytest
from browsing import troubles
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from test_committed import ROOT

from mutmeta_lib.data.variants import format_variant, parse_variant, single_variants
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.tasks.encodings import ENCODINGS, encode
from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY

FIGURES = ROOT / "book/figures"
TEXT = (ROOT / "book/see_it.md").read_text(encoding="utf-8")
PARTS = re.findall(r":file: (\S+)", TEXT)
WILD = "MKTAYIAK"
NUMBER = r"-?\d+\.\d+"


@pytest.fixture
def page(browser, tmp_path):
    """The page's scripts, without the rest of the book."""
    whole = "".join((ROOT / "book" / part).read_text(encoding="utf-8") for part in PARTS)
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{whole}", "utf-8")
    browser.get((tmp_path / "page.html").as_uri())
    yield browser
    assert troubles(browser) == []


def test_the_data_are_those_of_the_script_and_the_words_of_its_settings():
    kept, made = ((re.sub(NUMBER, "#", text), text) for text in (kept_data(), toy.script()))
    assert kept[0] == made[0], "run `make figures`"
    np.testing.assert_allclose(*(numbers(text) for _, text in (kept, made)), atol=1e-3)
    assert (len(toy.data()["lines"]), toy.SHOTS, toy.LOOP) == (16, 3, InnerLoop(0.1, 5))
    told = "sixteen other tasks, for three shots and five inner steps at the rate 0.1"
    assert told in " ".join(TEXT.split())


def kept_data():
    return toy.DATA.read_text(encoding="utf-8")


def numbers(text):
    return [float(number) for number in re.findall(NUMBER, text)]


@pytest.mark.browser
@pytest.mark.parametrize(("shots", "rate", "steps"), [(1, 0.1, 30), (5, 0.02, 7), (20, 0.5, 12)])
def test_the_inner_loop_of_the_page_is_inner_update(page, shots, rate, steps):
    for name, task in zip(("fresh", "meta", "fresh", "meta"), toy.data()["tasks"], strict=True):
        support = toy.points(task, "support", shots)
        wanted = toy.path(toy.data()[name], support, InnerLoop(rate, steps))
        given = (toy.data()[name], [x.tolist() for x in support], rate, steps)
        found = page.execute_script("return seeLoop.walk(...arguments)", *given)
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
        error = page.execute_script("return seeLoop.loss(...arguments)", wanted[-1], given[1])
        assert error == pytest.approx(float(toy.loss(toy.named(wanted[-1]), support)), rel=1e-6)


@pytest.mark.browser
def test_sliders_are_named_and_keys_move_them_the_drawing_and_the_words(page):
    before = shown(page)
    for name, key, told in (
        ("shots", Keys.END, "shots 20,"), ("rate", Keys.ARROW_RIGHT, "inner rate 0.12."),
        ("steps", Keys.HOME, "inner steps 0,"), ("task", Keys.ARROW_RIGHT, "Task 2,"),
    ):  # fmt: skip
        slider = page.find_element(By.ID, f"see-{name}")
        assert slider.accessible_name
        slider.send_keys(key)
        assert told in shown(page)[0]
        assert all(now != then for now, then in zip(shown(page), before, strict=True))
        before = shown(page)
    start = toy.points(toy.data()["tasks"][1], "query")
    for name in ("meta", "fresh"):
        error = float(toy.loss(toy.named(toy.data()[name]), start))
        assert f"{error:.2f} from the {name}" in before[0]


def shown(page):
    """The words, and the drawn fit."""
    told = page.find_element(By.CSS_SELECTOR, "#see-loop [aria-live]").text
    return told, page.execute_script("return document.getElementById('see-fit').innerHTML")


def variants():
    """The wild type, all single variants, and variants of two, three and all sites."""
    singles = [variant[0] for variant in single_variants(WILD)]
    sites = [singles[at : at + 19] for at in range(0, len(singles), 19)]
    several = [*combinations([site[3] for site in sites], 2), *combinations(singles[7::38], 3)]
    return [(), *((one,) for one in singles), *several, tuple(site[-1] for site in sites)]


@pytest.mark.browser
def test_the_tokens_of_the_page_are_those_of_the_encodings(page):
    texts = [format_variant(variant) for variant in variants()]
    assert page.execute_script("return seeEncodings.names") == list(ENCODINGS)
    for name in ENCODINGS:
        script = "return arguments[1].map((text) => seeEncodings.encode(arguments[0], text))"
        for text, found in zip(texts, page.execute_script(script, name, texts), strict=True):
            wanted = encode(name, WILD, parse_variant(text), TINY_VOCABULARY, 256)
            assert found["tokens"] == TINY_VOCABULARY.show(wanted.token_ids), (name, text)
            assert found["sites"] == list(wanted.sites), (name, text)


@pytest.mark.browser
@pytest.mark.parametrize("wrong", ["", "T3", "T3B", "T9G", "K3G", "T3T", "T3G:T3A", "T0G", "3G"])
def test_what_is_no_variant_is_refused_in_one_sentence_as_the_library_refuses_it(page, wrong):
    with pytest.raises(DataError):
        encode("mutant", WILD, parse_variant(wrong), TINY_VOCABULARY, 256)
    field = page.find_element(By.ID, "see-variant")
    for typed in (wrong, "K2R, t3g"):
        field.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.BACKSPACE, typed, Keys.TAB)
        told = page.find_element(By.ID, "see-fault").text
        rows = page.find_elements(By.CSS_SELECTOR, ".see-tokens dd")
        assert bool(told) != bool(rows) == (typed != wrong)
        assert not told or re.fullmatch(r"[^.]+\.", told)


def test_without_a_script_stands_what_the_command_prints():
    for name in ENCODINGS:
        wanted = encode(name, WILD, parse_variant("T3G"), TINY_VOCABULARY, 256)
        size, (site,) = len(wanted.token_ids), wanted.sites
        row = [name, str(size), str(site), *TINY_VOCABULARY.show(wanted.token_ids)]
        assert row in [line.split() for line in TEXT.splitlines()]
