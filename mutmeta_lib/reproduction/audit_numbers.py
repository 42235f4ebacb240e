"""The numbers of the audit that a page may print, by name."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mutmeta_lib.records.record import number
from mutmeta_lib.reproduction.findings import Tables

KINDS = {
    "deltag_t": "trypsin ΔG (Tsuboyama 2023)",
    "ddG": "ΔΔG (FireProtDB)",
    "ddg_stat": "statistical ΔΔG (Deng 2012)",
}
"""Features of ``combined_ddG`` and what they are."""

SOLUBILITY = "soluprotmut_solubility_test"
FAR = 5.0
"""Standard deviations beyond which a label counts as far out."""


def audit_numbers(files: Tables, tables: Mapping[str, pd.DataFrame], draws: int) -> dict[str, dict]:
    """Named numbers that the chapter may print; those of absent tables are left out.

    ``tables`` are those that `audit_experiment` records, before rounding; ``draws`` is how many
    the table ``queries`` rests on.
    """
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
    for row in tables["texts"].query("form == 'spaced'").to_dict("records"):
        share = 100 * row["rows_as_words"] / row["rows"]
        named[f"{row['table']}_as_words"] = number(share, n=row["rows"], unit="%")
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
    quarter, three_quarters = np.quantile(labels, [0.25, 0.75])
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
        "solubility_middle_half": number(three_quarters - quarter, n=n, unit="sd"),
        "solubility_variance": number(squared.mean(), n=n, unit="sd²"),
        "solubility_several": number(len(several), n=n, unit="rows"),
    }


def _reference_numbers(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict]:
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
