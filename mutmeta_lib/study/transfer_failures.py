"""Failure signatures: where MAML loses, and what those assays have in common."""

from functools import cache

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

SIGNS = ("identity", "length", "variants", "sites", "skewness", "ties", "blosum", "maml_0", "ridge")
"""What a failure is set against: properties of the assay, and what controls make of it."""


def failure_table(
    full: pd.DataFrame, known: pd.DataFrame, nearest: pd.DataFrame, decided_at: int
) -> pd.DataFrame:
    """Per assay of the regime ``proteins``: Spearman of the main methods, who won, what is odd."""
    part = full[full["regime"] == "proteins"]
    if part.empty or "maml" not in set(part["method"]):
        return pd.DataFrame()
    wide = part[part["shots"] == decided_at].pivot(
        index="assay", columns="method", values="spearman"
    )
    names = ["maml", "multitask", "finetune", "ridge", "gp", "onehot", "blosum"]
    table = wide[[name for name in names if name in wide]].copy()
    blind = part[(part["shots"] == 0) & (part["method"] == "maml")].set_index("assay")
    table["maml_0"] = blind["spearman"]
    rivals = [name for name in ("ridge", "blosum", "maml_0") if name in table]
    table["behind"] = table[rivals].max(axis=1) - table["maml"]
    table["best_rival"] = table[rivals].idxmax(axis=1)
    near = nearest[nearest["regime"] == "proteins"].set_index("assay")["identity"]
    table["identity"] = near
    extra = ["property", "role", "cluster", "variants", "length", "sites", "skewness", "ties"]
    return table.join(known[extra]).reset_index()


def signatures(failures: pd.DataFrame, n_boot: int = 1000) -> pd.DataFrame:
    """Rank correlation, over assays, of MAML's lead with what might explain it.

    Leads are over ridge regression, fine-tuning and BLOSUM62; intervals resample clusters.
    """
    rows = []
    for rival in ("ridge", "finetune", "blosum"):
        if rival not in failures:
            continue
        lead = (failures["maml"] - failures[rival]).to_numpy()
        for sign in SIGNS:
            if sign not in failures or sign == rival:
                continue
            values = failures[sign].to_numpy(dtype=float)
            given = np.isfinite(lead) & np.isfinite(values)
            if given.sum() < 4 or np.ptp(values[given]) == 0:
                continue
            clusters = failures["cluster"].to_numpy()[given]
            found = _correlation(lead[given], values[given], clusters, n_boot)
            rows.append({"rival": rival, "sign": sign, **found})
    return pd.DataFrame(rows)


def _correlation(x: np.ndarray, y: np.ndarray, clusters: np.ndarray, n_boot: int) -> dict:
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(clusters == one) for one in np.unique(clusters)]

    @cache  # of few clusters there are few resamples
    def resampled(*picks: int) -> float:
        rows = np.concatenate([members[pick] for pick in picks])
        if np.ptp(x[rows]) == 0 or np.ptp(y[rows]) == 0:
            return np.nan
        return spearmanr(x[rows], y[rows]).statistic

    picks = rng.integers(len(members), size=(n_boot, len(members)))
    drawn = [value for one in picks.tolist() if not np.isnan(value := resampled(*one))]
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (np.nan, np.nan)
    value = float(spearmanr(x, y).statistic)
    return {"mean": value, "low": low, "high": high, "n_assays": len(x), "n_units": len(members)}
