"""From the errors of many draws and seeds to gains, their spread, and the numbers pages print.

Every function reads tidy rows, ``scores`` (see `run_seed`, with encoder, encoding and seed beside
them). Intervals resample seeds and draws at once: how far the outcome of this protocol can stray.
The proteins are always the same, so they say nothing about other ones.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from mutmeta_lib.records.record import number
from mutmeta_lib.reproduction.protocol_run import ARMS, shown
from mutmeta_lib.reproduction.query_draws import QUANTILES, ratio_histogram

AGAINST = {
    "reported": ("finetuned", True),
    "reported_slow": ("finetuned_slow", True),
    "same_rows": ("finetuned", False),
    "same_rows_slow": ("finetuned_slow", False),
    "same_labels": ("initial_adapted", False),
    "mean": ("mean", False),
}
"""Comparison -> the method compared with, and whether its error is over the whole test part."""
COMPARED = [*product(ARMS, AGAINST), ("finetuned", "reported")]
"""Method and comparison of every gain; fine-tuning with itself shows what chance does."""
LEARNERS = ("initial", "finetuned", "initial_adapted", *ARMS)
"""Methods that read the text, so that its encoding can matter."""
PARTS = {
    "encoding": ((1, "base", 0), (-1, "base", 1)),
    "meta": ((1, "arm", 1), (-1, "base", 1)),
    "interaction": ((1, "arm", 0), (-1, "arm", 1), (-1, "base", 0), (1, "base", 1)),
    "both": ((1, "arm", 0), (-1, "base", 1)),
}
"""The shares of two by two: power, method, and encoding (0 the first, 1 the other) of each error.

``encoding`` is the first encoding's gain without the arm, ``meta`` the arm's gain without the
first encoding, ``both`` that of the two together, and ``interaction`` what they gain together
beyond the product of each alone.
"""
SHORT = {
    "binding_affinity": "binding",
    "fireprot_dTm": "dTm",
    "soluprotmut_solubility": "solubility",
}
"""Target -> its name in numbers."""
RANK = ("spearman", "spearman_low", "spearman_high")
WHERE = ["encoder", "encoding", "target"]
N_BOOT = 2000


def gain(factors: Sequence[tuple[int, np.ndarray]]) -> dict[str, float]:
    """Gain of a product of errors, each to the power +1 or -1, in %, with its interval.

    Errors ``(seeds, draws)``, or ``(seeds, 1)``, are averaged over seeds, and the geometric mean
    of the product is taken over draws. A ratio is the share of the other's error that is saved, a
    ratio of two ratios what one gain is beyond another.

    >>> half, one = np.full((2, 3), 0.5), np.ones((2, 1))
    >>> {name: round(x) for name, x in gain([(1, half), (-1, one)]).items()}
    {'gain': 50, 'low': 50, 'high': 50}
    """
    seeds, draws = factors[0][1].shape
    by_seed, by_draw = _weights((seeds, draws))

    def share(over_seeds: np.ndarray, over_draws: np.ndarray) -> np.ndarray:
        logs = sum(power * np.log(over_seeds @ errors) for power, errors in factors)
        return 100 * (1 - np.exp((logs * over_draws).sum(axis=1)))

    (every,) = share(np.full((1, seeds), 1 / seeds), np.full((1, draws), 1 / draws))
    low, high = np.quantile(share(by_seed, by_draw), [0.025, 0.975])
    return {"gain": float(every), "low": float(low), "high": float(high)}


def rank_difference(values: np.ndarray) -> dict[str, float]:
    """Mean difference in rank correlation ``(seeds, draws)``; a draw of NaN is left out."""
    kept = values[:, ~np.isnan(values).any(axis=0)]
    by_seed, by_draw = _weights(kept.shape)
    low, high = np.quantile(((by_seed @ kept) * by_draw).sum(axis=1), [0.025, 0.975])
    return dict(zip(RANK, map(float, (kept.mean(), low, high)), strict=True))


def _weights(shape: tuple[int, int]) -> list[np.ndarray]:
    """How much each seed and each draw counts in every resample, ``(N_BOOT, n)`` each."""
    rng = np.random.default_rng(0)
    return [rng.multinomial(n, np.full(n, 1 / n), N_BOOT) / n for n in shape]


def _wide(scores: pd.DataFrame) -> pd.DataFrame:
    """Seeds along the rows; ``mse`` and ``spearman``, method and draw along the columns."""
    made = scores.pivot(index="seed", columns=["method", "draw"], values=["mse", "spearman"])
    return made.sort_index(axis=1)


def gain_tables(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables ``gains``, and ``ratios``: histograms of single draws as reported, at one size."""
    gains, ratios = [], []
    for place, own in scores.groupby(WHERE, sort=False):
        here = dict(zip(WHERE, place, strict=True))
        whole, drawn = _wide(own[own["size"] == 0]), own[own["size"] > 0]
        for size, part in drawn.groupby("size", sort=False):
            at_size = _wide(part)
            for method, against in COMPARED:
                other, of_whole = AGAINST[against]
                theirs = whole if of_whole else at_size
                ours, others = at_size["mse", method].to_numpy(), theirs["mse", other].to_numpy()
                ranks = at_size["spearman", method].to_numpy()
                row = here | {"size": size, "method": method, "against": against}
                single = 100 * (1 - ours / others)
                told = gain([(1, ours), (-1, others)])
                told |= {name: np.quantile(single, q) for name, q in QUANTILES.items()}
                told |= {"first": single[0, 0], "over_0": 100 * np.mean(single > 0)}
                told |= {f"over_{least}": 100 * np.mean(single >= least) for least in (29, 94)}
                told |= rank_difference(ranks - theirs["spearman", other].to_numpy())
                gains.append(row | told | {"seeds": ours.shape[0], "draws": ours.shape[1]})
                if size == shown(set(drawn["size"])) and against == "reported":
                    ratios.append(ratio_histogram(ours / others).assign(**row))
    return {"gains": pd.DataFrame(gains), "ratios": pd.concat(ratios, ignore_index=True)}


