"""Draw the scorecard of the paper's claims from the committed records: `make figures`.

Above, how well variants are ranked at ten labels; below, the paper's figures beside what was
measured, with verdicts by the book's criteria. The figure is written into book/figures in a light
and in a dark scheme, and with it scorecard.md, which shows them with words for readers who see
neither. Same records, same matplotlib: same bytes.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mutmeta_lib.app.style import style
from mutmeta_lib.records.record import Record, read_record
from mutmeta_lib.study.estimates import verdict

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "book" / "figures"
RECORDS = ("audit", "protocol", "speed", "transfer")
"""Experiments whose records the figure is drawn from."""
CONTROLS = {
    "multitask": "jointly trained start",
    "onehot_blosum": "ridge, + BLOSUM62",
    "onehot": "ridge, one-hot",
    "ridge": "ridge, encoder",
    "finetune": "fine-tuning",
    "blosum": "BLOSUM62, no label",
}
"""Control -> how the figure calls it."""
FIGURES = (
    ("Fitness", "fitness", "binding", "functional_fitness", 29, 65),
    ("Solubility", "solubility", "solubility", "soluprotmut_solubility", 94, 55),
)
"""The paper's: name, group of assays, target in our runs of the public code's comparison, public
files that the claim rests on, % more accurate, % less time."""
PAGE = """```{{image}} figures/{name}-{scheme}.svg
:alt: {words}
:class: scorecard only-{scheme}
:width: 560px
```
"""


def read_records() -> dict[str, Record]:
    """The committed records that the figure is drawn from."""
    folder = ROOT / "book" / "records" / "full"
    return {name: read_record(folder / f"{name}.json") for name in RECORDS}


def ranking(transfer: Record, labels: int = 10) -> pd.DataFrame:
    """Mean Spearman correlation of MAML and of its controls, best first.

    Columns method, name, value, low, high, and MAML's paired lead as lead, lead_low, lead_high (NaN
    for MAML itself).
    """
    rows = []
    for method, name in {"maml": "MAML", **CONTROLS}.items():
        lead = dict.fromkeys(("value", "low", "high"), np.nan)
        if method != "maml":
            lead = _ends(transfer, f"proteins_all_maml_minus_{method}_{labels}")
        row = {"method": method, "name": name, **_ends(transfer, f"proteins_all_{method}_{labels}")}
        rows.append(row | {f"lead_{end}".removesuffix("_value"): x for end, x in lead.items()})
    return pd.DataFrame(rows).sort_values("value", ascending=False, ignore_index=True)


def claims(records: Mapping[str, Record]) -> pd.DataFrame:
    """The paper's four figures and what was measured, in % of fine-tuning's error or time saved.

    Columns claim, claimed, verdict, name (of the row), decides (by the criteria; other ways of
    counting stand beside, and the public files where one that the claim rests on is missing),
    value, low, high. A low end that is not bounded is -inf.
    """
    audit, released, speed, transfer = (records[name] for name in RECORDS)
    missing = set(audit.table("missing")["table"].str.rpartition("_")[0])
    blocks = []
    for name, group, target, files, accuracy, time in FIGURES:
        arm, ours = f"esm2_separator_{target}", f"proteins_{group}_gain_over_finetune_mse_by_error"
        rows = [
            ("as released", files not in missing, _ends(released, f"{arm}_released_same_labels")),
            (
                "as described",
                files not in missing,
                _ends(released, f"{arm}_second_order_same_labels"),
            ),
            ("unseen proteins", True, _ends(transfer, ours, 100)),
            ("scored as released", False, _ends(released, f"{arm}_second_order_reported")),
            ("fine-tuning, scored so", False, _ends(released, f"{arm}_finetuned_reported")),
        ]
        chosen = {"regime": "proteins", "group": group, "baseline": "finetune"}
        gain = _only(transfer.table("gains"), rates="error", metric="mse", **chosen)
        difference = _only(transfer.table("differences"), metric="spearman", shots=10, **chosen)
        said = verdict(accuracy / 100, gain, difference)
        blocks.append((f"{name}: {accuracy} % more accurate", accuracy, said, rows))
        to_error = _ends(speed, f"saved_maml_10_{group}", 100)
        seen = speed.table("draws").query("labels == 10 and property == @group")
        gain = {end: to_error[end] / 100 for end in ("low", "high")}
        gain["n_units"] = seen["cluster"].nunique()
        of_all = _ends(speed, f"saved_of_all_maml_10_{group}", 100)
        rows = [
            ("to fine-tuning’s error", True, to_error),
            ("against all its steps", False, of_all),
            ("counted as released", False, _ends(released, f"{arm}_released_time")),
        ]
        # Time has no rank correlation that could disagree with it.
        said = verdict(time / 100, gain, {"mean": np.inf})
        blocks.append((f"{name}: {time} % less time", time, said, rows))
    return pd.DataFrame(
        {"claim": claim, "claimed": claimed, "verdict": said, "name": name, "decides": decides}
        | ends
        for claim, claimed, said, rows in blocks
        for name, decides, ends in rows
    )


def _ends(record: Record, name: str, scale: float = 1) -> dict[str, float]:
    """Value and interval of a number; NaN without one, -inf for an unbounded low end."""
    value, low, high = (record.numbers[name][end] for end in ("value", "low", "high"))
    if low is None:
        low = np.nan if high is None else -np.inf
    high = np.nan if high is None else high
    return {"value": scale * value, "low": scale * low, "high": scale * high}


def _only(table: pd.DataFrame, **chosen: object) -> dict[str, float]:
    for column, value in chosen.items():
        table = table[table[column] == value]
    (row,) = table.to_dict("records")
    return row


def in_words(ranking: pd.DataFrame, claims: pd.DataFrame) -> str:
    """The figure for readers who do not see it, in one paragraph."""
    means = ranking.set_index("method")
    others = means.drop(index="maml").itertuples()
    listed = "; ".join(f"{row.name}: {row.value:.2f}" for row in others)
    tested = "; ".join(
        f"{row.claim}: measured {row.value:.0f} %, {row.verdict}".replace("-", "−")
        for row in claims[claims["decides"]].groupby("claim", sort=False).tail(1).itertuples()
    )
    return (
        "Two panels. Above, mean Spearman correlation with ten labels of an unseen protein, on an "
        f"axis from 0 to 1. MAML: {means.loc['maml', 'value']:.2f}; {listed}. Below, the "
        "paper’s figures as lines beside our gains with 95 % intervals. On unseen proteins: "
        f"{tested}."
    )


WIDTH = 4.8
"""Inches. Shown 350 pixels wide, letters of 9 points are 9 pixels high."""
UNTESTED = "not testable here"
LEFT, RIGHT = -55, 103
"""Ends of the axis of gains, in %; what lies farther left is drawn as an arrow at the edge."""


class Ink(NamedTuple):
    """Colours of one scheme."""

    paper: str
    text: str
    faint: str
    grid: str
    ours: str
    theirs: str


INKS = {
    "light": Ink("#FFFFFF", "#1A1A1A", "#6B6B6B", "#E3E3E3", "#0072B2", "#B34700"),
    "dark": Ink("#121212", "#E8E8E8", "#A6A6A6", "#333333", "#56B4E9", "#F0A050"),
}
"""Schemes. Blue and orange are told apart by colour-blind readers, and shapes differ as well."""


@contextmanager
def inked(scheme: str) -> Iterator[Ink]:
    """Draw in one of `INKS`."""
    ink = INKS[scheme]
    settings = {
        "font.size": 9.5,
        "figure.facecolor": ink.paper,
        "savefig.facecolor": ink.paper,
        "axes.facecolor": ink.paper,
        "text.color": ink.text,
        "axes.labelcolor": ink.text,
        "axes.edgecolor": ink.faint,
        "xtick.color": ink.faint,
        "xtick.labelcolor": ink.text,
        "grid.color": ink.grid,
        "axes.spines.left": False,
        "ytick.left": False,
        "ytick.labelleft": False,
        "svg.fonttype": "path",
        "figure.constrained_layout.use": False,
    }
    with style(), plt.rc_context(settings):
        yield ink


def draw(ranking: pd.DataFrame, claims: pd.DataFrame, *, counted: str, scheme: str) -> Figure:
    """Both panels in one of `INKS`; ``counted`` says what the upper means are of."""
    with inked(scheme) as ink:
        upper = 0.215 * (len(ranking) + 1)
        lower = 0.215 * (len(claims) + 1.3 * claims["claim"].nunique())
        height = upper + lower + 3.15
        figure = plt.figure(figsize=(WIDTH, height))
        top = height - 0.6
        first = figure.add_axes((0.33, (top - upper) / height, 0.64, upper / height))
        _ranks(first, ranking, ink)
        _headed(figure, first, "Ten labels of an unseen protein", counted, ink)
        top -= upper + 1.1
        second = figure.add_axes((0.33, (top - lower) / height, 0.39, lower / height))
        _gains(second, claims, ink)
        rules = "MAML against fine-tuning; verdicts by rules set before the runs"
        _headed(figure, second, "The paper’s figures, tested", rules, ink)
        _key(figure, height, ink)
    return figure


def _ranks(axis: Axes, ranking: pd.DataFrame, ink: Ink) -> None:
    small = {"va": "center", "size": 9, "bbox": _blank(ink)}
    axis.text(1, -1, "MAML’s lead, paired", ha="right", color=ink.faint, **small)
    for at, row in enumerate(ranking.itertuples()):
        ours = row.method == "maml"
        colour = ink.ours if ours else ink.text
        axis.text(-0.02, at, row.name, ha="right", va="center", color=colour,
                  weight="bold" if ours else "normal")  # fmt: skip
        _interval(axis, at, row, colour, True, ink, "o" if ours else "s")
        if not ours:
            sure = row.lead_low > 0 or row.lead_high < 0
            ends = (_written(x, 3) for x in (row.lead_low, row.lead_high))
            told = "{} [{}, {}]".format(_written(row.lead, 3, plus=True), *ends)
            axis.text(1, at, told, ha="right", color=ink.text if sure else ink.faint, **small)
    axis.set_ylim(len(ranking) - 0.4, -1.6)
    axis.set_xlim(0, 1)
    axis.set_xlabel("Spearman correlation (0: random order, 1: perfect)", x=0.35)
    axis.grid(visible=False, axis="y")


def _gains(axis: Axes, claims: pd.DataFrame, ink: Ink) -> None:
    at, beside = 0.0, axis.get_yaxis_transform()
    for claim, block in claims.groupby("claim", sort=False):
        claimed, said = block[["claimed", "verdict"]].iloc[0]
        tested = said != UNTESTED
        head = {"transform": beside, "va": "center", "bbox": _blank(ink)}
        head["color"] = ink.text if tested else ink.faint
        axis.text(-0.83, at, claim, weight="bold", **head)
        axis.text(1.69, at, said, ha="right", style="italic", **head)
        top = at + 0.5
        for row in block.itertuples():
            at += 1
            strong = tested and row.decides
            side = {"transform": beside, "ha": "right", "va": "center"}
            side["color"] = ink.text if strong else ink.faint
            axis.text(-0.03, at, row.name, **side)
            axis.text(1.69, at, _percent(row), size=9, **side)
            colour = ink.ours if tested else ink.faint
            if row.value < LEFT:
                axis.plot([LEFT + 2], [at], "<", color=colour, ms=6)
            else:
                _interval(axis, at, row, colour, row.decides, ink)
        line = {"color": ink.theirs, "lw": 2.4, "solid_capstyle": "butt", "zorder": 1.5}
        axis.plot([claimed] * 2, [top, at + 0.5], alpha=1 if tested else 0.5, **line)
        at += 1.3
    axis.axvline(0, color=ink.faint, lw=1, zorder=1)
    axis.set_ylim(at - 0.6, -0.7)
    axis.set_xlim(LEFT, RIGHT)
    axis.set_xticks([0, 50, 100])
    axis.set_xlabel("% of fine-tuning’s error or time saved\n(left of 0: MAML is worse)")
    axis.grid(visible=False, axis="y")


def _blank(ink: Ink) -> dict[str, object]:
    """A ground for words, so that no line runs through them."""
    return {"facecolor": ink.paper, "edgecolor": "none", "pad": 1}


def _interval(axis: Axes, at: float, row, colour: str, filled: bool, ink: Ink, marker="o") -> None:
    """A point with its interval, cut at the axis's left end."""
    low, high = (row.value if np.isnan(end) else end for end in (row.low, row.high))
    axis.plot([max(low, LEFT), high], [at, at], color=colour, lw=1.6, solid_capstyle="butt")
    axis.plot([row.value], [at], marker, ms=5.5, color=colour, mfc=colour if filled else ink.paper)


