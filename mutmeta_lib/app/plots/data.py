"""Figures of the data: how scores spread, what a split holds, what a model reads."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch

from mutmeta_lib.app.plots.style import BLUE, GREEN, ORANGE, PALETTE, PURPLE, WIDTH, style, titled
from mutmeta_lib.app.plots.wording import count
from mutmeta_lib.errors import DataError

ROLES = {"train": BLUE, "validation": ORANGE, "test": GREEN}
TOKEN_KINDS = {
    "residue": "#F2F2F2",
    "mutated site": ORANGE,
    "separator": "#8CC5EA",
    "unknown": PURPLE,
    "special": "#C9C9C9",
}
"""Kind of token -> the colour of its box."""


def score_distributions(scores: pd.DataFrame, *, title: str = "Measured scores") -> Figure:
    """How the scores of each assay spread: median, middle half and middle 90 %.

    ``scores`` has one row per variant with columns assay, protein, property, units, score. There
    is one panel per property and unit, since other units cannot share an axis; within it assays
    are sorted by median, and coloured by protein if there are at most seven.
    """
    proteins = sorted(scores["protein"].unique())
    few = len(proteins) < len(PALETTE)
    colours = dict(zip(proteins, PALETTE, strict=False)) if few else dict.fromkeys(proteins, BLUE)
    panels = list(scores.groupby(["property", "units"], sort=False))
    heights = [max(3, group["assay"].nunique()) for _, group in panels]
    row = min(0.2, 7 / sum(heights))
    with style():
        figure, axes = plt.subplots(
            len(panels),
            1,
            squeeze=False,
            height_ratios=heights,
            figsize=(WIDTH, 1.4 + 1.05 * len(panels) + row * sum(heights)),
        )
        for axis, ((property_, units), group) in zip(axes[:, 0], panels, strict=True):
            quantiles = group.groupby("assay")["score"].quantile([0.05, 0.25, 0.5, 0.75, 0.95])
            table = quantiles.unstack().sort_values(0.5, kind="stable")
            protein = group.groupby("assay")["protein"].first()
            for at, (assay, q) in enumerate(table.iterrows()):
                colour = colours[protein[assay]]
                axis.hlines(at, q[0.05], q[0.95], color=colour, lw=0.8)
                axis.hlines(at, q[0.25], q[0.75], color=colour, lw=32 * row)
                axis.plot(
                    q[0.5], at, "o", ms=max(1.5, 26 * row), color="white", mec="black", mew=0.7
                )
            axis.set_ylim(len(table) - 0.4, -0.6)
            axis.set_yticks([])
            axis.set_ylabel(f"{'assays' if len(table) > 1 else 'assay'}")
            axis.set_xlabel(f"score ({units or 'no unit'})")
            inside = group["protein"].unique()
            of = _short(inside[0]) if len(inside) == 1 else count([len(inside)], "protein")
            assays = count([len(table)], "assay")
            axis.set_title(f"{property_}: {assays} of {of}, {len(group):,} variants", fontsize=10)
        named = colours.items() if few else ()
        handles = [Line2D([], [], color=colour, lw=4, label=_short(p)) for p, colour in named]
        handles += [
            Line2D([], [], color="#444444", lw=4, label="middle half"),
            Line2D([], [], color="#444444", lw=0.8, label="middle 90 %"),
            Line2D([], [], color="white", marker="o", mec="black", label="median"),
        ]
        columns = 3 if max(len(handle.get_label()) for handle in handles) < 16 else 2
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.0)
        titled(figure, title, "")
    return figure


def split_overview(
    split: pd.DataFrame, *, title: str = "Who is trained on, who is tested", max_rows: int = 30
) -> Figure:
    """Which proteins each fold trains on, validates on and tests on, with numbers of assays.

    ``split`` has one row per fold and assay with columns fold, role (train, validation, test),
    assay, protein. Up to ``max_rows`` proteins are drawn as a grid; more are counted per fold.
    """
    unknown = sorted(set(split["role"]) - set(ROLES))
    if unknown:
        raise DataError(f"unknown role {unknown}", f"use {sorted(ROLES)}")
    folds = sorted(split["fold"].unique())
    assays = count([split["assay"].nunique()], "assay")
    proteins = count([split["protein"].nunique()], "protein")
    grid = split["protein"].nunique() <= max_rows
    with style():
        rows = split["protein"].nunique() if grid else 3 * len(folds)
        figure, axis = plt.subplots(figsize=(WIDTH, 1.9 + 0.3 * rows))
        (_protein_grid if grid else _role_bars)(axis, split, folds)
        figure.legend(
            handles=[Patch(color=colour, label=f"meta-{role}") for role, colour in ROLES.items()],
            loc="outside lower center",
            ncols=3,
        )
        titled(figure, title, f"{assays} of {proteins}, {count([len(folds)], 'fold')}")
    return figure


def _protein_grid(axis: plt.Axes, split: pd.DataFrame, folds: list) -> None:
    cells = split.groupby(["protein", "fold"]).agg(role=("role", "first"), n=("assay", "nunique"))
    tests = split[split["role"] == "test"].groupby("protein")["fold"].first()
    proteins = sorted(
        split["protein"].unique(), key=lambda name: (tests.get(name, len(folds)), name)
    )
    for (protein, fold), cell in cells.iterrows():
        x, y = folds.index(fold), proteins.index(protein)
        axis.add_patch(
            plt.Rectangle((x - 0.48, y - 0.44), 0.96, 0.88, color=ROLES[cell["role"]], alpha=0.75)
        )
        axis.text(x, y, count([cell["n"]], "assay"), ha="center", va="center", fontsize=10)
    axis.set_xlim(-0.5, len(folds) - 0.5)
    axis.set_ylim(len(proteins) - 0.5, -0.5)
    axis.set_xticks(range(len(folds)), [f"{fold}" for fold in folds])
    axis.set_yticks(range(len(proteins)), [_short(name) for name in proteins])
    axis.grid(visible=False)
    axis.set_xlabel("fold")
    axis.set_ylabel("protein")


def _role_bars(axis: plt.Axes, split: pd.DataFrame, folds: list) -> None:
    counts = split.groupby(["fold", "role"]).agg(
        assays=("assay", "nunique"), proteins=("protein", "nunique")
    )
    for i, fold in enumerate(folds):
        for j, (role, colour) in enumerate(ROLES.items()):
            if (fold, role) not in counts.index:
                continue
            cell = counts.loc[(fold, role)]
            axis.barh(4 * i + j, cell["assays"], color=colour, height=0.9, alpha=0.75)
            axis.text(
                0, 4 * i + j, f" {count([cell['proteins']], 'protein')}", va="center", fontsize=9
            )
    axis.set_yticks([4 * i + 1 for i in range(len(folds))], [f"{fold}" for fold in folds])
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("assays (number)")
    axis.set_ylabel("fold")


def tokens_figure(tokens: pd.DataFrame, *, title: str = "What the model reads") -> Figure:
    """Tokens as boxes, one block of lines per encoding, wrapped at 12 tokens.

    ``tokens`` has one row per token, in order, with columns encoding, token, kind (one of
    residue, mutated site, separator, unknown, special).
    """
    unknown = sorted(set(tokens["kind"]) - set(TOKEN_KINDS))
    if unknown:
        raise DataError(f"unknown kind of token {unknown}", f"use {list(TOKEN_KINDS)}")
    per_line, line = 12, 0.0
    with style():
        groups = list(tokens.groupby("encoding", sort=False))
        lines = sum(-(-len(group) // per_line) + 1.1 for _, group in groups)
        figure, axis = plt.subplots(figsize=(WIDTH, 1.2 + 0.36 * lines))
        for encoding, group in groups:
            named = f"{encoding} ({count([len(group)], 'token')})"
            axis.text(0, line, named, va="center", fontweight="bold", fontsize=10)
            for index, (token, kind) in enumerate(zip(group["token"], group["kind"], strict=True)):
                x, y = index % per_line, line + 1 + index // per_line
                axis.add_patch(
                    FancyBboxPatch(
                        (x + 0.06, y - 0.34),
                        0.88,
                        0.68,
                        facecolor=TOKEN_KINDS[kind],
                        edgecolor="#888888",
                        lw=0.6,
                        boxstyle="round,pad=0,rounding_size=0.12",
                    )
                )
                size = min(10, 44 / len(token))
                axis.text(x + 0.5, y, token, ha="center", va="center", fontsize=size)
            line += -(-len(group) // per_line) + 1.1
        axis.set_xlim(0, per_line)
        axis.set_ylim(line - 0.4, -0.6)
        axis.set_axis_off()
        used = [kind for kind in TOKEN_KINDS if (tokens["kind"] == kind).any()]
        figure.legend(
            handles=[Patch(facecolor=TOKEN_KINDS[k], edgecolor="#888888", label=k) for k in used],
            loc="outside lower center",
            ncols=3,
        )
        titled(figure, title, "")
    return figure


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