def contrast_tables(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables ``encodings`` and ``shares``: the first encoding of an encoder against the others.

    ``encodings`` has the gain of the first encoding per method, ``shares`` that of each of `PARTS`
    per arm and base: fine-tuning on the training part, or the same labels and steps without the
    arm. Both are empty when there is one encoding.
    """
    found: dict[str, list[dict]] = {"encodings": [], "shares": []}
    asked = [({"method": name}, [(1, name, 0), (-1, name, 1)]) for name in LEARNERS]
    for arm, base, part in product(ARMS, LEARNERS[1:3], PARTS):
        names = {"arm": arm, "base": base}
        terms = [(power, names[role], i) for power, role, i in PARTS[part]]
        asked.append(({"method": arm, "base": base, "part": part}, terms))
    drawn = scores[scores["size"] > 0]
    for place, own in drawn.groupby(["encoder", "target", "size"], sort=False):
        here = dict(zip(("encoder", "target", "size"), place, strict=True))
        first, *others = ((name, _wide(part)) for name, part in own.groupby("encoding", sort=False))
        for against, theirs in others:
            pair, both = (first[1], theirs), here | {"encoding": first[0], "against": against}
            for what, terms in asked:
                errors = [(power, pair[i]["mse", name].to_numpy()) for power, name, i in terms]
                ranks = [power * pair[i]["spearman", name].to_numpy() for power, name, i in terms]
                row = both | what | gain(errors) | rank_difference(sum(ranks))
                row |= dict(zip(("seeds", "draws"), errors[0][1].shape, strict=True))
                found["shares" if "part" in what else "encodings"].append(row)
    return {name: pd.DataFrame(rows) for name, rows in found.items()}


def mean_tables(scores: pd.DataFrame, seconds: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables ``errors`` (means over draws and seeds), ``whole`` and ``seconds`` (over seeds)."""

    def over(table: pd.DataFrame, by: list[str], **columns) -> pd.DataFrame:
        made = table.groupby([*WHERE, *by], sort=False).agg(**columns).reset_index()
        return made[[*by, *columns, *WHERE]]

    mean, rank = ("mse", "mean"), ("spearman", "mean")
    ends, times = ({"least": (x, "min"), "most": (x, "max")} for x in ("mse", "seconds"))
    drawn, whole = scores[scores["size"] > 0], scores[scores["size"] == 0]
    errors = {"mse": mean, "median_mse": ("mse", "median"), "spearman": rank}
    return {
        "errors": over(drawn, ["size", "method"], **errors),
        "whole": over(whole, ["method"], mse=mean, **ends, spearman=rank),
        "seconds": over(seconds, ["phase"], seconds=("seconds", "mean"), **times),
    }


def protocol_numbers(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict]:
    """The numbers that pages name.

    ``<encoder>_<encoding>_<target>_<method>_<comparison>`` is a gain, followed by ``_draws`` the
    range of single draws, by ``_over_29`` and ``_over_94`` their shares, by ``_spearman`` the
    difference of rank correlations; ``..._<method>_whole`` an error over the whole test part,
    ``..._<arm>_time`` the share of fine-tuning's time saved, ``..._texts`` the texts of test rows.
    ``<encoder>_<target>_<method>_<encoding>_over_<other>`` is the gain of an encoding, with
    ``_and_<base>_<part>`` behind the method a share. ``_at_8`` tells another size than `shown`.
    """
    tables = {name: table.replace({"target": SHORT}) for name, table in tables.items()}
    usual = tables["gains"].groupby("encoder")["size"].agg(lambda sizes: shown(set(sizes)))
    named, place = {}, "{encoder}_{encoding}_{target}"
    gains = {
        "gains": place + "_{method}_{against}",
        "encodings": "{encoder}_{target}_{method}_{encoding}_over_{against}",
        "shares": "{encoder}_{target}_{method}_and_{base}_{part}_{encoding}_over_{against}",
    }
    for row, name in ((r, n) for t, n in gains.items() for r in tables[t].to_dict("records")):
        name = name.format(**row)
        name += "" if row["size"] == usual[row["encoder"]] else f"_at_{row['size']}"
        n = int(row["seeds"] * row["draws"])
        named[name] = number(row["gain"], row["low"], row["high"], n, "%")
        named[f"{name}_spearman"] = number(*(row[end] for end in RANK), n)
        if "over_29" in row:
            named[f"{name}_draws"] = number(row["q50"], row["q2_5"], row["q97_5"], n, "%")
            for share in ("over_29", "over_94"):
                named[f"{name}_{share}"] = number(row[share], n=n, unit="%")
    for row in tables["whole"].to_dict("records"):
        name = f"{place}_{{method}}_whole".format(**row)
        named[name] = number(row["mse"], row["least"], row["most"], unit="sd²")
        named[f"{name}_spearman"] = number(row["spearman"])
    for row in tables["texts"].to_dict("records"):
        name = f"{place}_texts".format(**row)
        named[name] = number(row["texts"], n=row["rows"], unit=f"of {row['rows']} rows")
    for where, own in tables["seconds"].query("target != 'all'").groupby(WHERE):
        spent = own.set_index("phase")["seconds"]
        for arm in ARMS:
            share = 1 - spent[f"{arm}_{usual[where[0]]}"] / spent["finetuned"]
            named[f"{'_'.join(where)}_{arm}_time"] = number(100 * share, unit="%")
    return named