def _percent(row) -> str:
    """A gain with its interval, such as ``38 % [−13, 75]``."""
    places = 0 if np.isnan(row.low) or max(abs(row.low), abs(row.high)) > 20 else 1
    value, low, high = (_written(x, places) for x in (row.value, row.low, row.high))
    return f"{value} %" if np.isnan(row.low) else f"{value} % [{low}, {high}]"


def _written(x: float, places: int, *, plus: bool = False) -> str:
    """A number for readers, with a minus sign in place of a hyphen, and no sign on a zero."""
    if np.isinf(x):
        return "−∞" if x < 0 else "∞"
    text = f"{x:+.{places}f}" if plus else f"{x:.{places}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def _headed(figure: Figure, axis: Axes, title: str, subtitle: str, ink: Ink) -> None:
    """A title over a panel, at the figure's left edge."""
    height, top = figure.get_figheight(), axis.get_position().y1
    figure.text(0.012, top + 0.34 / height, title, size=12, weight="bold", va="baseline")
    figure.text(0.012, top + 0.13 / height, subtitle, size=9.5, color=ink.faint, va="baseline")


def _key(figure: Figure, height: float, ink: Ink) -> None:
    """What the marks mean, under both panels."""
    point = {"ls": "none", "marker": "o", "ms": 5.5, "color": ink.ours}
    bars = "95 % interval over protein families (“as …”: draws)"
    marks = [
        (Line2D([], [], **point), "counts by the rules"),
        (Line2D([], [], **point, mfc=ink.paper), "counted otherwise, or a file is missing"),
        (Line2D([], [], color=ink.theirs, lw=2.4), "the paper’s figure"),
        (Line2D([], [], color=ink.ours, lw=1.6), bars),
    ]
    figure.legend(
        *zip(*marks, strict=True), loc="lower left", bbox_to_anchor=(0.0, 0.02 / height),
        fontsize=9, handlelength=1.4, labelspacing=0.3, borderpad=0.2,
    )  # fmt: skip


