"""One kind of file for all that a run keeps: tensors and a JSON value, sealed by a checksum.

Files are safetensors: tensors in the body, everything else as JSON in the metadata, beside a
SHA-256 over both. They are written whole or not at all, read memory-mapped, and never unpickled.
`save` and `load` serve checkpoints and meta-trained starts, `Store` everything that can be computed
anew.
"""

import hashlib
import json
import math
import os
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


def save(
    path: str | Path, tensors: dict[str, torch.Tensor], meta: dict, *, keep_previous: bool = False
) -> None:
    """Write tensors of any shape, type and device and a JSON-able dict to one file.

    With ``keep_previous``, ``run.safetensors`` becomes ``run.previous.safetensors``. One such path
    belongs to one run at a time.

    Raises:
        DiskError: the disk is full or the folder cannot be used; what was saved last is kept.

    """
    text = json.dumps(meta)
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    sealed = safetensors.torch.save(whole, {"state": text, "sha256": checksum(whole, text)})
    with replacing(path, older=_beside(path, "previous") if keep_previous else None) as temporary:
        temporary.write_bytes(sealed)


def load(path: str | Path) -> Content:
    """Read what `save` wrote. Tensors are mapped copy-on-write: nothing can change the file.

    Raises:
        DiskError: there is no such file, or it cannot be opened.
        DataError: it is truncated, changed in any bit that matters, or not one of ours.

    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            meta = file.metadata() or {}
    except SafetensorError as error:
        raise _damaged(path, "not a whole safetensors file") from error
    except OSError as error:
        raise DiskError(
            f"the file cannot be opened ({error.strerror or error})",
            "look at its name and permissions, or choose another one",
            file=path,
        ) from error
    if meta.keys() != {"state", "sha256"}:
        raise _damaged(path, "not a file of this version of mutmeta")
    if meta["sha256"] != checksum(tensors, meta["state"]):
        raise _damaged(path, "wrong checksum")
    return tensors, json.loads(meta["state"])


def load_newest(path: str | Path) -> Content | None:
    """The newest good checkpoint of a run, or None when it has none yet.

    A damaged file is set aside as ``run.damaged.safetensors`` and the one before it is read in its
    place, with a warning that says so.

    Raises:
        DiskError: the folder cannot be used, or a file cannot be opened.
        DataError: there are files, but none is good; they are left as they are.

    """
    path, previous, aside = Path(path), _beside(path, "previous"), _beside(path, "damaged")
    check_writable(path)  # better now than after hours of work
    damage = None
    if path.exists():
        try:
            return load(path)
        except DiskError:
            raise
        except DataError as error:
            damage = error
    if not previous.exists():
        if damage is not None:
            raise damage
        return None
    found = load(previous)
    told = f"{path} is missing"
    if damage is not None:
        os.replace(path, aside)  # or it would take the good one's place at the next save
        told = f"{path}: {damage.problem} and is kept as {aside.name}"
    warnings.warn(f"{told}; going on from the one before it, {previous.name}", stacklevel=2)
    return found


@dataclass(frozen=True)
class Store:
    """Finished parts of long work in a folder; without a folder nothing is kept.

    ``question`` is everything that the parts depend on, as JSON values. A part lies under a hash of
    the question and its name, so parts of several questions can lie side by side. One that is
    damaged is computed anew, with a warning.
    """

    folder: Path | None
    question: dict

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """The part of this name, read or computed and kept: what JSON makes of it, either way.

        Raises:
            DiskError: the part cannot be written.

        """
        file, key = self._place([self.question, name], name)
        if (found := _find(file, key)) is not None:
            return found[1]["content"]
        content = json.loads(json.dumps(compute()))
        if file is not None:
            save(file, {}, {"question": key, "content": content})
        return content

    def tensor(
        self, name: str, shape: tuple[int, ...], fill: Callable[[np.ndarray], None]
    ) -> torch.Tensor:
        """A float32 table that is mapped from its file; ``fill`` writes it if there is none.

        It is filled in the file itself, so it may be larger than the memory. If the disk is full, a
        warning says so, and the table is held in memory.

        Raises:
            DiskError: the folder cannot be used, told before any work.

        """
        file, key = self._place([self.question, name, list(shape)], name)
        if (found := _find(file, key)) is not None:
            return found[0]["rows"]
        if file is not None:
            try:
                with replacing(file) as temporary:
                    _fill(temporary, shape, json.dumps({"question": key}), fill)
                return load(file)[0]["rows"]
            except DiskError as error:
                warnings.warn(f"{file}: {error.problem}; it is held in memory", stacklevel=2)
        rows = np.empty(shape, np.float32)
        fill(rows)
        return torch.from_numpy(rows)

    def _place(self, asked: list, name: str) -> tuple[Path | None, str]:
        """Where a part lies, and the hash of all that it depends on."""
        key = fingerprint(asked)
        legible = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:60]
        return self.folder and Path(self.folder, f"{legible}-{key[:16]}.safetensors"), key


def _find(file: Path | None, key: str) -> Content | None:
    """A kept part; None where there is none, after a look whether one can be kept."""
    if file is None:
        return None
    if os.path.exists(file):
        try:
            tensors, meta = load(file)
            if meta.get("question") == key:
                return tensors, meta
            problem = "the file answers another question"
        except DataError as error:
            problem = error.problem
        warnings.warn(f"{file}: {problem}; it is computed anew", stacklevel=3)
    check_writable(file)
    return None


def _fill(file: Path, shape: tuple[int, ...], text: str, fill: Callable) -> None:
    """Write one float32 table as `save` does, without holding it in memory."""
    size = 4 * math.prod(shape)

    def head(sha256: str) -> bytes:
        table = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]}
        content = {"__metadata__": {"state": text, "sha256": sha256}, "rows": table}
        line = json.dumps(content).encode()
        line += b" " * (-len(line) % 8)
        return len(line).to_bytes(8, "little") + line

    start = len(head("0" * 64))
    with file.open("wb") as opened:
        opened.truncate(start + size)
        if size and hasattr(os, "posix_fallocate"):  # or a full disk would kill the process
            os.posix_fallocate(opened.fileno(), start, size)
    rows = np.memmap(file, np.float32, "r+", offset=start, shape=shape)
    fill(rows)
    rows.flush()
    with file.open("rb+") as opened:
        opened.write(head(checksum({"rows": torch.from_numpy(rows)}, text)))


def checksum(tensors: dict[str, torch.Tensor], text: str = "") -> str:
    """SHA-256 of a text and of every tensor's name, type, shape and bytes.

    >>> checksum({"w": torch.zeros(2)}) == checksum({"w": torch.zeros(2, 1)})
    False
    """
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"\0{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _damaged(path: str | Path, why: str) -> DataError:
    return DataError(
        f"the file cannot be read ({why})",
        "restore a copy, or delete it to start again",
        file=path,
    )


def _beside(path: str | Path, word: str) -> Path:
    path = Path(path)
    return path.with_name(f"{path.stem}.{word}{path.suffix}")
