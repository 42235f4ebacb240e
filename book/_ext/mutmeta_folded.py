"""Code folds away: a reader sees text, figures and tables, and unfolds the code that made them.

Cells whose output is held by a test (tag ``nbval-check-output``) are demonstrations of the library
and stay open, as do cells tagged ``show-input``.
"""

from docutils import nodes
from sphinx.application import Sphinx

OPEN = {"tag_nbval-check-output", "tag_show-input"}
PROMPTS = {
    "tag_parameters": "the parameters",
    "tag_injected-parameters": "this run’s parameters",
}


def fold(app: Sphinx, doctree: nodes.document) -> None:
    """Mark every code cell as one that hides its input, unless it says otherwise."""
    for cell in doctree.findall(nodes.container):
        classes = set(cell["classes"])
        if cell.get("nb_element") != "cell_code" or cell.get("hide_mode") or classes & OPEN:
            continue
        what = next((PROMPTS[name] for name in PROMPTS if name in classes), "the code")
        cell["hide_mode"] = "input"
        cell["prompt_show"] = f"Show {what}"
        cell["prompt_hide"] = f"Hide {what}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Fold when a page has been read; myst-nb wraps what is folded when it is written."""
    app.connect("doctree-read", fold)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
