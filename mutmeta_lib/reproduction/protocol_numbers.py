"""From the errors of many draws and seeds to gains, their spread, and the numbers pages print."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from mutmeta_lib.records.record import number
from mutmeta_lib.reproduction.protocol_resample import resampled, resampled_difference
from mutmeta_lib.reproduction.protocol_steps import ARMS

AGAINST = {
    "reported": ("finetuned", True),
    "reported_slow": ("finetuned_slow", True),
    "same_rows": ("finetuned", False),
    "same_rows_slow": ("finetuned_slow", False),
    "same_labels": ("initial_adapted", False),
    "mean": ("mean", False),
}
"""Comparison -> the method compared with, and whether its error is over the whole test part."""

CLAIMS = {
    "binding_affinity": {"accuracy": 29, "time": 65},
    "soluprotmut_solubility": {"accuracy": 94, "time": 55},
}
"""The paper's gains in % by data set, if binding affinity stands for functional fitness."""

SHORT = {
    "binding_affinity": "binding",
    "fireprot_dTm": "dTm",
    "soluprotmut_solubility": "solubility",
}
"""Data set -> its name in numbers."""

SHOWN = 16
"""Support and query rows of numbers and histograms: the public function's default."""

EDGES = np.logspace(-2, 2, 41)
"""Bins of error ratios; what lies beyond goes into the outermost."""


def shown(sizes: Collection[int]) -> int:
    """The size of numbers and histograms, of those that were run."""
    return SHOWN if SHOWN in sizes else max(sizes)


def gain_row(results: Sequence[Mapping], size: int, method: str, against: str) -> tuple[dict, dict]:
    """One comparison over all seeds and draws: a row of the table of gains, and one histogram.

    ``results`` holds one target's part of `run_seed` per seed.
    """
    other, whole = AGAINST[against]

    def errors(what: str) -> tuple[np.ndarray, np.ndarray]:
        own = np.array([r["draws"][str(size)][method][what] for r in results], dtype=float)
        if whole:
            return own, np.array([[r["whole"][other][what]] for r in results], dtype=float)
        return own, np.array([r["draws"][str(size)][other][what] for r in results], dtype=float)

    values, others = errors("mse")
    gain, low, high = resampled(values, others)
    single = 100 * (1 - values / others)
    rank, rank_low, rank_high = resampled_difference(np.subtract(*errors("spearman")))
    q = np.quantile(single, [0.025, 0.25, 0.5, 0.75, 0.975])
    row = {
        "size": size,
        "method": method,
        "against": against,
        "gain": gain,
        "low": low,
        "high": high,
        **dict(zip(("q2_5", "q25", "q50", "q75", "q97_5"), q, strict=True)),
        "first": single[0, 0],
        "over_0": 100 * np.mean(single > 0),
        "over_29": 100 * np.mean(single >= 29),
        "over_94": 100 * np.mean(single >= 94),
        "spearman": rank,
        "spearman_low": rank_low,
        "spearman_high": rank_high,
        "seeds": values.shape[0],
        "draws": values.shape[1],
    }
    counts, _ = np.histogram(np.clip(values / others, EDGES[0], EDGES[-1]), EDGES)
    return row, {"low": EDGES[:-1], "high": EDGES[1:], "share": counts / values.size}


def compared() -> list[tuple[str, str]]:
    """Method and comparison of every gain; fine-tuning with itself shows what chance does."""
    return [(arm, against) for arm in ARMS for against in AGAINST] + [("finetuned", "reported")]


def error_rows(results: Sequence[Mapping], size: int) -> list[dict]:
    """Mean error and rank correlation per method over draws and seeds."""
    rows = []
    for method in results[0]["draws"][str(size)]:
        drawn = [r["draws"][str(size)][method] for r in results]
        rows.append(
            {
                "size": size,
                "method": method,
                "mse": np.mean([d["mse"] for d in drawn]),
                "median_mse": np.median([d["mse"] for d in drawn]),
                "spearman": np.nanmean(np.array([d["spearman"] for d in drawn], dtype=float)),
            }
        )
    return rows


def whole_rows(results: Sequence[Mapping]) -> list[dict]:
    """Error and rank correlation over the whole test part, mean and range over seeds."""
    rows = []
    for method in results[0]["whole"]:
        found = [r["whole"][method] for r in results]
        errors = [f["mse"] for f in found]
        rows.append(
            {
                "method": method,
                "mse": np.mean(errors),
                "least": min(errors),
                "most": max(errors),
                "spearman": np.mean([f["spearman"] for f in found]),
            }
        )
    return rows


def second_rows(results: Sequence[Mapping]) -> list[dict]:
    """Processor seconds per phase, mean and range over seeds."""
    rows = []
    for phase in results[0]["seconds"]:
        found = [r["seconds"][phase] for r in results]
        rows.append(
            {"phase": phase, "seconds": np.mean(found), "least": min(found), "most": max(found)}
        )
    return rows


def protocol_numbers(
    gains: pd.DataFrame, whole: pd.DataFrame, seconds: pd.DataFrame
) -> dict[str, dict]:
    """Numbers of the record; those of draws are at the size that is `shown`.

    At another size, ``_at_8`` say, there are the gain, the range of single draws, and the ranks.
    """
    named = {}
    size = shown(set(gains["size"]))
    for row in gains[gains["size"] != size].to_dict("records"):
        n = int(row["seeds"] * row["draws"])
        name = f"{_place(row)}_{row['method']}_{row['against']}_at_{row['size']}"
        named[name] = number(row["gain"], row["low"], row["high"], n, "%")
        named[f"{name}_draws"] = number(row["q50"], row["q2_5"], row["q97_5"], n, "%")
        named[f"{name}_spearman"] = number(
            row["spearman"], row["spearman_low"], row["spearman_high"], n
        )
    for row in gains[gains["size"] == size].to_dict("records"):
        n = int(row["seeds"] * row["draws"])
        name = f"{_place(row)}_{row['method']}_{row['against']}"
        named[name] = number(row["gain"], row["low"], row["high"], n, "%")
        named[f"{name}_draws"] = number(row["q50"], row["q2_5"], row["q97_5"], n, "%")
        named[f"{name}_first"] = number(row["first"], unit="%")
        for share in ("over_0", "over_29", "over_94"):
            named[f"{name}_{share}"] = number(row[share], n=n, unit="%")
        named[f"{name}_spearman"] = number(
            row["spearman"], row["spearman_low"], row["spearman_high"], n
        )
    for row in whole.to_dict("records"):
        name = f"{_place(row)}_{row['method']}_whole"
        named[name] = number(row["mse"], row["least"], row["most"], unit="sd²")
        named[f"{name}_spearman"] = number(row["spearman"])
    for row in seconds.to_dict("records"):
        named[f"{_place(row)}_{row['phase']}_seconds"] = number(
            row["seconds"], row["least"], row["most"], unit="s"
        )
    for row in seconds[seconds["phase"] == "finetuned"].to_dict("records"):
        for arm in ARMS:
            own = named[f"{_place(row)}_{arm}_{size}_seconds"]["value"]
            named[f"{_place(row)}_{arm}_time"] = number(100 * (1 - own / row["seconds"]), unit="%")
    return named


def _place(row: Mapping) -> str:
    target = SHORT.get(row["target"], row["target"])
    return f"{row['encoder']}_{row['encoding']}_{target}"