def shown() -> tuple[Callable[[str], Figure], str]:
    """How the figure is drawn in a scheme, and its words."""
    records = read_records()
    where = {"regime": "proteins", "group": "all", "method": "maml", "shots": 10}
    row = _only(records["transfer"].table("summary"), **where, metric="spearman")
    counted = "Read at separators; {n_assays} assays of {n_units} families, 95 % intervals"
    counted = counted.format(**row)
    tables = ranking(records["transfer"]), claims(records)
    return lambda scheme: draw(*tables, counted=counted, scheme=scheme), in_words(*tables)


def write(
    name: str, drawn: Callable[[str], Figure], words: str, folder: Path = PICTURES
) -> list[Path]:
    """Write a figure once for each colour scheme, and the page that shows it with words."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for scheme in INKS:
        path, figure = folder / f"{name}-{scheme}.svg", drawn(scheme)
        with plt.rc_context({"svg.hashsalt": "mutmeta", "svg.fonttype": "path"}):
            figure.savefig(path, metadata={"Date": None, "Creator": None})
        plt.close(figure)
        written.append(path)
    page = folder / f"{name}.md"
    told = (PAGE.format(name=name, scheme=scheme, words=words) for scheme in INKS)
    page.write_text("\n".join(told), encoding="utf-8")
    return [*written, page]


if __name__ == "__main__":
    write("scorecard", *shown())
