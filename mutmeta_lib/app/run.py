"""Run a notebook with parameters: papermill behind a check, and a copy that names no machine."""

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from mutmeta_lib.app.parameters import check_parameters, profile_parameters
from mutmeta_lib.errors import DataError
from mutmeta_lib.records.drafts import check_writable, draft_of

BINARY = ("image/png", "image/jpeg", "application/pdf")
"""Base64 in a notebook's outputs, which must not be searched for paths."""


def run_notebook(
    notebook: str | Path,
    output: str | Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    profile: str | None = None,
) -> Path:
    """Execute a notebook in its own folder and write the executed copy.

    Args:
        notebook: the .ipynb file.
        output: where the executed copy goes; written in one step, only when every cell succeeded.
        parameters: override the profile, which overrides the notebook's defaults.
        profile: name of a file ``params/<profile>.yml`` beside the notebook.

    Returns:
        The path of the executed copy. It holds no path of this machine.

    Raises:
        DataError: a parameter or the profile is wrong, or the output is the notebook itself or
            cannot be written; nothing has run then.
        papermill.PapermillExecutionError: a cell failed; `cell_index` counts the notebook's own
            cells, from 1.

    """
    notebook, output = Path(notebook), Path(output)
    chosen = dict(profile_parameters(notebook, profile)) if profile else {}
    chosen = check_parameters(notebook, chosen | dict(parameters or {}))
    if output.suffix != ".ipynb":
        raise DataError("an executed copy is a notebook", "name it .ipynb", file=output)
    if output.exists() and output.samefile(notebook):
        raise DataError("the output is the notebook itself", "choose another name", file=output)
    check_writable(output)

    import papermill  # slow to import, and only needed here

    with tempfile.TemporaryDirectory() as folder:
        executed = Path(folder) / "executed.ipynb"
        try:
            papermill.execute_notebook(
                str(notebook),
                str(executed),
                parameters=chosen,
                cwd=str(notebook.parent),
                progress_bar=sys.stderr.isatty(),
                kernel_name="python3",
                language="python",
                # The kernel remarks on its socket and its own shutdown; a cell that fails raises.
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
            )
        except papermill.PapermillExecutionError as error:
            # papermill counts from 0, and its cell of parameters as well, which stands before.
            error.cell_index += 1 - bool(chosen)
            raise
        content = nbformat.read(executed, as_version=4)
    paths = machine_paths(notebook, chosen)
    clean = nbformat.from_dict(scrub(content, paths))
    clean.metadata.papermill |= {"input_path": notebook.name, "output_path": output.name}
    for cell in clean.cells:  # when each cell began and ended would be most of a diff
        for timing in ("execution", "papermill"):
            cell.metadata.pop(timing, None)
    with draft_of(output) as draft:
        nbformat.write(clean, draft)
    return output


def machine_paths(notebook: Path, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Paths of this machine that must not stand in an executed copy, and what replaces them."""
    folder = notebook.resolve().parent
    given = [
        value for value in parameters.values() if isinstance(value, str) and os.path.isabs(value)
    ]
    replaced = {value: Path(value).name for value in given}
    replaced |= {
        str(folder): ".",
        str(folder.parent): "..",
        sys.prefix: "<python>",
        sys.base_prefix: "<python>",
        tempfile.gettempdir(): "<tmp>",
        str(Path.home()): "~",
    }
    replaced.pop(os.sep, None)
    return replaced


def scrub(content: Any, paths: Mapping[str, str]) -> Any:
    """Replace machine paths in every text of a notebook, the longest first; pictures stay.

    >>> scrub({"text": ["/home/ada/mutmeta/a.csv", 3]}, {"/home/ada/mutmeta": "."})
    {'text': ['./a.csv', 3]}
    """
    if isinstance(content, str):
        content = re.sub(r"\S*/ipykernel_\d+/\d+\.py", "<cell>", content)
        for path in sorted(paths, key=len, reverse=True):
            # Whole components only: /home/ada touches neither /home/adam nor a.org/home/ada.
            whole = r"(?<![\w.~<-])" + re.escape(path.rstrip("/")) + r"(?![\w.-])"
            content = re.sub(whole, lambda _, to=paths[path]: to, content)
        return content
    if isinstance(content, dict):
        return {
            key: value if key in BINARY else scrub(value, paths) for key, value in content.items()
        }
    if isinstance(content, list):
        return [scrub(item, paths) for item in content]
    return content
