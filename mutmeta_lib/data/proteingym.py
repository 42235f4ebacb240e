"""ProteinGym (Notin et al. 2023, doi:10.1101/2023.12.07.570727): reading and fetching it."""

import os
import shutil
import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from requests import RequestException

from mutmeta_lib.data.assays import HIGHER_IS_BETTER, DataSet, table_name
from mutmeta_lib.data.tables import FIRST_ROW, read_columns
from mutmeta_lib.data.variants import check_sequence
from mutmeta_lib.errors import DataError, located

PROPERTY = dict.fromkeys(("Activity", "Binding", "OrganismalFitness"), "fitness")
PROPERTY |= {"Stability": "stability", "Expression": "expression"}
"""ProteinGym's `coarse_selection_type` and the property we file it under."""

UNFLIPPED = {
    "TADBP_HUMAN_Bolognesi_2019": "as in ProteinGym: higher = more toxic",
    "A4_HUMAN_Seuma_2022": "as in ProteinGym: higher = nucleates fibrils faster",
}
"""Assays of ProteinGym in which higher is not better, and what it is."""

DOI = "10.5281/zenodo.15293562"
"""The record of ProteinGym v1.3."""
ARCHIVE, REFERENCE = "DMS_ProteinGym_substitutions.zip", "DMS_substitutions.csv"
_COLUMNS = ["DMS_id", "UniProt_ID", "target_seq", "coarse_selection_type"], ["jo"]


def find_reference(folder: Path) -> Path | None:
    """Return the reference file of a folder of ProteinGym; None where there is a manifest."""
    names = [] if (folder / "MANIFEST.csv").exists() else folder.glob("*[sS]ubstitutions*.csv")
    found = (path for path in sorted(names) if "DMS_id" in read_columns(path, (), ["DMS_id"]))
    return next(found, None)


def proteingym_sets(folder: Path, reference: Path) -> dict[str, DataSet]:
    """Find the tables in a folder that the reference file names, wherever they lie in it.

    By ProteinGym's convention higher scores are better, but for `UNFLIPPED`. Raises `DataError`
    for entries that cannot be used and two tables of one name; warns of tables that are not named.
    """
    table = read_columns(reference, *_COLUMNS)
    # What a Mac adds to an archive, such as __MACOSX/._P_2020.csv, is no table.
    found = [p for p in folder.rglob("*.csv*") if not p.name.startswith(".") and p != reference]
    named = [path for path in sorted(found) if table_name(path) in table["DMS_id"]]
    if others := sorted(path.name for path in set(found) - set(named)):
        names = f"{reference.name} does not name {', '.join(others)}"
        warnings.warn(f"{folder}: {names}; not read", stacklevel=3)
    sets: dict[str, DataSet] = {}
    for path in named:
        if table_name(path) in sets:
            raise DataError("another file has the same name", "keep one of them", file=path)
        with located(file=reference):
            sets[table_name(path)] = _data_set(path, table)
    return sets


def _data_set(csv: Path, table: dict[str, list[str]]) -> DataSet:
    name = table_name(csv)
    row = table["DMS_id"].index(name)
    entry = {column: cells[row] for column, cells in table.items()}
    wild_type, kind = entry["target_seq"], entry["coarse_selection_type"]
    with located(row=FIRST_ROW + row, column="target_seq"):
        check_sequence(wild_type)
        if kind not in PROPERTY:
            problem, mend = f"'{kind}' is not a known selection type", f"use {', '.join(PROPERTY)}"
            raise DataError(problem, mend, column="coarse_selection_type")
    about = {"id": name, "protein": entry["UniProt_ID"], "property": PROPERTY[kind]}
    about |= {"wild_type": wild_type, "units": "DMS_score", "source": entry.get("jo", "")}
    about["sign"] = UNFLIPPED.get(name, HIGHER_IS_BETTER)
    return DataSet(csv, about, "DMS_score")


def fetch_proteingym(
    cache_dir: str | Path | None = None,
    *,
    registry: Mapping[str, str] | None = None,
    downloader: Callable | None = None,
) -> Path:
    """Download ProteinGym's substitution assays once; returns the folder they lie in.

    File names and checksums come from the record itself (`DOI`), or from `registry` (name ->
    ``md5:...``) and `downloader` (see pooch). Raises `DataError` without a network and for files
    that are not the record's.
    """
    import pooch  # loads tqdm's notebook bars, which warn where nothing is downloaded

    cache = Path(cache_dir or pooch.os_cache("mutmeta"))
    store = pooch.create(cache, f"doi:{DOI}", registry=dict(registry or {}), retry_if_failed=2)
    get = partial(store.fetch, downloader=downloader)
    try:
        if registry is None:
            store.load_registry_from_doi()
        folder = cache / f"proteingym-{store.registry[ARCHIVE].split(':')[-1][:12]}"
        if not folder.exists():
            scratch = folder.with_suffix(".part")  # a run cut off leaves no folder half full
            shutil.rmtree(scratch, ignore_errors=True)
            get(ARCHIVE, processor=pooch.Unzip(extract_dir=scratch.name))
            os.replace(scratch, folder)
        if REFERENCE in store.registry and not (folder / REFERENCE).exists():
            shutil.copyfile(get(REFERENCE), folder / REFERENCE)
    except RequestException as error:
        mend = "check the network, or download the files by hand"
        raise DataError(f"doi:{DOI} could not be downloaded ({error})", mend) from error
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"doi:{DOI} is not as expected ({error})", "try again") from error
    if not (folder / REFERENCE).exists():
        where = "take it from the folder reference_files of ProteinGym's repository"
        warnings.warn(f"the record has no {REFERENCE}; {where}", stacklevel=2)
    return folder
