"""Code folds away: a reader sees text, figures and tables, and unfolds the code that made them.

What is asked stays open: cells that set a study or call the engine, those whose output is held by
a test (tag ``nbval-check-output``), what an exercise asks to fill in (``exercise``), and those
tagged ``show-input``. A figure without words of its own is named, for readers who do not see it,
after its section and the paragraph that explains it.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx

OPEN = {"tag_nbval-check-output", "tag_show-input", "tag_exercise"}
ENGINE = re.compile(
    r"\b(Study|MetaTraining|InnerLoop|meta_train|inner_update|draw_task|encode_\w+)\("
)
PROMPTS = {
    "tag_parameters": "the parameters",
    "tag_injected-parameters": "this run’s parameters",
    "tag_check": "the check",
    "tag_solution": "the solution",
}

LONGEST = 400
"""Characters of a figure's text; the paragraph itself is on the page."""


def fold(app: Sphinx, doctree: nodes.document) -> None:
    """Mark every code cell as one that hides its input, unless it says otherwise."""
    for cell in doctree.findall(nodes.container):
        classes = set(cell["classes"])
        if cell.get("nb_element") != "cell_code" or classes & OPEN:
            continue
        source = next(cell.findall(nodes.literal_block), None)
        hidden = cell.get("hide_mode")
        if not hidden and source is not None and ENGINE.search(source.astext()):
            continue
        what = next((PROMPTS[name] for name in PROMPTS if name in classes), "the code")
        cell["hide_mode"] = hidden or "input"
        cell["prompt_show"] = f"Show {what}"
        cell["prompt_hide"] = f"Hide {what}"


def name_figures(app: Sphinx, doctree: nodes.document) -> None:
    """Give every figure that a cell drew a text for readers who do not see it."""
    alike: dict[str, list[nodes.image]] = {}
    for section in doctree.findall(nodes.section):
        title = re.sub(r"(?<![.?])$", ".", section[0].astext())
        for place, cell in enumerate(section.children):
            drawn = [] if isinstance(cell, nodes.section) else cell.findall(nodes.image)
            for image in drawn:
                after = [n.astext() for n in section[place:] if isinstance(n, nodes.paragraph)]
                words = " ".join(f"{title} {''.join(after[:1])}".split())
                if len(words) > LONGEST:  # end with a sentence
                    words = re.match(r".*[.?](?=\s)|", words[:LONGEST])[0] or words[:LONGEST]
                if "alt" not in image:
                    alike.setdefault(words, []).append(image)
    for words, images in alike.items():
        for number, image in enumerate(images, 1):
            which = f" {number} of {len(images)}" if len(images) > 1 else ""
            image["alt"] = f"Figure{which}, {words}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Fold when a page has been read; myst-nb wraps what is folded when it is written."""
    app.connect("doctree-read", fold)
    app.connect("doctree-read", name_figures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
