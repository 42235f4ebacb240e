"""The report of a ranking: one HTML file that asks nothing of any network and runs no script.

The page is `report.html.jinja`, which escapes all text; here is what it shows. The same ranking
gives the same bytes: no date is written.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd
from scipy.stats import binom

from mutmeta_lib.ranking.check import FEW, learning_curve
from mutmeta_lib.records.files import layout, replacing

if TYPE_CHECKING:
    from mutmeta_lib.ranking.model import Ranking

ROWS = "AVILMCFYWGPSTNQHKRDE"
"""Amino acids as the heat map has them: apolar, aromatic, small or special, polar, charged."""
WIDTH, STEPS, SITES, NEXT = 50, 4, 10, 10
LEVELS = (0.5, 0.8, 0.9, 0.95)
SHOWN = {"experiment", "used", "not_used", "check", "warnings"}  # elsewhere in the report
LINKED = 10_000  # rows in a link, which browsers refuse beyond 2 MiB


def write_report(ranking: "Ranking", path: str | Path) -> None:
    """Write a ranking as one self-contained HTML file; `DiskError` where that cannot be done."""
    with replacing(path) as file:
        file.write_text(render(ranking), encoding="utf-8", newline="\n")


def render(ranking: "Ranking") -> str:
    """The page as text."""
    table = ranking.predict().sort_values("rank", kind="stable")
    measured = ranking.measured
    used, left = measured[measured["used"]], measured[~measured["used"]]
    sign = 1 if ranking.direction == "higher" else -1
    single = table[table["mutant"].str.fullmatch(r"[A-Z]\d+[A-Z]")]
    gain = sign * (single["prediction"] - single["prediction"].median())
    span = gain.abs().quantile(0.98) or 1.0
    ends = [single["prediction"].median() + sign * span * side for side in (-1, 0, 1)]
    single = single.assign(
        position=single["mutant"].str[1:-1].astype(int),
        row=single["mutant"].str[-1].map(ROWS.index),
        step=(STEPS * gain / span).clip(-STEPS, STEPS).round().fillna(0).astype(int),
    )
    strict = {"autoescape": True, "undefined": jinja2.StrictUndefined}
    environment = jinja2.Environment(**strict, trim_blocks=True)
    environment.filters["number"] = number
    source = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    left_out = ranking.left_one_out.dropna(subset=["measured", "predicted"])
    return environment.from_string(source).render(
        ranking=ranking,
        unit=ranking.property or ranking.parameters["property"] or "score",
        table=table,
        n_open=int(table["measured"].isna().sum()),
        n_used=len(used),
        best=next(used.iloc[(-sign * used["score"]).argsort(kind="stable")].itertuples(), None),
        suggested=list(ranking.suggest(NEXT).itertuples()),
        panels=list(_panels(ranking.wild_type, single)),
        rows=ROWS,
        steps=range(-STEPS, STEPS + 1),
        ends=ends,
        sites=_sites(ranking.wild_type, single, sign),
        plot=_plot(left_out),
        curve=_curve(learning_curve(ranking.adapted, ranking.property)),
        levels=_levels(left_out.dropna(subset=["lower", "upper"])),
        verdict=_verdict(ranking.check, ranking.best),
        unused=list(left.groupby("why", sort=False)["mutant"]),
        made=layout({k: v for k, v in ranking.record().items() if k not in SHOWN}),
        linked=LINKED,
        csv=_link(table.head(LINKED)),
    )


def number(value: float) -> str:
    """Three digits as people read them.

    >>> number(-0.123), number(123456.0), number(2.0), number(float("nan"))
    ('−0.123', '123,456', '2.00', '–')
    """
    if not np.isfinite(value):
        return "–"
    large = 1000 <= abs(value) < 1e7
    return (f"{value:,.0f}" if large else f"{value:#.3g}".rstrip(".")).replace("-", "−")


def _panels(wild_type: str, single: pd.DataFrame) -> Iterator[dict]:
    """Stretches of the sequence, each with its cells by colour; x and y count cells."""
    single = single.sort_values(["position", "row"])
    for first in range(1, len(wild_type) + 1, WIDTH):
        numbers = range(first, min(first + WIDTH, len(wild_type) + 1))
        own = single[single["position"].between(numbers[0], numbers[-1])]
        own = own.assign(x=own["position"] - first)
        sequence = wild_type[first - 1 : numbers[-1]]
        yield {
            "numbers": numbers,
            "sequence": sequence,
            "cells": [(step, _cells(rows)) for step, rows in own.groupby("step")],
            "wild": [(x, ROWS.index(one)) for x, one in enumerate(sequence) if one in ROWS],
            "known": list(own[own["measured"].notna()].itertuples()),
            "best": next(own.sort_values("rank").itertuples(), None),
        }


def _cells(rows: pd.DataFrame) -> str:
    """The SVG of substitutions of one colour: letters and numbers alone, not to be escaped."""
    path = '<path d="M{} {}h1v1h-1z"><title>{} {}, rank {}{}</title></path>'
    columns = (rows["x"], rows["row"], rows["mutant"], rows["prediction"].map(number), rows["rank"])
    known = ["" if at != at else f", measured {number(at)}" for at in rows["measured"]]
    return "\n".join(path.format(*cell) for cell in zip(*columns, known, strict=True))


def _sites(wild_type: str, single: pd.DataFrame, sign: int) -> list[tuple]:
    """The sites whose substitutions are predicted furthest from the mean of all, on average."""
    mean = single.groupby("position")["prediction"].mean()
    away = sign * (mean - single["prediction"].mean())
    best = single.sort_values("rank").groupby("position").first()
    known = single.groupby("position")["measured"].count()
    top = away.abs().sort_values(ascending=False, kind="stable").index[:SITES]
    return [(f"{wild_type[at - 1]}{at}", mean[at], away[at], best.loc[at], known[at]) for at in top]


def _plot(rows: pd.DataFrame) -> dict:
    """Measured (x) and predicted without that label (y) with intervals, in a square of 300."""
    values = rows[["measured", "predicted", "lower", "upper"]].to_numpy(float)
    if not len(values):
        return {"points": [], "ticks": []}
    low, high = np.nanmin(values), np.nanmax(values)
    pad = 0.04 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - pad, high + pad
    unit = 10.0 ** np.floor(np.log10((high - low) / 4))
    step = unit * max(s for s in (1, 2, 5) if s * unit <= (high - low) / 4)
    marks = step * np.arange(np.ceil(low / step), np.floor(high / step) + 1)
    place = lambda at: np.round(300 * (at - low) / (high - low), 1).tolist()  # noqa: E731
    named = [f"{mark:.6g}".replace("-", "−") for mark in marks]
    points = zip(rows.itertuples(), place(values), strict=True)
    return {"points": list(points), "ticks": list(zip(place(marks), named, strict=True))}


def _curve(table: pd.DataFrame) -> dict:
    """Correlations by number of labels, numbers side by side in 300 by 160; the axis ends at 1."""
    if table.empty:
        return {"points": [], "ticks": []}
    floor = min(0.0, np.floor(5 * table["low"].min()) / 5)
    place = lambda at: round(160 * (at - floor) / (1 - floor), 1)  # noqa: E731
    step = 300 / len(table)
    points = [
        (round((i + 0.5) * step, 1), *map(place, (one.mean, one.low, one.high)), one)
        for i, one in enumerate(table.itertuples())
    ]
    ticks = np.arange(round(5 * floor), 6) / 5
    return {"points": points, "ticks": [(place(at), f"{at:.1f}".replace("-", "−")) for at in ticks]}


def _levels(rows: pd.DataFrame) -> list[tuple]:
    """Per level of interval, scaled from those of 90 %: how many measured values lie inside.

    And how many would, in 95 of 100 cases, if the intervals were right.
    """
    n, away = len(rows), rows["measured"] - rows["predicted"]
    side = (rows["upper"] - rows["predicted"]).where(away > 0, rows["lower"] - rows["predicted"])
    found = []
    for level in LEVELS if n >= FEW else ():
        wide = NormalDist().inv_cdf((1 + level) / 2) / NormalDist().inv_cdf(0.95)
        low, high = binom.interval(0.95, n, level)
        inside = (away.abs() <= wide * side.abs()).sum()
        found.append((level, int(inside), n, int(low), int(high)))
    return found


def _verdict(check: pd.DataFrame, used: str) -> str:
    """The self-check in words; a correlation within 1.96 / √(n − 1) can be chance."""
    known = check.dropna(subset="spearman")
    if known.empty:
        return "The labels are too few or too alike to check how well they are ranked."
    top = known.loc[known["spearman"].idxmax()]
    best = known.loc[known["spearman"] == top["spearman"], "method"].tolist()
    told = "Each label was left out in turn and predicted from the others. "
    told += f"On these {top['n']} labels {' and '.join(f'“{one}”' for one in best)} "
    told += "rank equally well. " if len(best) > 1 else "ranks best. "
    chance = 1.96 / np.sqrt(max(top["n"] - 1, 1))
    if top["spearman"] < chance:
        told += f"But from so few, a correlation below {min(chance, 1):.2f} can be chance: "
        told += "this check cannot say yet whether the ranking holds here. "
    if best == [used]:
        return told + "It made the ranking above."
    return told + f"The ranking above is by “{used}”."


def _link(table: pd.DataFrame) -> str:
    """A table as csv in a link."""
    text = table.to_csv(index=False, float_format="%.4g", lineterminator="\n")
    return "data:text/csv;charset=utf-8," + quote(text, safe=",.-:;=()")
