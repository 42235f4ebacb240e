"""The methods of the third arm: how each is trained, and which need a rate.

All gradient methods choose from one grid (``GRID``) and take equally many steps; the jointly
trained start has seen the very labels that MAML saw.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mutmeta_lib.data.splits import Split
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.baselines import Blosum, GaussianProcess, Ridge, SupportMean, onehot_features
from mutmeta_lib.learn.methods import AlgorithmMethod, GradientMethod, Method
from mutmeta_lib.learn.training import MetaTraining, Trained, meta_train
from mutmeta_lib.learn.tuning import Rate
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.models.zero_shot import MASKED
from mutmeta_lib.study.setting import initial_params
from mutmeta_lib.study.vectors import Vectors

GRID: tuple[Rate, ...] = (
    ("sgd", 0.003),
    ("sgd", 0.01),
    ("sgd", 0.03),
    ("sgd", 0.1),
    ("adam", 1e-3),
    ("adam", 3e-3),
    ("adam", 1e-2),
)
"""Optimiser and rate: what every gradient method chooses from."""


@dataclass(frozen=True)
class Recipe:
    """How a start is meta-trained; ``algorithm`` None is the fresh head as it is."""

    algorithm: str | None
    first_order: bool = False
    objective: str = "mse"
    backend: str = "auto"
    descends: bool = True


RECIPES: dict[str, Recipe] = {
    "maml": Recipe("maml"),
    "fomaml": Recipe("maml", first_order=True),
    "maml_rank": Recipe("maml", objective="list_mle"),
    "multitask": Recipe("multitask"),
    "finetune": Recipe(None),
    "reptile": Recipe("reptile", first_order=True),
    "metasgd": Recipe("metasgd", backend="vmap"),
    "r2d2": Recipe("r2d2", descends=False),
    "deepkernel": Recipe("deepkernel", descends=False),
}
"""Method -> recipe. With a frozen encoder MAML adapts the head alone, so it is ANIL as well, and
R2-D2 and the deep kernel learn the few numbers of their heads."""

TUNED = ("maml", "fomaml", "maml_rank", "multitask", "finetune", "reptile")
"""Methods that choose a rate from the grid; the others learn theirs or have none."""

BY_ERROR = ("maml", "multitask", "finetune")
"""Methods tested a second time, as ``<name>_mse``, with the rate of the lowest validation error:
the gain in error is to be that of rates chosen for it."""

CLOSED = ("ridge", "gp", "onehot", "blosum", "mean")
"""Controls without a gradient step. Asked for by name there are those of ``zero_shot.MASKED`` too,
where the encoder has a language-model head."""


def train_starts(
    vectors: Vectors,
    split: Split,
    names: Sequence[str],
    settings: MetaTraining,
    closed_steps: int,
    seed: int,
    report: Callable[[str, int, int], None],
) -> tuple[dict[str, Params], dict[str, Trained]]:
    """The start of every method that has one, from the same fresh head and the same task draws."""
    fresh = initial_params(vectors.predictor, seed, "cpu")
    starts, runs = {}, {}
    for name in names:
        recipe = RECIPES.get(name)
        if recipe is None:
            continue
        if recipe.algorithm is None:
            starts[name] = fresh
            continue
        inner = replace(settings.inner, first_order=recipe.first_order)
        steps = settings.steps if recipe.descends else min(closed_steps, settings.steps)
        runs[name] = meta_train(
            replace(vectors.predictor, objective=recipe.objective),
            fresh,
            [vectors.training[id] for id in split.train],
            replace(
                settings,
                algorithm=recipe.algorithm,
                inner=inner,
                steps=steps,
                validate_every=min(settings.validate_every, max(1, steps // 4)),
                backend=recipe.backend,
            ),
            seed=seed,
            validation=[vectors.training[id] for id in split.validation],
            progress=lambda step, steps, loss, name=name: report(name, step, steps),
        )
        starts[name] = runs[name].params
    return starts, runs


def gradient_method(
    name: str, predictor: Predictor, start: Params, rate: Rate, steps: int
) -> GradientMethod:
    """A method that takes gradient steps at a rate of the grid."""
    model = replace(predictor, objective=RECIPES[name].objective)
    return GradientMethod(name, model, start, *rate, steps)


def build_methods(
    names: Sequence[str],
    vectors: Vectors,
    starts: Mapping[str, Params],
    rates: Mapping[str, Rate],
    steps: int,
) -> dict[str, Method]:
    """The methods by name."""
    made: dict[str, Method] = {}
    for name in names:
        if name in TUNED:
            made[name] = gradient_method(name, vectors.predictor, starts[name], rates[name], steps)
        elif name in RECIPES:
            recipe = RECIPES[name]
            algorithm = ALGORITHMS[recipe.algorithm](vectors.predictor)
            made[name] = AlgorithmMethod(name, algorithm, starts[name], steps, recipe.descends)
        else:
            made[name] = _closed(name, vectors)
    return made


def build_variants(
    vectors: Vectors,
    starts: Mapping[str, Params],
    rates: Mapping[str, Rate],
    by_error: Mapping[str, Rate],
    steps: int,
) -> dict[str, Method]:
    """What is tested at the deciding number of labels alone.

    ``maml_1``, MAML with one step, and ``<name>_mse`` where the rate of the lowest validation error
    is another one than that of the best ranks.
    """
    made: dict[str, Method] = {}
    for name, rate in by_error.items():
        if rate != rates[name]:
            made[f"{name}_mse"] = gradient_method(
                name, vectors.predictor, starts[name], rate, steps
            )
    if "maml" in rates:
        made["maml_1"] = gradient_method(
            "maml", vectors.predictor, starts["maml"], rates["maml"], 1
        )
    return made


def _closed(name: str, vectors: Vectors) -> Method:
    if name == "ridge":
        return Ridge(name, vectors.features)
    if name == "gp":
        return GaussianProcess(name, vectors.features)
    if name == "onehot":
        return Ridge(name, onehot_features)
    if name == "blosum":
        return Blosum()
    if name == "mean":
        return SupportMean()
    if name in MASKED:
        return vectors.zero_shot(name)
    raise ValueError(f"unknown method {name!r}; choose from {[*RECIPES, *CLOSED, *MASKED]}")
