"""Checkpoints: one safetensors file that is either whole or not there, and the ones before it.

Tensors go into the file's body, everything else (step, history, random states) as JSON into its
metadata, beside a checksum over both. The file is written beside its place, forced to the disk and
moved there, so a kill at any moment leaves a good checkpoint:

- ``run.safetensors`` is the newest,
- ``run.previous1.safetensors`` the one before it, ``run.previous2.safetensors`` the one before
  that, as many as are kept,
- ``run.damaged.safetensors`` one that could not be read and was set aside.

One path belongs to one run at a time.
"""

import glob
import hashlib
import json
import os
import re
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mutmeta_lib.errors import DataError

Content = tuple[dict[str, torch.Tensor], dict]


class DamagedCheckpointError(DataError):
    """The file is there but is not a whole checkpoint of ours: the one before it may be."""


def save_checkpoint(
    path: str | Path, tensors: dict[str, torch.Tensor], state: dict, *, keep: int = 2
) -> None:
    """Write tensors and a JSON-able state to one file, atomically, and keep the ones before it.

    Args:
        path: where the newest checkpoint lies.
        tensors: of any shape and type, on any device.
        state: everything else; must be JSON-able.
        keep: number of checkpoints kept, this one included.

    Raises:
        DataError: the disk is full or the folder cannot be written to; what was saved last is
            still there.

    """
    path = Path(path)
    text = json.dumps(state)
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content = save(whole, metadata={"state": text, "sha256": checksum(whole, text)})
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            for place in range(keep - 1, 0, -1):
                if _previous(path, place - 1).exists():
                    os.replace(_previous(path, place - 1), _previous(path, place))
            os.replace(draft, path)
            _sync_folder(path.parent)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"the checkpoint cannot be written ({error.strerror})",
            "free some space or choose a folder that can be written to, and start again: the "
            "last checkpoint is kept",
            file=path,
        ) from error


def load_checkpoint(path: str | Path) -> Content:
    """Read one file that :func:`save_checkpoint` wrote.

    Raises:
        DamagedCheckpointError: the file is truncated, changed in any bit that matters, or not
            one of ours.
        DataError: there is no such file, or it cannot be opened.

    """
    try:
        if os.path.getsize(path) == 0:
            raise _damaged(path, "empty")
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise _damaged(path, "not a whole safetensors file") from error
    except OSError as error:
        raise DataError(
            f"the checkpoint cannot be opened ({error.strerror or error})",
            "look at the file's permissions, or choose another one",
            file=path,
        ) from error
    if set(metadata) != {"state", "sha256"}:
        raise _damaged(path, "not a checkpoint of this version")
    if metadata["sha256"] != checksum(tensors, metadata["state"]):
        raise _damaged(path, "wrong checksum")
    return tensors, json.loads(metadata["state"])


def latest_checkpoint(path: str | Path) -> Content | None:
    """The newest good checkpoint of a run, or None when it has none yet.

    A damaged file is set aside and the one before it is read in its place, with a warning that
    says so. What a killed run left half-written is removed.

    Raises:
        DataError: there are checkpoints but none is good (all are left as they are), or the
            folder cannot be read.

    """
    path = Path(path)
    aside = path.with_name(f"{path.stem}.damaged{path.suffix}")
    damaged: list[tuple[Path, DataError]] = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # better now than after hours of work
        for draft in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            draft.unlink()
        files = [file for file in (path, *_all_previous(path)) if file.exists()]
        for file in files:
            try:
                found = load_checkpoint(file)
            except DamagedCheckpointError as error:
                damaged.append((file, error))
                continue
            # A damaged file must not take a good one's place at the next save.
            for bad, _ in damaged:
                os.replace(bad, aside)
            if file != path:
                problem = damaged[0][1].problem if damaged else "the newest checkpoint is missing"
                warnings.warn(
                    f"{path}: {problem}; going on from the one before it, {file.name}"
                    + (f", and the damaged one is kept as {aside.name}" if damaged else ""),
                    stacklevel=2,
                )
            return found
    except OSError as error:
        raise DataError(
            f"the checkpoint's folder cannot be used ({error.strerror})",
            "look at its permissions, or choose another folder",
            file=path,
        ) from error
    if damaged:
        raise damaged[0][1]
    return None


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


def _damaged(path: str | Path, why: str) -> DamagedCheckpointError:
    return DamagedCheckpointError(
        f"the checkpoint cannot be read ({why})",
        "restore a copy, or delete it and those before it to start again",
        file=path,
    )


def _previous(path: Path, place: int) -> Path:
    """Where the checkpoint lies that is ``place`` saves older than the newest."""
    return path.with_name(f"{path.stem}.previous{place}{path.suffix}") if place else path


def _all_previous(path: Path) -> list[Path]:
    """Older checkpoints, the newest of them first."""
    pattern = re.escape(f"{path.stem}.previous") + r"(\d+)" + re.escape(path.suffix)
    found = [re.fullmatch(pattern, name) for name in os.listdir(path.parent)]
    return [_previous(path, place) for place in sorted(int(match[1]) for match in found if match)]


def _sync_folder(folder: Path) -> None:
    """Force renames to the disk, where folders can be opened (not on Windows)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
