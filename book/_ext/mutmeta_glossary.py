"""The first use of each glossary term on a page links to its entry; writers write no link.

Prose counts, in the singular or plural: not headings, code, equations, other links, numbers out of
records and what cells print.
"""

import re
from itertools import groupby

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

NOT_PROSE = (
    *(nodes.title, nodes.rubric, nodes.thead, nodes.term, nodes.field_name, nodes.reference),
    *(nodes.FixedTextElement, nodes.literal, nodes.math, nodes.raw, nodes.abbreviation),
    *(addnodes.desc_signature, nodes.citation, nodes.footnote),
)
NOT_PROSE_EITHER = {"cell", "sd-card-title", "sd-summary-text"}


def is_prose(text: nodes.Text) -> bool:
    """Whether nothing around a text makes it something else."""
    around = text.parent
    while around is not None:
        if isinstance(around, NOT_PROSE) or NOT_PROSE_EITHER & set(around.get("classes", ())):
            return False
        around = around.parent
    return True


def key(words: str) -> str:
    """A term or its use as it is compared: in small letters, without an s at its end."""
    return re.sub(r"[\s-]+", " ", words.lower()).removesuffix("s")


def join_lines(doctree: nodes.document) -> None:
    """Make the texts beside each other one, which the parser has cut at every end of a line."""
    for parent in list(doctree.findall(nodes.TextElement)):
        parent[:] = [
            part
            for kind, parts in groupby(parent.children, type)
            for part in ([nodes.Text("".join(parts))] if kind is nodes.Text else parts)
        ]


def link_terms(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Turn the first use of each term into a link, on any page but the glossary's own."""
    found = app.env.get_domain("std").objects.items()
    entries = {key(name): at for (kind, name), at in found if kind == "term" and at[0] != page}
    join_lines(doctree)
    for text in filter(is_prose, list(doctree.findall(nodes.Text))):
        if not entries:
            return
        names = "|".join(sorted(entries, key=len, reverse=True)).replace(" ", r"[\s-]")
        parts, end = [], 0
        for use in re.finditer(rf"(?<![\w-])(?:{names})s?(?![\w-])", text, re.IGNORECASE):
            if (entry := entries.pop(key(use[0]), None)) is None:
                continue
            word = nodes.inline("", use[0], classes=["glossary-term"])
            parts += [nodes.Text(text[end : use.start()])]
            parts += [make_refnode(app.builder, page, *entry, word)]
            end = use.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(text[end:])])


def setup(app: Sphinx) -> dict[str, bool]:
    """Link when a page is about to be written and all terms are known."""
    app.connect("doctree-resolved", link_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
