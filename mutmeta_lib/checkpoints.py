"""Checkpoints: one safetensors file that is either whole or not there.

Tensors go into the file's body, everything else (step, history, random states) as JSON into its
metadata. The file is written beside its place and moved there, so a kill at any moment leaves the
previous checkpoint.
"""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mutmeta_lib.errors import DataError


def save_checkpoint(path: str | Path, tensors: dict[str, torch.Tensor], state: dict) -> None:
    """Write tensors and a JSON-able state to one file, atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        save_file(contiguous, draft, metadata={"state": json.dumps(state)})
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Read what :func:`save_checkpoint` wrote.

    Raises:
        DataError: the file is truncated, damaged, or not one of ours.

    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        return tensors, json.loads(metadata["state"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise DataError(
            f"the checkpoint cannot be read ({type(error).__name__})",
            "delete it to start again, or restore a copy",
            file=path,
        ) from error
