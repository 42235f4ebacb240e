"""Draw "What ten labels are worth" for the first page from the benchmark's records: `make figures`.

Rank correlation against labels: the ranker with and without an encoder, its closest rivals, and
what language models give without a label. Written like the scorecard, with benchmark.md beside it.
"""

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from draw_scorecard import ROOT, WIDTH, Ink, inked, write
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mutmeta_lib.records.record import Record, read_record

LABELS = (0, 5, 10, 20, 40, 100)
LINES = {
    ("wild_type_pass", "ranker"): ("ranker, ESM-2 8M", "ours", "o", "-"),
    ("no_encoder", "ranker"): ("ranker, no encoder", "ours", "s", "--"),
    ("wild_type_pass", "onehot_zero"): ("one-hot + zero-label", "text", "X", "-"),
    ("wild_type_pass", "maml"): ("MAML", "theirs", "D", "-"),
    ("wild_type_pass", "multitask"): ("joint start", "theirs", "^", ":"),
    ("wild_type_pass", "onehot_blosum"): ("one-hot + BLOSUM62", "faint", "v", "-"),
    ("wild_type_pass", "finetune"): ("fine-tuning", "faint", "P", ":"),
}
"""Read and method -> name, ink, marker and line."""
BESIDE = {"ESM2 (650M)": "ESM-2 650M", "VenusREM": "VenusREM"}
"""Published models, without labels, that are drawn as levels."""


def read() -> list[Record]:
    """The committed records: the ranker with its controls, and what it is compared with."""
    folder = ROOT / "book" / "records" / "full"
    return [read_record(folder / f"{name}.json") for name in ("benchmark", "benchmark_family")]


def lines(records: Sequence[Record]) -> pd.DataFrame:
    """Mean Spearman correlation and its interval: a row per read, method and number of labels.

    A method that both records have is taken from the first.
    """
    table = pd.concat([record.table("means").query("arm == read") for record in records])
    table = table[(table["metric"] == "spearman") & (table["group"] == "all")]
    asked = pd.MultiIndex.from_tuples(LINES, names=["read", "method"])
    table = table[table["shots"].isin(LABELS)].drop_duplicates(["read", "method", "shots"])
    table = table.set_index(["read", "method"])
    return table.loc[table.index.isin(asked)].reset_index()


def levels(records: Sequence[Record]) -> dict[str, float]:
    """Published means without labels on the same assays."""
    table = records[0].table("published").query("protocol == 'zero_label'").set_index("model")
    return {called: float(table.loc[name, "mean"]) for name, called in BESIDE.items()}


def in_words(table: pd.DataFrame, beside: dict[str, float]) -> str:
    """The figure for readers who do not see it, in one paragraph."""
    told = []
    for (reading, method), (name, *_) in LINES.items():
        own = table[(table["read"] == reading) & (table["method"] == method)].set_index("shots")
        each = ", ".join(f"{own.loc[k, 'mean']:.2f} with {k}" for k in (0, 10, 100))
        told.append(f"{name}: {each}")
    others = ", ".join(f"{name} {value:.2f}" for name, value in beside.items())
    n = int(table["n_assays"].max())
    return (
        f"Mean Spearman correlation over {n} assays of unseen proteins against the number of "
        f"labels. {'; '.join(told)}. Published, without labels: {others}."
    )


def draw(records: Sequence[Record], *, scheme: str) -> Figure:
    """The curves in one of `INKS`."""
    table = lines(records)
    with inked(scheme) as ink:
        height = 5.3
        figure = plt.figure(figsize=(WIDTH, height))
        n, clusters = (int(table[column].max()) for column in ("n_assays", "n_units"))
        for words, below, how in (
            ("What ten labels are worth", 0.1, {"size": 12, "weight": "bold"}),
            (f"Mean Spearman correlation on {n} assays of unseen proteins", 0.36, {"size": 9.5}),
        ):
            figure.text(0.012, 1 - below / height, words, va="top", **how)
        axis = figure.add_axes((0.085, 0.92 / height, 0.53, (height - 1.6) / height))
        beside = levels(records)
        for value in beside.values():
            axis.axhline(value, color=ink.faint, lw=0.9, linestyle=(0, (1, 2)), zorder=0.5)
        _curves(axis, table, ink)
        others = " and ".join(f"{name} ({value:.2f})" for name, value in beside.items())
        for words, above in (
            (f"bars: 95 % over {clusters} protein families", 0.3),
            (f"dotted: published, no label: {others}", 0.08),
        ):
            figure.text(0.012, above / height, words, size=9, color=ink.faint)
    return figure


def _curves(axis: Axes, table: pd.DataFrame, ink: Ink) -> None:
    ends = []
    for nth, ((reading, method), (_, colour, marker, line)) in enumerate(LINES.items()):
        own = table[(table["read"] == reading) & (table["method"] == method)]
        own = own.set_index("shots").reindex(LABELS)
        at = np.arange(len(LABELS)) + 0.05 * (nth - 3)
        how = {"color": getattr(ink, colour), "lw": 1.6}
        axis.plot(at, own["mean"], line, marker=marker, ms=5, **how)
        axis.vlines(at, own["low"], own["high"], color=how["color"], lw=1)
        ends.append(own["mean"].iloc[-1])
    last = len(LABELS) - 1
    for at, end, (name, colour, *_) in zip(apart(ends), ends, LINES.values(), strict=True):
        how = {"color": getattr(ink, colour), "clip_on": False}
        axis.plot([last + 0.25, last + 0.4], [end, at], lw=0.7, **how)
        axis.text(last + 0.45, at, name, size=9, va="center", **how)
    axis.set_xticks(range(len(LABELS)), [str(k) for k in LABELS])
    axis.set_xlim(-0.25, last + 0.25)
    axis.set_ylim(-0.05, 0.63)
    axis.set_yticks(np.arange(7) / 10)
    axis.tick_params(left=True, labelleft=True, labelcolor=ink.text)
    axis.set_xlabel("labels of the protein")


def apart(values: list[float], least: float = 0.04) -> np.ndarray:
    """The values pushed away from each other, in their order, until ``least`` is between them."""
    order = np.argsort(values, kind="stable")
    moved = np.asarray(values)[order]
    for _ in range(500):
        push = np.clip(least - np.diff(moved), 0, None) / 2
        moved[:-1] -= push
        moved[1:] += push
    return moved[np.argsort(order)]


def shown() -> tuple[Callable[[str], Figure], str]:
    """How the figure is drawn in a scheme, and its words."""
    records = read()
    return lambda scheme: draw(records, scheme=scheme), in_words(lines(records), levels(records))


if __name__ == "__main__":
    write("benchmark", *shown())
