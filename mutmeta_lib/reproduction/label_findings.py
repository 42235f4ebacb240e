"""What the labels of the audited tables say: signs, scaling, agreement with sound measurements.

Counterpart of `findings` for measured values; each function returns one tidy table.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import format_variant
from mutmeta_lib.reproduction.findings import Tables, by_key, row_keys
from mutmeta_lib.reproduction.release import ReleaseFile, undo
from mutmeta_lib.study.bootstrap import bootstrap_mean


def agreement(first: Sequence[ReleaseFile], second: Sequence[ReleaseFile]) -> pd.DataFrame:
    """Spearman correlation of the labels of rows that two sets of tables share.

    Rows are the same when sequence and mutations are: a model reads the same. They are grouped by
    the source of the second; a source of several proteins counts as one, and a correlation needs
    three rows.
    """
    labels = {
        key[1:]: label
        for file in first
        for key, label in zip(row_keys(file), file.labels, strict=True)
    }
    pairs = defaultdict(list)
    for file in second:
        for (source, *key), label in zip(row_keys(file), file.labels, strict=True):
            if tuple(key) in labels:
                pairs[source].append((labels[tuple(key)], label))
    return pd.DataFrame(
        [(source, len(p), _rank(*zip(*p, strict=True))) for source, p in sorted(pairs.items())],
        columns=["source", "rows", "spearman"],
    )


def proline(
    files: Sequence[ReleaseFile], found: pd.DataFrame, kinds: Mapping[str, str]
) -> pd.DataFrame:
    """Mean label of substitutions to proline and of all others, per kind of measurement.

    Proline fits few places of a fold, so on average such substitutions destabilise: the sign of
    the first mean, against the second, tells which way a label points. ``kinds`` names the
    repository's features; the new residue is the first letter in backwards rows.
    """
    values = defaultdict(lambda: ([], []))
    for file in files:
        here = found[(found["table"] == file.id) & found["backwards"]]
        backwards = set(here["source"])
        for i, mutations in enumerate(file.mutations):
            kind = kinds.get(file.features[i])
            if kind is None or len(mutations) > 1 or mutations[0].first == mutations[0].last:
                continue
            new = mutations[0].first if file.sources[i] in backwards else mutations[0].last
            values[kind][new != "P"].append(file.labels[i])
    rows = []
    for kind in dict.fromkeys(kinds.values()):
        for group, of in zip(("to proline", "to another residue"), values[kind], strict=True):
            mean, low, high = bootstrap_mean(np.array(of))
            rows.append({"kind": kind, "group": group, "rows": len(of)})
            rows[-1] |= {"mean": mean, "low": low, "high": high}
    return pd.DataFrame(rows)


def scaling(files: Tables) -> pd.DataFrame:
    """Per data set: were labels standardised per source over train and test together?

    ``mean`` and ``sd_off`` are the largest deviations, over sources, of the joint mean from 0 and
    of the joint standard deviation from 1. Where the raw table is there, ``from_raw`` is the
    largest deviation of a label from the raw value standardised so, and ``dropped`` counts raw
    rows that are in neither part (they do not enter the standardisation).
    """
    rows = []
    for name in dict.fromkeys(file.name for file in files.values()):
        parts = [files[f"{name}_{p}"] for p in ("train", "test") if f"{name}_{p}" in files]
        if len(parts) < 2:
            continue
        labels = np.concatenate([part.labels for part in parts])
        groups = by_key([source for part in parts for source in part.sources])
        row = {
            "data set": name,
            "mean": max(abs(labels[index].mean()) for index in groups.values()),
            "sd_off": max(abs(labels[index].std() - 1) for index in groups.values()),
            "from_raw": None,
            "dropped": None,
        }
        raw = files.get(f"{name}_raw")
        if raw is not None:
            keys = [key for part in parts for key in row_keys(part)]
            kept = set(keys)
            keep = np.array([key in kept for key in row_keys(raw)])
            row["dropped"] = int((~keep).sum())
            scaled = np.full(len(raw), np.nan)
            for index in by_key(raw.sources).values():
                here = np.array(index)[keep[index]]
                scaled[here] = (raw.labels[here] - raw.labels[here].mean()) / raw.labels[here].std()
            expected = dict(zip(row_keys(raw), scaled, strict=True))
            row["from_raw"] = max(abs(expected[k] - y) for k, y in zip(keys, labels, strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def against_reference(files: Sequence[ReleaseFile], assays: Sequence[Assay]) -> pd.DataFrame:
    """Per source that a data directory of sound assays also has, under the same id: who is right?

    Columns ``forwards`` and ``backwards`` count rows whose mutation is one of the assay's, as
    written or read backwards; ``wild_type`` says whether undoing or taking a row at its word ever
    gives the assay's wild type; ``spearman`` is that of the label with the assay's score (higher =
    better) over rows found either way.
    """
    rows = []
    for assay in assays:
        scores = dict(zip(map(format_variant, assay.variants), assay.scores, strict=True))
        for file in files:
            index = [i for i, source in enumerate(file.sources) if source == assay.id]
            if not index:
                continue
            pairs, found = [], Counter()
            for i in index:
                ((first, position, last),) = file.mutations[i]
                for way, text in (
                    ("forwards", f"{first}{position}{last}"),
                    ("backwards", f"{last}{position}{first}"),
                ):
                    if text in scores:
                        found[way] += 1
                        pairs.append((file.labels[i], scores[text]))
            sequences = {file.sequences[i] for i in index}
            sequences |= {undo(file.sequences[i], file.mutations[i]) for i in index}
            rows.append(
                {
                    "table": file.id,
                    "source": assay.id,
                    "rows": len(index),
                    "assay_variants": len(assay),
                    "forwards": found["forwards"],
                    "backwards": found["backwards"],
                    "wild_type": assay.wild_type in sequences,
                    "spearman": _rank(*zip(*pairs, strict=True)) if pairs else float("nan"),
                }
            )
    return pd.DataFrame(rows)


def _rank(x: Sequence[float], y: Sequence[float]) -> float:
    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return float("nan")
    return float(spearmanr(x, y).statistic)
