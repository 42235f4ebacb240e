"""The record of the audit: counts of the public repository's files, and errors over a few rows."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from mutmeta_lib.data.folders import read_data_dir, read_manifest
from mutmeta_lib.records.record import Record, number, recorded_parameters
from mutmeta_lib.reproduction import counts
from mutmeta_lib.reproduction.query_draws import error_histogram, label_histogram, query_error_table
from mutmeta_lib.reproduction.released import LISTED, read_release
from mutmeta_lib.study.run import make_record

TARGETS = ("binding_affinity_test", "fireprot_dTm_test", "soluprotmut_solubility_test")
"""The test files that the repository's later README names."""
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
) -> Record:
    """Count what the tables of the public repository hold.

    ``release_dir`` is a copy of the public repository, or of its data files (see `released`);
    ``reference_dir`` a data directory with sound assays under the repository's source names, to
    compare with. Of each of the test tables ``targets``, ``draws`` small sets of query rows are
    drawn of each of ``sizes``, for a predictor without skill and for one whose predictions have
    the ``correlation`` with the labels (tables ``queries``, ``errors`` and ``labels``). ``missing``
    lists tables that the copy lacks; what needs them is left out.
    """
    parameters = recorded_parameters(locals())
    began = time.perf_counter()
    read, hashes = read_release(release_dir)
    rows, assays = counts.described(read), []
    named = set(read["source"]) & set(read_manifest(reference_dir)["id"] if reference_dir else ())
    if named:
        assays = read_data_dir(reference_dir, ids=sorted(named))
    tables = {
        "missing": pd.DataFrame({"table": [id for id in LISTED if id not in hashes]}),
        "directions": counts.directions(rows),
        "shared": counts.shared(rows),
        "clashes": counts.clashes(rows),
        "agreement": counts.agreement(rows),
        "proline": counts.proline(rows),
        "scaling": counts.scaling(rows),
        "texts": counts.text_fates(rows),
        "reference": counts.against_reference(rows, assays),
    }
    how, drawn = {"draws": draws, "seed": seed}, []
    for id, own in rows[rows["table"].isin(targets)].groupby("table")["label"]:
        labels, size = own.to_numpy(), min(SHOWN, len(own))
        queries = query_error_table(labels, sizes=sizes, correlation=correlation, **how)
        errors = error_histogram(labels, size=size, **how).assign(table=id, query_rows=size)
        drawn.append((queries.assign(table=id), errors, label_histogram(labels).assign(table=id)))
    for place, name in enumerate(("queries", "errors", "labels")):
        tables[name] = pd.concat([pd.DataFrame(), *(parts[place] for parts in drawn)])
    numbers = audit_numbers(rows, tables, draws) | {"skilled_correlation": number(correlation)}
    none = {"name": "none", "sha256": "", "provenance": {}}
    how = {"assays": assays, "encoder": none, "device": "cpu", "tables": {}}
    how |= {"seconds": {"total": time.perf_counter() - began}}
    record = make_record("audit", profile, parameters, numbers=numbers, **how)
    tables = {name: rounded(table) for name, table in tables.items()}
    return replace(record, data=record.data | hashes, tables=tables)


def audit_numbers(
    rows: pd.DataFrame, tables: Mapping[str, pd.DataFrame], draws: int
) -> dict[str, dict]:
    """Numbers that the chapter names; those of absent tables are left out."""
    sizes = rows.groupby("table").size()
    turned = rows[rows["part"] != "raw"].groupby("table")["backwards"].sum()
    named = {f"{id}_backwards": number(n, n=sizes[id], unit="rows") for id, n in turned.items()}
    for row in tables["shared"].to_dict("records"):
        shared = _percent(row["wild_type_rows"], row["test_rows"])
        named[f"{row['data set']}_wild_type_rows"] = shared
    for id, own in tables["agreement"].groupby("table"):
        named[f"{id}_in_initial"] = _percent(own["rows"].sum(), sizes[id])
        named[f"{id}_agreement"] = number(own["spearman"].median(), n=len(own), unit="Spearman")
    for row in tables["texts"].query("form == 'spaced'").to_dict("records"):
        named[f"{row['table']}_as_words"] = _percent(row["rows_as_words"], row["rows"])
    for row in tables["queries"].to_dict("records"):
        for what in ("over_50", "over_94", "worse_same", "worse_whole", "has_largest"):
            name = f"{row['table']}_{row['query_rows']}_{what}"
            named[name] = number(100 * row[what], n=draws, unit="% of draws")
    found = tables["clashes"][~tables["clashes"]["table"].str.endswith("_raw")]
    if len(found):
        named["clash_rows"] = number(found["rows"].sum(), unit="rows")
        named["clash_sources"] = number(found["source"].nunique())
        named["clash_length"] = number(found["length"].max(), unit="residues")
    if len(reference := tables["reference"]):
        own = tables["directions"].query("backwards")[["table", "source"]].merge(reference)
        named["reference_backwards_rows"] = number(own["backwards"].sum(), n=own["rows"].sum())
        for row in reference.sort_values("rows").to_dict("records"):
            n = row["forwards"] + row["backwards"]
            named[f"{row['source']}_reference"] = number(row["spearman"], n=n, unit="Spearman")
    solubility = rows[rows["table"] == TARGETS[2]]
    return named | (_solubility(solubility) if len(solubility) else {})


def _percent(part: float, whole: int) -> dict:
    return number(100 * part / whole, n=whole, unit="%")


def _solubility(rows: pd.DataFrame) -> dict[str, dict]:
    """How the labels of the solubility test file spread; far out is beyond five sd."""
    labels, n = rows["label"], len(rows)
    squared, far = (labels - labels.mean()) ** 2, labels.abs() > 5
    spread = labels.quantile(0.75) - labels.quantile(0.25)
    return {
        "solubility_top_three": _percent(rows["sequence"].value_counts().head(3).sum(), n),
        "solubility_largest": number(labels.max(), n=n, unit="sd"),
        "solubility_far_rows": number(far.sum(), n=n, unit="rows"),
        "solubility_far_share": number(100 * squared[far].sum() / squared.sum(), n=n, unit="%"),
        "solubility_largest_in_16": number(squared.max() / SHOWN, unit="sd²"),
        "solubility_middle_half": number(spread, n=n, unit="sd"),
        "solubility_variance": number(squared.mean(), n=n, unit="sd²"),
        "solubility_several": number((rows["mutations"].map(len) > 1).sum(), n=n, unit="rows"),
    }


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Five significant digits: deviations of 1e-16 and errors of 0.07 stand side by side."""
    floats = table.select_dtypes("floating").columns
    return table.assign(**{c: [float(f"{x:.5g}") for x in table[c]] for c in floats})
