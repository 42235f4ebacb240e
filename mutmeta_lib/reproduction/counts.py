"""Counts of what the public repository's files hold: groupbys of the one table of `described`.

Each function returns one tidy table. None of them judges a row, changes it or leaves it out.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import format_variant
from mutmeta_lib.reproduction.released import FATES, Written, release_text, undo
from mutmeta_lib.study.estimates import bootstrap_mean

INITIAL = "combined_ddG"
"""The data set of the initial fit: the repository's helper script joins its two parts."""
FITTED = (f"{INITIAL}_train", f"{INITIAL}_test")
KINDS = {
    "deltag_t": "trypsin ΔG (Tsuboyama 2023)",
    "ddG": "ΔΔG (FireProtDB)",
    "ddg_stat": "statistical ΔΔG (Deng 2012)",
}
"""Features of ``combined_ddG`` and what they are."""
TEXT = ["sequence", "written"]
"""What a model reads of a row."""
ROW = ["source", *TEXT]
"""What tells one row from another."""


def described(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `read_release` with what undoing them shows.

    ``undone`` has the last letters of the mutations at their positions. Where the rows of a source
    state many sequences (``stated`` counts them) and undoing leaves one, that one is the wild type,
    and the rows are written ``backwards``; elsewhere ``wild_type`` is as stated. ``agrees``: the
    first letters are those of the sequence, which backwards rows pass too. ``written`` and
    ``sites`` are all mutations and their positions as text.
    """
    pairs = list(zip(rows["sequence"], rows["mutations"], strict=True))
    rows = rows.assign(
        written=[" ".join(map(str, mutations)) for _, mutations in pairs],
        sites=[" ".join(str(p) for p in sorted(m.position for m in ms)) for _, ms in pairs],
        agrees=[all(s[m.position - 1] == m.first for m in mutations) for s, mutations in pairs],
        undone=[undo(*pair) for pair in pairs],
    )
    distinct = rows.groupby(["table", "source"])[["sequence", "undone"]].transform("nunique")
    backwards = (distinct["sequence"] > 1) & (distinct["undone"] == 1)
    wild_type = rows["undone"].where(backwards, rows["sequence"])
    return rows.assign(backwards=backwards, wild_type=wild_type, stated=distinct["sequence"])


def directions(rows: pd.DataFrame) -> pd.DataFrame:
    """Per table and source: is the stated sequence the wild type, or already the mutant?"""
    groups = rows.groupby(["table", "source"], sort=False, as_index=False)
    return groups.agg(
        rows=("label", "size"),
        agree=("agrees", "sum"),
        stated=("sequence", "nunique"),
        undone=("undone", "nunique"),
        backwards=("backwards", "first"),
    )


def shared(rows: pd.DataFrame) -> pd.DataFrame:
    """Per data set with a train and a test part: how many test rows are like rows of training.

    ``wild_type_rows`` have their wild type in training, ``site_rows`` wild type and mutated
    positions, and ``same_rows`` are the same variant of the same source.
    """
    like = {"wild_type_rows": ["wild_type"], "site_rows": ["wild_type", "sites"], "same_rows": ROW}
    return pd.DataFrame(
        {"data set": name, "test_rows": len(test)}
        | {what: int(_among(test, train, columns).sum()) for what, columns in like.items()}
        for name, train, test in _both_parts(rows)
    )


def clashes(rows: pd.DataFrame) -> pd.DataFrame:
    """Sequences that are stated for rows of more than one source, per source and table.

    Sources of several proteins (literature collections) are left aside: they may well have one in
    common with another source.
    """
    collections = rows.loc[(rows["stated"] > 1) & ~rows["backwards"], "source"]
    single = rows[~rows["source"].isin(collections)]
    several = single[single.groupby("sequence")["source"].transform("nunique") > 1]
    several = several.assign(length=several["sequence"].str.len())
    counted = several.groupby(["sequence", "length", "source", "table"]).size()
    found = counted.reset_index(name="rows").rename(columns={"sequence": "starts"})
    return found.assign(starts=found["starts"].str[:10])


def agreement(rows: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of labels in the initial fit and in every other table, per source.

    Rows are the same when a model reads the same. A correlation needs three rows.
    """
    initial = rows[rows["table"].isin(FITTED)].drop_duplicates(TEXT, keep="last")
    both = rows[rows["name"] != INITIAL].merge(
        initial[[*TEXT, "label"]], on=TEXT, suffixes=("", "_initial")
    )
    found = [
        (source, len(own), _rank(own["label_initial"], own["label"]), table)
        for (table, source), own in both.groupby(["table", "source"])
    ]
    return pd.DataFrame(found, columns=["source", "rows", "spearman", "table"])


def proline(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean label of substitutions to proline and of all others, per kind of measurement.

    Proline fits few places of a fold, so the sign of the first mean, against the second, tells
    which way a label points. The new residue is the first letter in backwards rows.
    """
    part = rows[rows["table"].isin(FITTED)]
    part = part[[len(m) == 1 and m[0].first != m[0].last for m in part["mutations"]]]
    written = zip(part["mutations"], part["backwards"], strict=True)
    new = np.array([m.first if backwards else m.last for (m,), backwards in written])
    found = []
    for feature, kind in KINDS.items():
        for group, chosen in (("to proline", new == "P"), ("to another residue", new != "P")):
            labels = part.loc[chosen & (part["feature"] == feature), "label"].to_numpy()
            found.append((kind, group, len(labels), *bootstrap_mean(labels)))
    return pd.DataFrame(found, columns=["kind", "group", "rows", "mean", "low", "high"])


def scaling(rows: pd.DataFrame) -> pd.DataFrame:
    """Per data set: were labels standardised per source over train and test together?

    ``mean`` and ``sd_off`` are the largest deviations, over sources, of the joint mean from 0 and
    of the joint standard deviation from 1. Where the raw table is there, ``from_raw`` is the
    largest deviation of a label from the raw value standardised so, and ``dropped`` counts raw
    rows that are in neither part (they do not enter the standardisation).
    """
    found = []
    for name, train, test in _both_parts(rows):
        both = pd.concat([train, test])
        labels = both.groupby("source")["label"]
        row = {"data set": name, "mean": labels.mean().abs().max()}
        row["sd_off"] = (labels.std(ddof=0) - 1).abs().max()
        raw = rows[(rows["name"] == name) & (rows["part"] == "raw")]
        if len(raw):
            kept = raw[_among(raw, both, ROW)]
            row["dropped"] = len(raw) - len(kept)
            values = kept.groupby("source")["label"]
            centred = kept["label"] - values.transform("mean")
            scaled = kept.assign(scaled=centred / values.transform("std", ddof=0))
            scaled = scaled.drop_duplicates(ROW, keep="last")[[*ROW, "scaled"]]
            pairs = both.merge(scaled, on=ROW, how="left")
            row["from_raw"] = (pairs["scaled"] - pairs["label"]).abs().max(skipna=False)
        found.append(row)
    return pd.DataFrame(found, columns=["data set", "mean", "sd_off", "from_raw", "dropped"])


def text_fates(rows: pd.DataFrame) -> pd.DataFrame:
    """Per table and form of the text: what became of its mutations (see `release_text`)."""
    found = []
    for table, part in rows.groupby("table", sort=False):
        pairs = list(zip(part["sequence"], part["mutations"], strict=True))
        for form in ("spaced", "plain"):
            fates = [release_text(*pair, spaced=form == "spaced").fates for pair in pairs]
            counted = Counter(fate for row in fates for fate in row)
            as_words = sum("as words" in row for row in fates)
            row = {"table": table, "form": form, "rows": len(part), "rows_as_words": as_words}
            found.append(row | {fate: counted[fate] for fate in FATES})
    return pd.DataFrame(found)


def against_reference(rows: pd.DataFrame, assays: Sequence[Assay]) -> pd.DataFrame:
    """Per source that a data directory of sound assays also has, under the same id: who is right?

    ``forwards`` and ``backwards`` count rows whose mutation is one of the assay's, as written or
    read backwards; ``wild_type``: a row, as stated or undone, gives the assay's wild type;
    ``spearman`` is of the label and the assay's score (higher = better). Raw tables are left aside.
    """
    found = []
    for assay in assays:
        scores = dict(zip(map(format_variant, assay.variants), assay.scores, strict=True))
        own = rows[(rows["source"] == assay.id) & (rows["part"] != "raw")]
        for table, part in own.groupby("table", sort=False):
            turned = part["mutations"].map(lambda written: str(Written(*written[0][::-1])))
            ways = {"forwards": part["written"], "backwards": turned}
            scored = {way: texts.map(scores).dropna() for way, texts in ways.items()}
            either = pd.concat(list(scored.values()))
            row = {"table": table, "source": assay.id, "rows": len(part)}
            row |= {"assay_variants": len(assay)} | {w: len(s) for w, s in scored.items()}
            row["wild_type"] = assay.wild_type in {*part["sequence"], *part["undone"]}
            row["spearman"] = _rank(part["label"].loc[either.index], either)
            found.append(row)
    return pd.DataFrame(found)


def _both_parts(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Name, train part and test part of every data set that has both."""
    for name, part in rows.groupby("name", sort=False):
        train, test = (part[part["part"] == which] for which in ("train", "test"))
        if len(train) and len(test):
            yield name, train, test


def _among(rows: pd.DataFrame, others: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """Which rows agree with one of the others in all of the columns."""
    keys = [pd.MultiIndex.from_frame(part[columns]) for part in (rows, others)]
    return keys[0].isin(keys[1])


def _rank(x: pd.Series, y: pd.Series) -> float:
    enough = len(x) >= 3 and x.nunique() > 1 and y.nunique() > 1
    return float(x.corr(y, method="spearman")) if enough else float("nan")
