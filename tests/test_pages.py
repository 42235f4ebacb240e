"""The built book as files: links lead somewhere, pages are light, the first is easy to read."""

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browsing import absent

import mutmeta_lib as mm

BUILT = Path(__file__).resolve().parents[1] / "book/_build/html"
BLOCKS = {"p", "li", "dd", "dt", "td", "th", "div", "summary", "figcaption", "h1", "h2", "h3"}
SILENT = {"pre", "code", "abbr", "script", "style", "nav", "button"}
OWN = r"site reads?\b|\btrunk|rotation|zero-label score|wild_type_pass|no_encoder"
"""Terms of this book that the field does not have; a first page does without."""

ONE_WORD = "0"
"""What a number out of a record, or a piece of code, counts as."""


class Page(HTMLParser):
    """The anchors, addresses and blocks of text of a page."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.images, self.blocks = set(), set(), set(), [""]
        self.inside, self.silent = 0, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given.get("id"), given.get("name")}
        self.links |= {given[name] for name in ("href", "src") if given.get(name)}
        self.images |= {given["src"]} if tag == "img" else set()
        self.inside += tag == "article"
        if tag in BLOCKS:
            self.blocks.append("")
        if tag in SILENT:
            self.blocks[-1] += "" if self.silent else ONE_WORD
            self.silent.append(tag)

    def handle_endtag(self, tag):
        self.inside -= tag == "article"
        if self.silent and tag == self.silent[-1]:
            self.silent.pop()
        if tag in BLOCKS:
            self.blocks.append("")

    def handle_data(self, text):
        if self.inside and not self.silent:
            self.blocks[-1] += text


@pytest.fixture(scope="module")
def pages():
    if not (BUILT / "index.html").is_file():
        absent("the book is not built (make book)")
    paths = [*BUILT.glob("*.html"), *BUILT.glob("book/**/*.html")]
    return {path.relative_to(BUILT).as_posix(): Page(path.read_text("utf-8")) for path in paths}


def inside(name, link):
    """The file within the book that a page's link leads to, as pages are named."""
    return os.path.normpath(os.path.join(os.path.dirname(name), unquote(urlsplit(link).path)))


def test_every_link_and_anchor_inside_the_book_leads_somewhere(pages):
    lost = []
    for name, page in pages.items():
        for link in page.links:
            to = urlsplit(link)
            if not (to.scheme or to.netloc):
                file = inside(name, link) if to.path else name
                anchors = pages[file].anchors if file in pages else set()
                found = (BUILT / file).is_file() and {unquote(to.fragment)} <= {"", *anchors}
                lost += [] if found else [f"{name}: {link}"]
    assert len(pages) > 20
    assert lost == []


def test_a_page_with_its_pictures_is_no_larger_than_a_megabyte_and_a_half(pages):
    weigh = lambda files: sum((BUILT / file).stat().st_size for file in files)  # noqa: E731
    weights = {n: weigh({n, *(inside(n, i) for i in page.images)}) for n, page in pages.items()}
    assert {name: weight for name, weight in weights.items() if weight > 1_500_000} == {}


def test_the_api_page_describes_and_links_every_public_name(pages):
    api = pages["book/api.html"]
    public = {f"{module}.{name}" for name, module in mm._NAMES.items()}
    assert {*public, "mutmeta_lib.app.style.label"} - api.anchors == set()
    assert {f"#{name}" for name in public} - api.links == set()


def test_no_sentence_of_the_first_page_is_longer_than_35_words_or_in_words_of_our_own(pages):
    """Words stand between blanks; a number out of a record, with its interval, and code are one.

    A sentence ends with its block (a paragraph, item of a list, cell of a table), or where a full
    stop, question or exclamation mark is followed by a blank and a capital or a digit. Text in
    folds counts, words of figures do not.
    """
    blocks = [" ".join(block.split()) for block in pages["book/intro.html"].blocks]
    end = re.compile(r"(?<=[.?!])[”’)\]]*\s+(?=[“‘(\[]*[A-Z0-9])")
    sentences = [sentence for block in blocks for sentence in end.split(block)]
    assert sum(len(sentence.split()) > 10 for sentence in sentences) > 50
    assert [one for one in sentences if len(one.split()) > 35] == []
    assert re.findall(OWN, " ".join(sentences), re.IGNORECASE) == []
