"""ProteinGym from its Zenodo record into a cache; nothing of an archive is used unchecked."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path, PurePosixPath

import pooch
from requests import RequestException

from mutmeta_lib.errors import DataError

PROTEINGYM_DOI = "10.5281/zenodo.15293562"
"""The record of ProteinGym v1.3."""
ARCHIVE = "DMS_ProteinGym_substitutions.zip"
REFERENCE = "DMS_substitutions.csv"
MAX_BYTES = 8 * 2**30
"""An archive that unpacks to more than this is refused; ProteinGym states about 1 GB."""


def fetch_proteingym(
    cache_dir: str | PathLike[str] | None = None,
    *,
    registry: Mapping[str, str] | None = None,
    downloader: Callable | None = None,
) -> Path:
    """Download ProteinGym's substitution assays once; returns the folder they lie in.

    File names and checksums come from the record itself (doi:10.5281/zenodo.15293562), through
    pooch; a file is kept only when its checksum agrees. The archive is unpacked by `unzip` into a
    folder named after its checksum. The reference file, which `data.assays.read_proteingym`
    needs, is put beside the csv files where the record has it; otherwise a warning says where to
    find it.

    Unverified: the name of the archive is the one in ProteinGym's README; whether the record also
    lists the reference file on its own is not known to us, which is why it may be missing.

    `cache_dir` defaults to the user's cache folder. `registry` (name -> ``md5:...``) and
    `downloader` (see pooch) replace the record, for mirrors and tests. Raises `DataError` without
    a network, for a checksum that differs, and for a bad archive.
    """
    cache = Path(cache_dir) if cache_dir is not None else Path(pooch.os_cache("mutmeta"))
    store = pooch.create(
        path=cache, base_url=f"doi:{PROTEINGYM_DOI}", registry=dict(registry or {}),
        retry_if_failed=2,
    )  # fmt: skip
    if registry is None:
        try:
            store.load_registry_from_doi()
        except (RequestException, ValueError, KeyError) as error:
            raise DataError(
                f"the record doi:{PROTEINGYM_DOI} could not be read ({error})",
                "check the network, or download the archive by hand and use read_proteingym",
            ) from error
    if ARCHIVE not in store.registry:
        raise DataError(
            f"the record doi:{PROTEINGYM_DOI} has no file {ARCHIVE}",
            f"it has {', '.join(sorted(store.registry)) or 'none'}",
        )
    archive = _fetch(store, ARCHIVE, downloader)
    checksum = store.registry[ARCHIVE].split(":")[-1]
    folder = cache / f"proteingym-{checksum[:12]}"
    if not folder.exists():
        unzip(archive, folder)
    if (folder / REFERENCE).exists():
        return folder
    if REFERENCE in store.registry:
        shutil.copyfile(_fetch(store, REFERENCE, downloader), folder / REFERENCE)
    else:
        warnings.warn(
            f"the record has no {REFERENCE}; take it from the folder reference_files of "
            "ProteinGym's repository",
            stacklevel=2,
        )
    return folder


def _fetch(store: pooch.Pooch, name: str, downloader: Callable | None) -> Path:
    try:
        return Path(store.fetch(name, downloader=downloader))
    except RequestException as error:
        raise DataError(
            f"{name} could not be downloaded ({error})", "check the network and try again"
        ) from error
    except ValueError as error:
        # pooch says so when a checksum differs; it keeps nothing of that file.
        raise DataError(f"{name} is not the file of the record ({error})", "try again") from error


def unzip(
    archive: str | PathLike[str], folder: str | PathLike[str], *, max_bytes: int = MAX_BYTES
) -> Path:
    """Unpack a zip archive into a new folder, all of it or nothing; returns the folder.

    Refused with `DataError`: an archive that is damaged (checksum of any member) or encrypted,
    that holds links, two members of one name, names that lead outside the folder, or more than
    `max_bytes` unpacked; and a folder that exists already.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists():
        raise DataError(f"the folder {folder} exists", "choose a new one", file=archive)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as scratch:
        inside = Path(scratch) / "content"
        inside.mkdir()
        try:
            with zipfile.ZipFile(archive) as opened:
                members = opened.infolist()
                _check_members(members, archive, max_bytes)
                for member in members:
                    # Reading to the end checks the member's CRC.
                    opened.extract(member, inside)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise DataError(
                f"the archive is damaged ({error})", "delete it and fetch it again", file=archive
            ) from error
        os.replace(inside, folder)
    return folder


def _check_members(members: list[zipfile.ZipInfo], archive: Path, max_bytes: int) -> None:
    size = sum(member.file_size for member in members)
    if size > max_bytes:
        raise DataError(
            f"the archive unpacks to {size} bytes, more than {max_bytes}",
            "raise max_bytes if you trust it",
            file=archive,
        )
    seen: set[str] = set()
    for member in members:
        name = member.filename.replace("\\", "/")
        path = PurePosixPath(name)
        mend = "do not use this archive"
        if path.is_absolute() or ".." in path.parts or ":" in name or not path.parts:
            raise DataError(f"the member '{name}' leads outside the folder", mend, file=archive)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(f"the member '{name}' is a link", mend, file=archive)
        if member.flag_bits & 0x1:
            raise DataError(f"the member '{name}' is encrypted", mend, file=archive)
        if path.as_posix().lower() in seen:
            raise DataError(f"the member '{name}' occurs twice", mend, file=archive)
        seen.add(path.as_posix().lower())
