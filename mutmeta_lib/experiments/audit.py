"""What the public repository's data files hold, counted from the files themselves.

The audit chapter prints these tables and numbers. A reader with a copy of the repository gets them
anew; without one, the committed record is shown.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from mutmeta_lib.assays import Assay, read_data_dir, read_manifest
from mutmeta_lib.experiments.setting import make_record
from mutmeta_lib.findings import (
    Tables,
    concentration,
    directions,
    one_sequence_many_sources,
    overview,
    shared,
    text_fates,
)
from mutmeta_lib.label_findings import against_reference, agreement, proline, scaling
from mutmeta_lib.query_draws import query_error_table
from mutmeta_lib.records import Record, number, recorded_parameters
from mutmeta_lib.release import LISTED, read_release

KINDS = {
    "deltag_t": "trypsin ΔG (Tsuboyama 2023)",
    "ddG": "ΔΔG (FireProtDB)",
    "ddg_stat": "statistical ΔΔG (Deng 2012)",
}
"""Features of ``combined_ddG`` and what they are."""

INITIAL = ("combined_ddG_train", "combined_ddG_test")
"""The tables of the initial fit: the repository's helper script joins them."""

TARGETS = ("binding_affinity_test", "fireprot_dTm_test", "soluprotmut_solubility_test")
"""The test files that its later README names."""

SOLUBILITY = "soluprotmut_solubility_test"
FAR = 5.0
"""Standard deviations beyond which a label counts as far out."""


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
        ``reference``; numbers as the chapter names them. Tables that a copy lacks are listed in
        ``missing`` and what needs them is left empty.

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
    queries = []
    for id, file in aimed.items():
        table = query_error_table(
            file.labels,
            sizes=tuple(sizes),
            draws=draws,
            correlation=correlation,
            rng=np.random.default_rng(seed),
        )
        queries.append(table.assign(table=id))
        say(f"{id}: query rows drawn")
    tables["queries"] = _joined(queries)
    made = make_record(
        "audit",
        profile,
        parameters,
        assays=assays,
        encoder={"name": "none", "sha256": "", "provenance": {}},
        device="cpu",
        seconds={"total": time.perf_counter() - began},
        numbers=_numbers(files, tables, draws),
        tables={name: _rounded(table) for name, table in tables.items()},
    )
    made.data.update({id: file.sha256 for id, file in files.items()})
    return made


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


def _numbers(files: Tables, tables: dict[str, pd.DataFrame], draws: int) -> dict[str, dict]:
    """Named numbers that the chapter may print; those of absent tables are left out."""
    named = {}
    found = tables["directions"]
    written = found[~found["table"].str.endswith("_raw")]
    backwards = written[written["backwards"]].groupby("table")["rows"].sum()
    for id, file in files.items():
        named[f"{id}_rows"] = number(len(file), unit="rows")
        named[f"{id}_sources"] = number(len(set(file.sources)))
        if id in backwards:
            named[f"{id}_backwards"] = number(backwards[id], n=len(file), unit="rows")
    for row in tables["shared"].to_dict("records"):
        for what in ("wild_type_rows", "site_rows"):
            share = 100 * row[what] / row["test_rows"]
            named[f"{row['data set']}_{what}"] = number(share, n=row["test_rows"], unit="%")
        named[f"{row['data set']}_same_rows"] = number(row["same_rows"], n=row["test_rows"])
        named[f"{row['data set']}_sources_shared"] = number(
            row["sources_in_train"], n=row["sources"]
        )
    clashes = tables["clashes"]
    if len(clashes):
        cut = clashes[~clashes["table"].str.endswith("_raw")]
        named["clash_rows"] = number(cut["rows"].sum(), unit="rows")
        named["clash_sources"] = number(cut["source"].nunique())
        named["clash_sequences"] = number(cut["starts"].nunique())
        named["clash_length"] = number(cut["length"].max(), unit="residues")
    for id, rows in tables["agreement"].groupby("table") if len(tables["agreement"]) else ():
        named[f"{id}_in_initial"] = number(
            100 * rows["rows"].sum() / len(files[id]), n=len(files[id]), unit="%"
        )
        named[f"{id}_agreement"] = number(rows["spearman"].median(), n=len(rows), unit="Spearman")
    for row in tables["proline"].to_dict("records"):
        if row["group"] == "to proline":
            name = next(f for f, kind in KINDS.items() if kind == row["kind"])
            ends = (row["low"], row["high"])
            named[f"proline_{name}"] = number(row["mean"], *ends, row["rows"], "sd")
    for row in tables["queries"].to_dict("records"):
        before = f"{row['table']}_{row['query_rows']}"
        ends = (row["q2_5"], row["q97_5"])
        named[f"{before}_error"] = number(row["q50"], *ends, draws, "of the error over all rows")
        for what in (
            "over_50",
            "over_94",
            "worse_same",
            "worse_apart",
            "worse_whole",
            "has_largest",
        ):
            named[f"{before}_{what}"] = number(100 * row[what], n=draws, unit="% of draws")
    return named | _solubility(files, tables["solubility"]) | _reference_numbers(tables)


def _solubility(files: Tables, spread: pd.DataFrame) -> dict[str, dict]:
    if SOLUBILITY not in files:
        return {}
    labels = files[SOLUBILITY].labels
    squared = (labels - labels.mean()) ** 2
    far = np.abs(labels) > FAR
    several = [m for m in files[SOLUBILITY].mutations if len(m) > 1]
    n = len(labels)
    return {
        "solubility_sequences": number(len(spread), n=n),
        "solubility_top_three": number(100 * spread["share"].head(3).sum(), n=n, unit="%"),
        "solubility_largest": number(labels.max(), n=n, unit="sd"),
        "solubility_smallest": number(labels.min(), n=n, unit="sd"),
        "solubility_far_rows": number(int(far.sum()), n=n, unit="rows"),
        "solubility_far_share": number(100 * squared[far].sum() / squared.sum(), n=n, unit="%"),
        "solubility_largest_in_16": number(squared.max() / 16, unit="sd²"),
        "solubility_middle_half": number(np.subtract(*np.quantile(labels, [0.75, 0.25])), n=n),
        "solubility_variance": number(squared.mean(), n=n, unit="sd²"),
        "solubility_several": number(len(several), n=n, unit="rows"),
    }


def _reference_numbers(tables: dict[str, pd.DataFrame]) -> dict[str, dict]:
    rows = tables["reference"]
    if not len(rows):
        return {}
    back = tables["directions"].query("backwards")[["table", "source"]].merge(rows)
    stated = rows[rows["source"].isin(tables["clashes"]["source"])]
    named = {
        "reference_backwards_rows": number(back["backwards"].sum(), n=back["rows"].sum()),
        "reference_backwards_wild_types": number(
            back[back["wild_type"]]["source"].nunique(), n=back["source"].nunique()
        ),
        "reference_clash_wild_types": number(
            stated[stated["wild_type"]]["source"].nunique(), n=stated["source"].nunique()
        ),
    }
    for source, group in rows[rows["source"].isin(stated["source"])].groupby("source"):
        kept = group["rows"].sum()
        named[f"{source}_kept"] = number(
            100 * kept / group["assay_variants"].iloc[0], n=kept, unit="%"
        )
        largest = group.sort_values("rows").iloc[-1]
        named[f"{source}_reference"] = number(
            largest["spearman"], n=largest["forwards"] + largest["backwards"], unit="Spearman"
        )
        named[f"{source}_directions"] = number(
            group["backwards"].sum(), n=group["forwards"].sum() + group["backwards"].sum()
        )
    return named
