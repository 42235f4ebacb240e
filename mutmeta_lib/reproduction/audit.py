"""What the public repository's data files hold, counted from the files themselves.

The audit chapter prints these tables and numbers. A reader with a copy of the repository gets them
anew; without one, the committed record is shown.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from mutmeta_lib.data.assays import Assay, read_data_dir, read_manifest
from mutmeta_lib.records.record import Record, number, recorded_parameters
from mutmeta_lib.reproduction.audit_numbers import KINDS, SOLUBILITY, audit_numbers
from mutmeta_lib.reproduction.findings import (
    Tables,
    concentration,
    directions,
    one_sequence_many_sources,
    overview,
    shared,
    text_fates,
)
from mutmeta_lib.reproduction.label_findings import against_reference, agreement, proline, scaling
from mutmeta_lib.reproduction.query_draws import error_histogram, label_histogram, query_error_table
from mutmeta_lib.reproduction.release import LISTED, read_release
from mutmeta_lib.study.setting import make_record

INITIAL = ("combined_ddG_train", "combined_ddG_test")
"""The tables of the initial fit: the repository's helper script joins them."""

TARGETS = ("binding_affinity_test", "fireprot_dTm_test", "soluprotmut_solubility_test")
"""The test files that its later README names."""

SHOWN = 16
"""Query rows whose errors are kept as a histogram: the repository's usual number."""


def audit_experiment(
    *,
    release_dir: str,
    reference_dir: str = "",
    targets: Sequence[str] = TARGETS,
    sizes: Sequence[int] = (8, 16, 32, 64, 128),
    draws: int = 5000,
    correlation: float = 0.5,
    seed: int = 0,
    profile: str = "full",
    progress: Callable[[str], None] | None = None,
) -> Record:
    """Count what the tables of the public repository hold.

    Args:
        release_dir: a copy of the public repository, or of its data files (see `release`).
        reference_dir: a data directory with sound assays under the repository's source names, to
            compare with; none when empty.
        targets: test tables whose small query sets are drawn.
        sizes: numbers of query rows.
        draws: draws per target and number of query rows.
        correlation: with the labels, of the predictor that has skill.
        seed: of the draws.
        profile: name of the profile, for the record.
        progress: called with one line of text per step.

    Returns:
        A record: tables ``files``, ``missing``, ``directions``, ``shared``, ``clashes``,
        ``agreement``, ``proline``, ``scaling``, ``solubility``, ``texts``, ``queries``,
        ``errors``, ``labels``, ``reference``; numbers as the chapter names
        them. Tables that a copy lacks are listed in ``missing``, and what needs them is left
        empty.

    """
    parameters = recorded_parameters(locals())
    say = progress or (lambda line: None)
    began = time.perf_counter()
    files = read_release(release_dir)
    assays = _reference(reference_dir, files)
    say(f"{len(files)} tables and {len(assays)} assays to compare with: read")
    initial = [files[id] for id in INITIAL if id in files]
    aimed = {id: files[id] for id in targets if id in files}
    found = directions(files)
    agreements = [
        agreement(initial, [file]).assign(table=id)
        for id, file in files.items()
        if file.name != "combined_ddG"
    ]
    tables = {
        "files": overview(files),
        "missing": pd.DataFrame({"table": [id for id in LISTED if id not in files]}),
        "directions": found,
        "shared": shared(files, found),
        "clashes": one_sequence_many_sources(files, found),
        "agreement": _joined(agreements),
        "proline": proline(initial, found, KINDS),
        "scaling": scaling(files),
        "solubility": concentration(files[SOLUBILITY]) if SOLUBILITY in files else pd.DataFrame(),
        "texts": text_fates(files),
        "reference": against_reference([f for f in files.values() if f.part != "raw"], assays),
    }
    say("rows: counted")
    tables |= _draws(aimed, sizes, draws, correlation, seed)
    say(f"query rows of {len(aimed)} tables: drawn")
    made = make_record(
        "audit",
        profile,
        parameters,
        assays=assays,
        encoder={"name": "none", "sha256": "", "provenance": {}},
        device="cpu",
        seconds={"total": time.perf_counter() - began},
        numbers=audit_numbers(files, tables, draws) | {"skilled_correlation": number(correlation)},
        tables={name: _rounded(table) for name, table in tables.items()},
    )
    made.data.update({id: file.sha256 for id, file in files.items()})
    return made


def _draws(
    aimed: Tables, sizes: Sequence[int], draws: int, correlation: float, seed: int
) -> dict[str, pd.DataFrame]:
    """What few query rows say, for each target; the histogram is that of `SHOWN` rows."""
    queries, errors, labels = [], [], []
    for id, file in aimed.items():
        table = query_error_table(
            file.labels,
            sizes=tuple(sizes),
            draws=draws,
            correlation=correlation,
            rng=np.random.default_rng(seed),
        )
        queries.append(table.assign(table=id))
        shown = min(SHOWN, len(file))
        rng = np.random.default_rng(seed)
        drawn = error_histogram(file.labels, size=shown, draws=draws, rng=rng)
        errors.append(drawn.assign(table=id, query_rows=shown))
        labels.append(label_histogram(file.labels).assign(table=id))
    joined = map(_joined, (queries, errors, labels))
    return dict(zip(("queries", "errors", "labels"), joined, strict=True))


def _reference(reference_dir: str, files: Tables) -> list[Assay]:
    """Assays that a source of the tables names."""
    if not reference_dir:
        return []
    sources = {source for file in files.values() for source in file.sources}
    known = sorted(sources & set(read_manifest(reference_dir)["id"]))
    return read_data_dir(reference_dir, ids=known) if known else []


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    kept = [table for table in tables if len(table)]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Five significant digits: deviations of 1e-16 and errors of 0.07 stand side by side."""
    floats = table.select_dtypes("floating").columns
    return table.assign(**{c: [float(f"{x:.5g}") for x in table[c]] for c in floats})
