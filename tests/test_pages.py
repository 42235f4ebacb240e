"""The built book as files: links lead somewhere, pages are light, the first is easy to read."""

import re
from functools import cache
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from browsing import absent
from test_book import BUILT
from test_committed import FILES

import mutmeta_lib as mm

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


@cache
def page(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def built():
    if not (BUILT / "index.html").is_file():
        absent("the book is not built (make book)")
    return BUILT


@pytest.fixture(params=[*FILES, "genindex", "py-modindex"])
def path(built, request):
    return built / f"{request.param}.html"


def test_every_link_and_anchor_inside_the_book_leads_somewhere(path):
    lost = []
    for link in page(path).links:
        to = urlsplit(link)
        if to.scheme or to.netloc:
            continue
        file = path.parent.joinpath(unquote(to.path)).resolve() if to.path else path
        anchors = page(file).anchors if to.fragment and file.suffix == ".html" else {to.fragment}
        if not file.is_file() or unquote(to.fragment) not in anchors:
            lost.append(link)
    assert lost == []


def test_a_page_with_its_pictures_is_no_larger_than_a_megabyte_and_a_half(path):
    pictures = {path.parent.joinpath(unquote(name)).resolve() for name in page(path).images}
    assert sum(file.stat().st_size for file in {path, *pictures}) <= 1_500_000


def test_the_api_page_describes_and_links_every_public_name(built):
    api = page(built / "book/api.html")
    public = {f"{module}.{name}" for name, module in mm._NAMES.items()}
    assert {*public, "mutmeta_lib.app.style.label"} - api.anchors == set()
    assert {f"#{name}" for name in public} - api.links == set()


def test_no_sentence_of_the_first_page_is_longer_than_35_words_or_in_words_of_our_own(built):
    """Words stand between blanks; a number out of a record, with its interval, and code are one.

    A sentence ends with its block (a paragraph, item of a list, cell of a table), or where a full
    stop, question or exclamation mark is followed by a blank and a capital or a digit. Text in
    folds counts, words of figures do not.
    """
    blocks = [" ".join(block.split()) for block in page(built / f"{FILES[0]}.html").blocks]
    end = re.compile(r"(?<=[.?!])[”’)\]]*\s+(?=[“‘(\[]*[A-Z0-9])")
    sentences = [sentence for block in blocks for sentence in end.split(block)]
    assert sum(len(sentence.split()) > 10 for sentence in sentences) > 50
    assert [one for one in sentences if len(one.split()) > 35] == []
    assert re.findall(OWN, " ".join(sentences), re.IGNORECASE) == []
