"""One kind of file for all that a run keeps: tensors and a JSON value, sealed by a checksum.

Files are safetensors with JSON and a SHA-256 over everything in the metadata, whole or not there.
`save` and `load` serve checkpoints and meta-trained starts, `Store` what can be computed anew.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from mutmeta_lib.errors import DataError
from mutmeta_lib.records.files import DiskError, check_writable, fingerprint, replacing

Content = tuple[dict[str, torch.Tensor], dict]


def save(path: str | Path, tensors: dict[str, torch.Tensor], meta: dict) -> None:
    """Write tensors and a JSON-able dict to one file; raises `DiskError`."""
    text = json.dumps(meta)
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    sealed = {"state": text, "sha256": checksum(whole, text)}
    with replacing(path) as temporary:
        try:
            safetensors.torch.save_file(whole, temporary, sealed)
        except SafetensorError as error:
            raise OSError(None, str(error)) from error


def load(path: str | Path) -> Content:
    """Read what `save` wrote. Tensors are mapped copy-on-write: nothing can change the file.

    Raises `DiskError` if it cannot be opened, `DataError` if it is not what was written.
    """
    why = "wrong checksum"
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            meta = file.metadata() or {}
        if meta.keys() != {"state", "sha256"}:
            why = "not of this version of mutmeta"
        elif meta["sha256"] == checksum(tensors, meta["state"]):
            return tensors, json.loads(meta["state"])
    except SafetensorError:
        why = "not a whole safetensors file"
    except OSError as error:
        problem = f"the file cannot be opened ({error.strerror or error})"
        raise DiskError(problem, "look at its name and permissions", file=path) from error
    mend = "restore a copy, or delete it to start again"
    raise DataError(f"the file cannot be read ({why})", mend, file=path)


def load_newest(path: str | Path) -> Content | None:
    """The checkpoint that a run saved last, or None when it has none yet; errors as of `load`."""
    check_writable(path)  # better now than after hours of work
    return load(path) if Path(path).exists() else None


@dataclass(frozen=True)
class Store:
    """Finished parts of long work in a folder; without a folder nothing is kept.

    ``question`` is everything that the parts depend on, as JSON values. A part that is damaged is
    computed anew and one for which the disk is too full is not kept, both with a warning; a folder
    that cannot be used is a `DiskError` at once.
    """

    folder: str | Path | None
    question: dict

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """The part of this name, read or computed and kept: what JSON makes of it, either way."""
        return self._part(name, lambda: ({}, compute()))[1]["content"]

    def tensor(self, name: str, compute: Callable[[], np.ndarray | torch.Tensor]) -> torch.Tensor:
        """An array of this name, mapped from its file, or computed and kept."""
        made = self._part(f"{name} array", lambda: ({"array": torch.as_tensor(compute())}, None))
        return made[0]["array"]

    def _part(self, name: str, make: Callable[[], tuple[dict[str, torch.Tensor], Any]]) -> Content:
        def made() -> Content:
            tensors, content = make()
            return tensors, json.loads(json.dumps({"question": key, "content": content}))

        key = fingerprint([self.question, name])
        if not self.folder:
            return made()
        legible = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:60]
        file = Path(self.folder, f"{legible}-{key[:16]}.safetensors")
        if file.exists():
            try:
                if (found := load(file))[1].get("question") == key:
                    return found
                problem = "the file answers another question"
            except DataError as error:
                problem = error.problem
            warnings.warn(f"{file}: {problem}; it is computed anew", stacklevel=3)
        check_writable(file)
        part = made()
        try:
            save(file, *part)
            return load(file)  # mapped, so that the memory is free again
        except DiskError as error:
            warnings.warn(f"{file}: {error.problem}; it is used once", stacklevel=3)
            return part


def checksum(tensors: dict[str, torch.Tensor], text: str = "") -> str:
    """SHA-256 of a text and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"\0{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
