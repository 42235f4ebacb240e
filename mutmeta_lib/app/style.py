"""One look for all figures, and one vocabulary of what readers call things."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import matplotlib.pyplot as plt

from mutmeta_lib.tasks.metrics import METRICS

BLACK, GREY = "#000000", "#7F7F7F"
ORANGE, SKY, GREEN = "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
PALETTE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK, GREY)
"""Okabe and Ito's colours, told apart by colour-blind readers; grey for their faint yellow."""
MARKERS, LINES = "osD^PvXhd*p<>8H", ("-", "--", ":", "-.")


class Look(NamedTuple):
    """How a method is drawn and named."""

    label: str
    colour: str
    marker: str
    line: str


# fmt: off
METHODS = {
    BLUE: {"maml": "MAML", "maml_fixed": "MAML, fixed labels", "maml_steps": "MAML, all labels",
           "maml_epochs": "MAML, epochs", "maml_1": "MAML, one step",
           "ranker": "Ranker", "ranker_1": "Ranker, one network",
           "suggest": "Suggested: prediction + deviation"},
    ORANGE: {"multitask": "Fine-tuning from multi-task start",
             "maml_rank": "MAML, trained to rank",
             "lora_rank": "MAML on low-rank adapters, trained to rank",
             "finetune_a": "Fine-tuning, via A"},
    GREEN: {"ridge": "Ridge on embeddings", "anil": "ANIL (head adapts)",
            "ridge_zero": "Ridge with the zero-label score",
            "lora": "MAML on low-rank adapters"},
    VERMILLION: {"finetune": "Fine-tuning", "finetune_epochs": "Fine-tuning, epochs",
                 "finetune_fixed": "Fine-tuning, fixed labels",
                 "finetune_steps": "Fine-tuning, all labels",
                 "deepkernel": "Deep kernel (GP head)"},
    PURPLE: {"onehot": "Ridge on one-hot", "metasgd": "Meta-SGD",
             "ridge_a": "Ridge with A's score", "mlp": "MLP on embeddings",
             "onehot_zero": "One-hot with the zero-label score",
             "onehot_blosum": "One-hot with BLOSUM62"},
    SKY: {"gp": "GP on embeddings", "fomaml": "MAML, first order",
          "gp_zero": "GP with the zero-label score",
          "boil": "BOIL (encoder adapts)", "maml_a": "MAML, via A",
          "greedy": "Ranker's best"},
    BLACK: {"blosum": "BLOSUM62 (zero-shot)", "zero_shot": "Masked marginals (zero-shot)",
            "r2d2": "R2-D2 (ridge head)", "scores_a": "Scores of A alone",
            "zero_label": "Zero-label score"},
    GREY: {"mean": "Support mean", "zero_shot_wt": "Wild-type marginals (zero-shot)",
           "reptile": "Reptile", "joint": "One training on all labels",
           "random": "Random picks"},
}
# fmt: on
"""Colour -> its methods in every figure, told apart by marker and line; the first is solid.

A new method needs one line here, or none: without one it takes what is free in its figure.
"""
LOOKS = {
    name: Look(called, colour, MARKERS[(place + 7 * nth) % len(MARKERS)], LINES[nth % len(LINES)])
    for place, (colour, methods) in enumerate(METHODS.items())
    for nth, (name, called) in enumerate(methods.items())
}


def looks(names: Sequence) -> dict[object, Look]:
    """The look of every series of a figure; others than methods take free ones, in order.

    >>> [look.label for look in looks(["maml", "my_method"]).values()]
    ['MAML', 'my method']
    """
    taken = {LOOKS[name].colour for name in names if name in LOOKS}
    free = [colour for colour in PALETTE if colour not in taken] or [*PALETTE]
    found = {name: LOOKS.get(name) for name in names}
    for nth, name in enumerate(name for name in names if name not in LOOKS):
        colour, turn = free[nth % len(free)], nth // len(free)
        turn += colour in taken
        marker = MARKERS[(PALETTE.index(colour) + 4 * turn) % len(MARKERS)]
        found[name] = Look(label(name), colour, marker, LINES[turn % len(LINES)])
    return found


def label(name: object) -> str:
    """What readers call a method, a metric, an encoding or a value of some column.

    >>> label("gp"), label("spearman"), label("unknown_text")
    ('GP on embeddings', 'Spearman correlation', 'unknown text')
    """
    if name in LOOKS:
        return LOOKS[name].label
    return METRICS[name].label if name in METRICS else str(name).replace("_", " ")


def count(values: Sequence[int], noun: str) -> str:
    """A count, or the range of counts, with its noun.

    >>> count([24, 24], "assay"), count([1], "protein"), count([18, 24], "assay")
    ('24 assays', '1 protein', '18 to 24 assays')
    """
    low, high = int(min(values)), int(max(values))
    number = f"{high:,}" if low == high else f"{low:,} to {high:,}"
    return f"{number} {noun}{'' if high == 1 else 's'}"


@contextmanager
def style() -> Iterator[None]:
    """Draw in our style inside a ``with`` block; settings outside are left alone."""
    spines = dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False)
    sizes = {"font.size": 11, "axes.titlesize": 12, "legend.fontsize": 10, "lines.markersize": 6}
    white = dict.fromkeys(("figure.facecolor", "savefig.facecolor"), "white")
    grid = {"axes.grid": True, "axes.axisbelow": True, "grid.color": "#E3E3E3"}
    more = {"axes.titlelocation": "left", "legend.handlelength": 2.2, "errorbar.capsize": 0}
    # Shown 375 pixels wide, 9 points (no text is smaller) are 8.5 pixels.
    files = {"figure.figsize": (5.5, 4), "figure.constrained_layout.use": True}
    files |= {"figure.dpi": 120, "savefig.dpi": 200, "svg.fonttype": "none"}
    with plt.rc_context(spines | sizes | white | grid | more | files):
        yield
