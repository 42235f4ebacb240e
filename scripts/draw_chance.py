"""Draw "How such numbers arise" for the first page from its committed record: `make figures`.

Above, the chance that one comparison reports the paper's figure; below, the time that is saved if
time goes with the rows that are read. Written like the scorecard, with chance.md beside it.
"""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from draw_scorecard import ROOT, WIDTH, Ink, inked, write
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mutmeta_lib.records.record import Record, read_record
from mutmeta_lib.reproduction.chance import FIGURES, time_saved

METHODS = {
    "mean": "always the mean",
    "finetuned": "fine-tuning, against itself",
    "released": "joint updates, as released",
    "second_order": "MAML, as described",
}
"""Method -> how the figure calls it."""
NAMES = {"binding_affinity": "Binding affinity*", "soluprotmut_solubility": "Solubility"}
SIZES = {8: ("o", ":"), 16: ("s", "-"), 32: ("^", "--")}
"""Rows of a draw -> marker and line."""


def read() -> Record:
    """The committed record."""
    return read_record(ROOT / "book" / "records" / "full" / "chance.json")


def chances(record: Record) -> pd.DataFrame:
    """Chance of the paper's gain in %, with its interval: a row per target, method and size."""
    table = record.table("chances")
    asked = [
        table[(table["target"] == target) & (table["metric"] == f"over_{figure}")]
        for target, (figure, _) in FIGURES.items()
    ]
    made = pd.concat(asked).rename(columns={"mean": "chance"})
    return made[made["method"].isin(METHODS)].reset_index(drop=True)


def times(record: Record) -> pd.DataFrame:
    """Training rows, time saved by rows, and by the seconds of joint updates, at 16 rows."""
    splits = record.table("splits").query("size == 16 and method == 'released'")
    made = splits.groupby("target", sort=False).agg(
        rows=("train_rows", "first"), seconds=("saved", "mean")
    )
    return made.assign(by_rows=[time_saved(n, 16, **bill(record)) for n in made["rows"]])


def bill(record: Record) -> dict[str, int]:
    """What `time_saved` asks beside rows: two other data sets, and the record's epochs."""
    names = ("finetune_epochs", "maml_epochs", "inner_steps")
    return {"sets": 2} | {name: record.parameters[name] for name in names}


def in_words(chances: pd.DataFrame, times: pd.DataFrame) -> str:
    """The figure for readers who do not see it, in one paragraph."""
    told = []
    for target, (figure, _) in FIGURES.items():
        own = chances[(chances["target"] == target) & (chances["size"] == 16)]
        each = (f"{METHODS[row.method]}, {row.chance:.0f} %" for row in own.itertuples())
        told.append(f"{NAMES[target]}, {figure} % or more: {'; '.join(each)}".replace("*", ""))
    saved = ", ".join(
        f"{row.by_rows:.0f} % with the {row.rows:,} training rows of {NAMES[row.Index].lower()}"
        for row in times.itertuples()
    ).replace("*", "")
    return (
        "Three panels. Above, the chance that one comparison over 16 rows reports the paper’s "
        f"gain although nothing was gained. {'. '.join(told)}. Below, the training time saved by "
        f"meta-training if time goes with the rows that are read: {saved}; it rises with the "
        "length of the file alone, and crosses the paper’s 55 % and 65 % on the way."
    )


def draw(record: Record, *, scheme: str) -> Figure:
    """Both kinds of panels in one of `INKS`."""
    table = chances(record)
    with inked(scheme) as ink:
        height, block = 7.1, 0.27 * len(METHODS) + 0.15
        figure, top = plt.figure(figsize=(WIDTH, height)), height - 0.1
        top = _head(figure, top, "How such numbers arise", ink, 12)
        drawn = f"{record.parameters['splits']} re-splits"
        words = f"Chance that one comparison reports the paper’s gain, {drawn}"
        top = _head(figure, top, words, ink, 9.5, faint=True) - 0.05
        for target, (gain, _) in FIGURES.items():
            top = _head(figure, top, f"{NAMES[target]}: {gain} % or more", ink, 10)
            axis = figure.add_axes((0.405, (top - block) / height, 0.34, block / height))
            _block(axis, table[table["target"] == target], ink)
            top -= block + 0.3
        top = _head(figure, top - 0.12, "Training time saved, by rows × epochs alone", ink, 10)
        axis = figure.add_axes((0.115, (top - 1.75) / height, 0.86, 1.65 / height))
        _time(axis, record, ink)
        _foot(figure, height, ink)
    return figure


