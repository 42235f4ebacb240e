"""Draw the inner loop on lines of two parameters: the strip of "See it happen" and its data.

Every task is a line with an intercept and a slope of its own, and noise; all of it is simulated.
The start is meta-trained by the library's `meta_gradient`, paths are those of its `inner_update`.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from draw_scorecard import PICTURES, WIDTH, Ink, inked, write
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mutmeta_lib.learn import InnerLoop, inner_update, meta_gradient
from mutmeta_lib.learn.inner import Params

DATA = PICTURES / "see_it_data.html"
SHOTS, LOOP = 3, InnerLoop(lr=0.1, steps=5)
"""What the start is meta-trained for."""
FRESH = (0.0, 0.0)
FRAMES = (0, 1, 5)
Points = tuple[torch.Tensor, torch.Tensor]
"""x and y of a set."""


def loss(params: Params, points: Points) -> torch.Tensor:
    """The mean squared error of a line."""
    x, y = points
    return ((params["intercept"] + params["slope"] * x - y) ** 2).mean()


def named(line: tuple[float, float]) -> Params:
    """Intercept and slope as parameters."""
    values = torch.tensor(line, dtype=torch.float64)
    return dict(zip(("intercept", "slope"), values, strict=True))


def path(start: tuple[float, float], support: Points, loop: InnerLoop) -> list[tuple[float, float]]:
    """Intercept and slope before the inner loop and after each step of it."""
    ends = (
        inner_update(loss, named(start), support, InnerLoop(loop.lr, steps))
        for steps in range(loop.steps + 1)
    )
    return [(float(end["intercept"]), float(end["slope"])) for end in ends]


def simulate(n: int, rng: np.random.Generator) -> list[dict[str, list]]:
    """Tasks: a line, twenty labelled points, the first of which are the support, and a query."""
    tasks = []
    for line in rng.normal((-0.8, 1.1), (0.5, 0.4), (n, 2)):
        x = rng.uniform(-2, 2, (2, 20)).round(2)
        y = (line[0] + line[1] * x + rng.normal(0, 0.6, x.shape)).round(2)
        sets = zip(("support", "query"), x.tolist(), y.tolist(), strict=True)
        tasks.append({"line": line.round(2).tolist()} | {name: [*xy] for name, *xy in sets})
    return tasks


def points(task: dict[str, list], name: str, n: int = 20) -> Points:
    """The first points of a task's support or query."""
    x, y = (torch.tensor(values[:n], dtype=torch.float64) for values in task[name])
    return x, y


@functools.cache
def data() -> dict:
    """What the page is made of: both starts, the lines trained on, and four new tasks."""
    rng = np.random.default_rng(6)
    train, new = simulate(16, rng), simulate(4, rng)
    pairs = [(points(task, "support", SHOTS), points(task, "query")) for task in train]
    params = named(FRESH)
    for _ in range(60):
        _, slopes, _ = meta_gradient(loss, params, pairs, LOOP)
        params = {name: value - 0.5 * slopes[name] for name, value in params.items()}
    meta = [round(float(value), 4) for value in params.values()]
    return {"fresh": FRESH, "meta": meta, "lines": [t["line"] for t in train], "tasks": new}


def draw(scheme: str) -> Figure:
    """A strip of frames: fits above, paths of the two parameters below."""
    task, marks = data()["tasks"][0], {"fresh": ("s--", "theirs"), "meta": ("o-", "ours")}
    x, ends = np.array([-2.2, 2.2]), points(task, "support", SHOTS)
    with inked(scheme) as ink:
        figure, axes = plt.subplots(
            2, len(FRAMES), figsize=(WIDTH, 4.3), sharex="row", sharey="row"
        )
        for steps, fits, paths in zip(FRAMES, *axes, strict=True):
            fits.set_title("start" if steps == 0 else f"step {steps}", size=10)
            fits.plot(*task["query"], "o", ms=4, mfc="none", color=ink.faint, label="query")
            fits.plot(*ends, "o", ms=5, color=ink.text, label="support")
            paths.plot(*zip(*data()["lines"], strict=True), ".", ms=3, color=ink.faint)
            for name, (style, colour) in marks.items():
                told = {"color": getattr(ink, colour), "lw": 1.6}
                walk = np.array(path(data()[name], ends, InnerLoop(LOOP.lr, steps)))
                fits.plot(
                    x, walk[-1, 0] + walk[-1, 1] * x, style[1:], label=f"{name} start", **told
                )
                paths.plot(*walk.T, style, ms=4, mfc=ink.paper, **told)
        _finish(figure, axes, ink)
    return figure


def _finish(figure: Figure, axes: np.ndarray, ink: Ink) -> None:
    axis: Axes
    for axis in axes.flat:
        axis.grid(visible=False)
        axis.tick_params(left=True, labelsize=8)
    for row, (x, y) in zip(axes, (("x", "y"), ("intercept", "slope")), strict=True):
        row[0].tick_params(labelleft=True, labelcolor=ink.text)
        row[0].set_ylabel(y)
        row[1].set_xlabel(x)
    figure.subplots_adjust(left=0.11, right=0.98, top=0.93, bottom=0.2, wspace=0.12, hspace=0.35)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=4, fontsize=9,
                  handlelength=1.6, columnspacing=1.2, borderpad=0)  # fmt: skip


def in_words() -> str:
    """The strip for readers who do not see it."""
    task, told = data()["tasks"][0], {}
    for name in ("meta", "fresh"):
        walk = path(data()[name], points(task, "support", SHOTS), LOOP)
        told[name] = [float(loss(named(walk[steps]), points(task, "query"))) for steps in FRAMES]
    errors = " and ".join(
        f"{', '.join(f'{error:.2f}' for error in errors)} from the {name} start"
        for name, errors in told.items()
    )
    return (
        f"Three frames: before the inner loop, after one step and after {FRAMES[-1]}. Above, the "
        f"line from each start among {SHOTS} support and {len(task['query'][0])} query points; "
        "below, the path of intercept and slope. Mean squared error on the query, frame by frame: "
        f"{errors}."
    )


def shown() -> tuple[Callable[[str], Figure], str]:
    """How the strip is drawn in a scheme, and its words."""
    return draw, in_words()


def script() -> str:
    """The data as the page holds them."""
    return f'<script type="application/json" id="see-data">{json.dumps(data())}</script>\n'


if __name__ == "__main__":
    write("inner_loop", *shown())
    Path(DATA).write_text(script(), encoding="utf-8")
