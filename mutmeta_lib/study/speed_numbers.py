"""From followed adaptations to what a page says of time: savings, bills, and growth with labels.

Seeds are averaged within an assay; protein clusters are resampled. A share of time saved compares
sums over assays (what a laboratory with all of them would save), so that an adaptation of no length
has a place in it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mutmeta_lib.records.record import number
from mutmeta_lib.study.estimates import bootstrap_mean, bootstrap_ratio
from mutmeta_lib.study.intervals import mean_number

ARMS = ("maml", "multitask")
"""Starts whose time is compared with fine-tuning's."""


def speed_numbers(rows: dict[str, pd.DataFrame], tasks_counted: Sequence[int]) -> dict[str, dict]:
    """The named numbers.

    ``saved_<arm>_<labels>``: share of the seconds saved until fine-tuning's last query error is
    reached, fine-tuning's own being those until it first reaches it; ``saved_of_all_<arm>_...``
    the same against all of fine-tuning's steps; with ``_<property>`` for one property, with
    ``_over_<n>`` with meta-training on the bill of n new assays. ``reached_...``: share of draws
    that get there at all; ``worse_than_start_<labels>``: share of draws where fine-tuning ends with
    more error than it began with; ``break_even_...``: new assays after which meta-training is paid
    for (open where it never is). ``gain_<arm>_<labels>`` and ``spearman_...``: what equal steps
    bought.
    """
    draws, costs = rows["draws"], rows["costs"]
    made = _meta_training(costs)
    for k, here in draws.groupby("labels"):
        table = per_assay(here)
        ends = table.loc["finetune"]
        made[f"worse_than_start_{k}"] = mean_number(ends["worse"], ends["cluster"], "draws")
        made[f"finetune_seconds_{k}"] = mean_number(ends["seconds"], ends["cluster"], "s")
        made[f"finetune_all_seconds_{k}"] = mean_number(ends["seconds_end"], ends["cluster"], "s")
        for arm in ("maml", "multitask", "finetune"):
            own = table.loc[arm]
            made[f"spearman_{arm}_{k}"] = mean_number(
                own["spearman_end"], own["cluster"], "Spearman"
            )
        for arm in ARMS:
            own = table.loc[arm]
            cost = made[f"meta_training_{arm}"]["value"]
            made[f"reached_{arm}_{k}"] = mean_number(own["reached"], own["cluster"], "draws")
            made[f"{arm}_seconds_{k}"] = mean_number(own["seconds"], own["cluster"], "s")
            made[f"saved_{arm}_{k}"] = saved(own["seconds"], ends["seconds"], ends["cluster"])
            made[f"saved_of_all_{arm}_{k}"] = saved(
                own["seconds"], ends["seconds_end"], ends["cluster"]
            )
            made[f"steps_saved_{arm}_{k}"] = saved(own["steps"], ends["steps"], ends["cluster"])
            made[f"gain_{arm}_{k}"] = _gain(own, ends)
            for n in tasks_counted:
                made[f"saved_{arm}_{k}_over_{n}"] = saved(
                    own["seconds"] + cost / n, ends["seconds"], ends["cluster"]
                )
            for against, column in (("", "seconds"), ("_of_all", "seconds_end")):
                difference = ends[column] - own["seconds"]
                made[f"break_even{against}_{arm}_{k}"] = _ends(
                    bootstrap_ratio(np.full(len(own), cost), difference, ends["cluster"]),
                    len(own),
                    "assays",
                )
            for name, part in ends.groupby("property"):
                mine = own.loc[part.index]
                made[f"saved_{arm}_{k}_{name}"] = saved(
                    mine["seconds"], part["seconds"], part["cluster"]
                )
                made[f"saved_of_all_{arm}_{k}_{name}"] = saved(
                    mine["seconds"], part["seconds_end"], part["cluster"]
                )
    made["left_out_draws"] = number(len(rows["left_out"]), n=len(draws) // 3, unit="draws")
    made |= _rapid(rows["rapid"])
    if len(rows["sizes"]):
        made |= size_numbers(rows["sizes"])
    per_variant = rows["embedding"]["seconds_per_variant"]
    made["embedding_seconds_per_variant"] = number(
        per_variant.mean(), per_variant.min(), per_variant.max(), len(per_variant), "s"
    )
    return made


def per_assay(draws: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, indexed by arm and assay."""
    table = draws.assign(
        worse=draws["error_end"] > draws["error_start"],
        log_error=np.log(draws["error_end"].clip(1e-12, 1e6)),
    )
    numeric = ["steps", "seconds", "seconds_end", "spearman_start", "spearman_end", "log_error"]
    kept = {name: (name, "mean") for name in [*numeric, "reached", "worse"]}
    kept |= {name: (name, "first") for name in ("property", "cluster")}
    return table.groupby(["arm", "assay"]).agg(**kept)


def saved(own: pd.Series, other: pd.Series, clusters: pd.Series) -> dict:
    """One minus the ratio of summed seconds, with its interval over clusters."""
    ratio, low, high = bootstrap_ratio(own, other, clusters)
    return _ends((1 - ratio, 1 - high, 1 - low), len(own), "of the time")


def _ends(values: tuple[float, float, float], n: int, unit: str) -> dict:
    """A number whose infinite ends are left open."""
    value, low, high = (float(v) if np.isfinite(v) else float("nan") for v in values)
    return number(value, low, high, n, unit)


def _gain(own: pd.DataFrame, ends: pd.DataFrame) -> dict:
    """Share of fine-tuning's error that is saved at equal steps, geometric mean over assays."""
    ratio = own["log_error"] - ends["log_error"]
    mean, low, high = bootstrap_mean(ratio.to_numpy(), ends["cluster"].to_numpy())
    return number(1 - np.exp(mean), 1 - np.exp(high), 1 - np.exp(low), len(own), "of the error")


def _meta_training(costs: pd.DataFrame) -> dict[str, dict]:
    made = {}
    for arm in ARMS:
        seconds = costs.loc[costs["arm"] == arm, "seconds"]
        low, high = seconds.min(), seconds.max()
        made[f"meta_training_{arm}"] = number(seconds.mean(), low, high, len(seconds), "s")
    return made


def _rapid(rapid: pd.DataFrame) -> dict[str, dict]:
    """Rank correlation after few steps: the means, one step less none, and one step over ten."""
    made = {}
    if not len(rapid):
        return made
    steps = [name for name in rapid if name.startswith("after_")]
    table = rapid.groupby(["arm", "assay"]).agg(
        **{name: (name, "mean") for name in steps}, cluster=("cluster", "first")
    )
    for arm, own in table.groupby(level="arm"):
        for name in steps:
            made[f"rapid_{arm}_{name}"] = mean_number(own[name], own["cluster"], "Spearman")
        made[f"rapid_{arm}_first_step"] = mean_number(
            own["after_1"] - own["after_0"], own["cluster"], "Spearman"
        )
        made[f"rapid_{arm}_ten_steps"] = mean_number(
            own["after_10"] - own["after_0"], own["cluster"], "Spearman"
        )
        made[f"rapid_{arm}_share"] = _ends(
            bootstrap_ratio(own["after_1"], own["after_10"], own["cluster"]),
            len(own),
            "of the correlation",
        )
    return made


def size_numbers(sizes: pd.DataFrame) -> dict[str, dict]:
    """How seconds grow with labels, and whether a fixed support makes fine-tuning flat as well.

    ``exponent_<start>_<kind>``: slope of log seconds against log labels (0 is flat, 1
    proportional); ``fixed_maml_over_finetune`` and ``epochs_maml_over_finetune``: seconds of the
    one over the other at the largest size; ``flat_saving``: the share of time that MAML on a fixed
    support saves against fine-tuning by epochs there, and ``flat_saving_finetune`` the same for
    fine-tuning on the fixed support.
    """
    table = sizes.groupby(["start", "kind", "assay", "labels"])["seconds"].mean()
    made = {}
    for (start, kind), own in table.groupby(level=["start", "kind"]):
        slopes = []
        for _, one in own.groupby(level="assay"):
            labels = one.index.get_level_values("labels").to_numpy()
            slopes.append(np.polyfit(np.log(labels), np.log(one.to_numpy()), 1)[0])
        mean, low, high = bootstrap_mean(np.array(slopes))
        made[f"exponent_{start}_{kind}"] = number(mean, low, high, len(slopes), "exponent")
    largest = table.xs(sizes["labels"].max(), level="labels")
    for kind in ("fixed", "epochs"):
        ratio = bootstrap_ratio(largest["maml", kind], largest["finetune", kind])
        made[f"{kind}_maml_over_finetune"] = _ends(ratio, len(largest["maml", kind]), "ratio")
    slow = largest["finetune", "epochs"]
    for name, start in (("flat_saving", "maml"), ("flat_saving_finetune", "finetune")):
        made[name] = saved(largest[start, "fixed"], slow, pd.Series(range(len(slow))))
    return made


def speed_tables(rows: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Tables of the record: draws, mean curves with intervals, and the parts of the bill."""
    tables = {
        "draws": rows["draws"].round(5),
        "steps": _curve(rows["curves"], "step"),
        "clock": _curve(rows["clock"], "share"),
        "costs": rows["costs"].round(3),
        "rates": rows["rates"].round(4),
        "embedding": rows["embedding"].round(5),
    }
    if len(rows["rapid"]):
        tables["rapid"] = rows["rapid"].round(5)
    if len(rows["sizes"]):
        tables["sizes"] = rows["sizes"].round(5)
        tables["size_means"] = _size_means(rows["sizes"])
    if len(rows["left_out"]):
        tables["left_out"] = rows["left_out"]
    return tables


def _curve(rows: pd.DataFrame, along: str) -> pd.DataFrame:
    """Mean correlation and log error ratio per arm, labels and place, with intervals."""
    made = []
    for (k, arm, place), here in rows.groupby(["labels", "arm", along]):
        means = here.groupby("assay").agg(
            spearman=("spearman", "mean"),
            log_error_ratio=("log_error_ratio", "mean"),
            cluster=("cluster", "first"),
        )
        for metric in ("spearman", "log_error_ratio"):
            mean, low, high = bootstrap_mean(means[metric].to_numpy(), means["cluster"].to_numpy())
            made.append(
                {
                    "labels": k,
                    "method": arm,
                    along: place,
                    "metric": metric,
                    "mean": mean,
                    "low": low,
                    "high": high,
                    "n_assays": len(means),
                    "n_clusters": means["cluster"].nunique(),
                }
            )
    return pd.DataFrame(made).round(5)


def _size_means(sizes: pd.DataFrame) -> pd.DataFrame:
    """Seconds and correlation per start, kind and number of labels, mean over assays."""
    made = []
    for (start, kind, k), here in sizes.groupby(["start", "kind", "labels"]):
        for metric in ("seconds", "spearman"):
            values = here.groupby("assay")[metric].mean().to_numpy()
            mean, low, high = bootstrap_mean(values)
            row = {"method": f"{start}_{kind}", "shots": k, "metric": metric}
            made.append({**row, "mean": mean, "low": low, "high": high, "n_assays": len(values)})
    return pd.DataFrame(made).round(5)