def _head(
    figure: Figure, top: float, words: str, ink: Ink, size: float, *, faint: bool = False
) -> float:
    """A line of words below ``top``, in inches from the bottom; returns where it ends."""
    height = figure.get_figheight()
    how = {"size": size, "weight": "normal" if faint else "bold", "va": "top"}
    figure.text(0.012, top / height, words, color=ink.faint if faint else ink.text, **how)
    return top - size / 72 - 0.08


def _block(axis: Axes, table: pd.DataFrame, ink: Ink) -> None:
    beside = axis.get_yaxis_transform()
    for at, (method, name) in enumerate(METHODS.items()):
        own = table[table["method"] == method].set_index("size")
        axis.text(-0.04, at, name, ha="right", va="center", transform=beside)
        for nth, (size, (marker, _)) in enumerate(SIZES.items()):
            row, place = own.loc[size], at + 0.25 * (nth - 1)
            axis.plot([row["low"], row["high"]], [place] * 2, color=ink.ours, lw=1.2)
            how = {"color": ink.ours, "ms": 5, "mfc": ink.ours if size == 16 else ink.paper}
            axis.plot([row["chance"]], [place], marker, **how)
            where = {"ha": "right", "va": "center", "transform": beside, "size": 9}
            axis.text(1.25 + 0.23 * nth, at, f"{row['chance']:.0f} %", **where)
    for nth, size in enumerate(SIZES):
        where = {"ha": "right", "va": "center", "transform": beside, "size": 9}
        words = f"rows: {size}" if size == min(SIZES) else f"{size}"
        axis.text(1.25 + 0.23 * nth, -0.85, words, color=ink.faint, **where)
    axis.set_ylim(len(METHODS) - 0.4, -0.6)
    axis.set_xlim(0, 60)
    axis.set_xticks([0, 20, 40, 60], ["0", "20", "40", "60 %"])
    axis.grid(visible=False, axis="y")


def _time(axis: Axes, record: Record, ink: Ink) -> None:
    rows = np.geomspace(400, 40_000, 100)
    for size, (_, line) in SIZES.items():
        saved = [time_saved(n, size, **bill(record)) for n in rows]
        axis.plot(rows, saved, line, color=ink.ours, lw=1.6)
    for row, place in zip(times(record).itertuples(), ((10_500, 24), (4600, 6)), strict=True):
        axis.plot([row.rows], [row.by_rows], "s", color=ink.ours, ms=6)
        words = f"{NAMES[row.Index]}\n{row.rows:,} rows: {row.by_rows:.0f} %"
        blank = {"facecolor": ink.paper, "edgecolor": "none", "pad": 1}
        leader = {"arrowstyle": "-", "color": ink.faint, "lw": 0.8, "relpos": (0.2, 1)}
        how = {"size": 9, "arrowprops": leader, "bbox": blank}
        axis.annotate(words, (row.rows, row.by_rows), place, **how)
    for (_, time), where in zip(FIGURES.values(), ("bottom", "top"), strict=True):
        axis.axhline(time, color=ink.theirs, lw=2, zorder=1.2)
        beyond = time + (2 if where == "bottom" else -2)
        axis.text(410, beyond, f"{time} %", color=ink.theirs, size=9, va=where, bbox=blank)
    axis.set_xscale("log")
    axis.minorticks_off()
    axis.set_xlim(400, 40_000)
    axis.set_ylim(0, 100)
    axis.set_xticks([500, 2000, 5000, 20_000], ["500", "2,000", "5,000", "20,000"])
    axis.tick_params(left=True, labelleft=True, labelcolor=ink.text)
    axis.set_yticks([0, 50, 100])
    axis.set_xlabel("training rows of the data set, whatever the model")


def _foot(figure: Figure, height: float, ink: Ink) -> None:
    """What the marks mean."""
    point = {"ms": 5, "color": ink.ours, "lw": 1.6}
    marks = [
        (Line2D([], [], marker=m, ls=ls, mfc=ink.ours if n == 16 else ink.paper, **point), f"{n}")
        for n, (m, ls) in SIZES.items()
    ]
    marks[-1] = (marks[-1][0], f"{max(SIZES)} rows in a draw")
    marks.append((Line2D([], [], color=ink.theirs, lw=2), "the paper’s"))
    figure.legend(
        *zip(*marks, strict=True), loc="lower left", bbox_to_anchor=(0, 0.2 / height), ncols=4,
        fontsize=9, handlelength=2.4, columnspacing=1, borderpad=0.2,
    )  # fmt: skip
    note = "* in the place of functional fitness, whose file is not in the public code"
    figure.text(0.012, 0.08 / height, note, size=9, color=ink.faint)


def shown() -> tuple[Callable[[str], Figure], str]:
    """How the figure is drawn in a scheme, and its words."""
    record = read()
    return lambda scheme: draw(record, scheme=scheme), in_words(chances(record), times(record))


if __name__ == "__main__":
    write("chance", *shown())
