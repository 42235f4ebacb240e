"""One look for all figures: colours, markers and line styles that belong to a method for good."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure

WIDTH = 5.5
"""Width of a figure in inches. Shown 360 pixels wide, 11 points are then 10 pixels."""

BLACK, GREY = "#000000", "#7F7F7F"
ORANGE, SKY, GREEN = "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
PALETTE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK, GREY)
"""Okabe and Ito's colours, told apart by colour-blind readers; grey for their faint yellow."""


class Look(NamedTuple):
    """How a method is drawn and named."""

    label: str
    colour: str
    marker: str
    line: str


LOOKS: dict[str, Look] = {
    "maml": Look("MAML", BLUE, "o", "-"),
    "multitask": Look("Fine-tuning from multi-task start", ORANGE, "s", "-"),
    "finetune": Look("Fine-tuning", VERMILLION, "^", "-"),
    "ridge": Look("Ridge on embeddings", GREEN, "D", "--"),
    "gp": Look("GP on embeddings", SKY, "v", "--"),
    "onehot": Look("Ridge on one-hot", PURPLE, "P", "--"),
    "blosum": Look("BLOSUM62 (zero-shot)", BLACK, "X", ":"),
    "mean": Look("Support mean", GREY, "h", ":"),
    "zero_shot": Look("Masked marginals (zero-shot)", BLACK, "d", "-."),
    "zero_shot_wt": Look("Wild-type marginals (zero-shot)", GREY, "p", "-."),
    "anil": Look("ANIL (head adapts)", GREEN, "p", "-"),
    "boil": Look("BOIL (encoder adapts)", SKY, "d", "-"),
    "reptile": Look("Reptile", GREY, "<", "-"),
    "metasgd": Look("Meta-SGD", PURPLE, "8", "-"),
    "r2d2": Look("R2-D2 (ridge head)", BLACK, "*", "-"),
    "deepkernel": Look("Deep kernel (GP head)", VERMILLION, "H", "-"),
    "maml_1": Look("MAML, one step", BLUE, "<", "--"),
    "maml_rank": Look("MAML, trained to rank", ORANGE, "o", "--"),
    "fomaml": Look("MAML, first order", SKY, "o", "--"),
    "maml_fixed": Look("MAML, fixed labels", BLUE, "<", ":"),
    "finetune_epochs": Look("Fine-tuning, epochs", VERMILLION, ">", ":"),
    "mlp": Look("MLP on embeddings", ORANGE, "^", ":"),
    "scores_a": Look("Scores of A alone", BLACK, "X", "-"),
    "ridge_a": Look("Ridge with A's score", PURPLE, "P", ":"),
    "maml_a": Look("MAML, via A", SKY, "d", "--"),
    "finetune_a": Look("Fine-tuning, via A", ORANGE, "s", ":"),
    "finetune_fixed": Look("Fine-tuning, fixed labels", VERMILLION, "v", ":"),
    "maml_steps": Look("MAML, all labels", BLUE, "o", "--"),
    "finetune_steps": Look("Fine-tuning, all labels", VERMILLION, "^", "--"),
    "maml_epochs": Look("MAML, epochs", BLUE, "D", "--"),
}
"""Method -> look, the same in every figure."""


def look(name: str) -> Look:
    """The look of a method; one we do not know gets a look that follows from its name alone.

    >>> look("maml").label, look("my_method").label
    ('MAML', 'my_method')
    """
    if name in LOOKS:
        return LOOKS[name]
    number = sum(name.encode())
    return Look(name, PALETTE[number % len(PALETTE)], "*pd8H"[number % 5], "-.")


def label(name: str) -> str:
    """A method's name for readers.

    >>> label("gp")
    'GP on embeddings'
    """
    return look(name).label


@contextmanager
def style() -> Iterator[None]:
    """Draw in our style inside a ``with`` block; settings outside are left alone."""
    with plt.rc_context(
        {
            "font.size": 11,
            "axes.titlesize": 12,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E3E3E3",
            "legend.frameon": False,
            "legend.fontsize": 10,
            "legend.handlelength": 2.2,
            "lines.markersize": 6,
            "errorbar.capsize": 0,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.dpi": 120,
            "savefig.dpi": 200,
            "figure.constrained_layout.use": True,
            "svg.fonttype": "none",
        }
    ):
        yield


def spread(n: int, step: float) -> np.ndarray:
    """Offsets that keep ``n`` markers at one place from covering one another, centred on 0."""
    return (np.arange(n) - (n - 1) / 2) * step


def draw_intervals(
    axis: Axes,
    where: Sequence[float],
    mean: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    horizontal: bool = False,
    **options,
) -> None:
    """Points with their intervals; a point without an interval (NaN) stays a point."""
    mean, low, high = (np.asarray(values, dtype=float) for values in (mean, low, high))
    bars = np.nan_to_num(np.abs(np.stack([mean - low, high - mean])))
    given = {"xerr" if horizontal else "yerr": bars, "elinewidth": 1.6, **options}
    x, y = (mean, where) if horizontal else (where, mean)
    axis.errorbar(x, y, **given)


def draw_method(
    axis: Axes,
    where: Sequence[float],
    rows: Mapping[str, Sequence[float]],
    name: str,
    *,
    horizontal: bool = False,
    **options,
) -> None:
    """A method's ``mean``, ``low`` and ``high`` in its own look; drawn along rows, not joined."""
    seen = look(name)
    own = {"color": seen.colour, "marker": seen.marker, "label": seen.label}
    own["linestyle"] = "none" if horizontal else seen.line
    ends = (rows["mean"], rows["low"], rows["high"])
    draw_intervals(axis, where, *ends, horizontal=horizontal, **own | options)


def draw_row(axis: Axes, at: float, row, **options) -> None:
    """One interval of a forest (``row`` has mean, low, high), hollow unless it is clear of zero."""
    clear = row.low > 0 or row.high < 0
    face = options["color"] if clear else "white"
    ends = ([row.mean], [row.low], [row.high])
    options = {"linestyle": "none", "markerfacecolor": face, **options}
    draw_intervals(axis, [at], *ends, horizontal=True, **options)


def name_rows(axis: Axes, names: Sequence[str]) -> None:
    """Name the rows of a forest, the first at the top."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")


def legend_below(figure: Figure, axis: Axes, columns: int = 2) -> None:
    """A legend under the axes, where it covers no data; lines without data come last."""
    entries = zip(*axis.get_legend_handles_labels(), strict=True)
    ordered = sorted(entries, key=lambda entry: not isinstance(entry[0], Container))
    figure.legend(
        *zip(*ordered, strict=True),
        loc="outside lower center",
        ncols=columns,
        columnspacing=1.0,
        handletextpad=0.5,
    )


def titled(figure: Figure, title: str, subtitle: str) -> None:
    """The title and, smaller, what was averaged; both start at the figure's left edge."""
    # The empty second line makes the layout keep room for the subtitle.
    figure.suptitle(
        f"{title}\n" if subtitle else title, x=0.01, ha="left", size=12.5, weight="bold"
    )
    below = 1 - 20 / (72 * figure.get_figheight())
    figure.text(0.01, below, subtitle, size=10, color="#444444", va="top")
