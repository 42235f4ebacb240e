"""Seconds to a given accuracy, with meta-training excluded, included and shared out.

The target is fine-tuning's query error at its end. Every start (meta-trained, jointly trained,
fresh) takes the same kind of steps on the same labels, its rate tuned alike, and is followed until
it gets there. What each start cost is known, so it can be put on the bill of one new assay, or of a
thousand. Seconds are those of computation, all threads together (``time.process_time``); the
encoder is frozen, and its share, the same for all, is reported apart.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mutmeta_lib import __version__
from mutmeta_lib.data.proteins import cluster_proteins
from mutmeta_lib.learn.inner import finetune, shuffled
from mutmeta_lib.learn.methods import GradientMethod, Rate
from mutmeta_lib.learn.tuning import best_rate, grid_scores
from mutmeta_lib.models.embeddings import embed
from mutmeta_lib.models.predictor import Params, Predictor, predict
from mutmeta_lib.records.progress import silent
from mutmeta_lib.records.record import Record, number
from mutmeta_lib.records.store import Store
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.study.case import Run, Where, initial_params, prepare
from mutmeta_lib.study.estimates import bootstrap_mean, bootstrap_ratio, estimate
from mutmeta_lib.study.run import make_record
from mutmeta_lib.study.study import Case, Study, describe_encoder, draw_cases, read_assays
from mutmeta_lib.tasks.losses import LOSSES
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import EncodedAssay, Examples, Task, draw_task, task_generator

STARTS = {"maml": "maml", "multitask": "multitask", "finetune": "fresh"}
ARMS = ("maml", "multitask")
"""Starts whose time is compared with fine-tuning's."""
STEPS = (0, 1, 2, 5, 10, 20, 50, 100)
"""Numbers of steps at which starts are compared."""
SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of fine-tuning's seconds at which they are compared."""
RAPID = 10
"""Labels, and at most steps, of the claim of rapid adaptation."""
MIN_QUERY = 15
EPOCH_RATE = 1e-3


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What a task's query set says after each step; arrays of shape ``(steps + 1,)``.

    ``seconds`` are those so far, without those of looking; ``errors`` are mean squared, on scaled
    labels, infinite where the method diverged.
    """

    seconds: np.ndarray
    errors: np.ndarray
    ranks: np.ndarray

    def reaches(self, error: float) -> int | None:
        """The first step at which the error is no more than ``error``."""
        found = np.flatnonzero(self.errors <= error)
        return int(found[0]) if len(found) else None

    def at_seconds(self, seconds: float) -> int:
        """The last step that is finished by then."""
        return int(np.searchsorted(self.seconds, seconds, side="right") - 1)

    def at(self, step: int, end: float) -> dict[str, float]:
        """Correlation, and error relative to ``end``, after a step."""
        error = min(float(self.errors[step]), 1e6)
        ratio = float(np.log(max(error, 1e-12) / max(min(end, 1e6), 1e-12)))
        return {"spearman": float(self.ranks[step]), "log_error_ratio": ratio}


def descend(
    predictor: Predictor, start: Params, support: Examples, rate: Rate, steps: int, look=None
) -> Params:
    """Full-batch gradient steps; ``look(seconds, parameters)`` is called before and after each."""
    params = {name: value.detach().clone().requires_grad_(True) for name, value in start.items()}
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    stepper = kinds[rate[0]](params.values(), lr=rate[1])
    tokens, labels, loss = support.tokens, support.labels, LOSSES[predictor.objective]
    spent = 0.0
    for step in range(steps + 1):
        if step:
            began = time.process_time()
            stepper.zero_grad()
            loss(predictor(params, tokens), labels).backward()
            stepper.step()
            spent += time.process_time() - began
        if look is not None:
            look(spent, params)
    return {name: value.detach() for name, value in params.items()}


def follow(predictor: Predictor, start: Params, task: Task, rate: Rate, steps: int) -> Trajectory:
    """Take gradient steps on the support set and look at the query set after each."""
    query, seen = task.query, []

    def look(seconds: float, params: Params) -> None:
        with torch.no_grad():
            predicted = predictor(params, query.tokens)
        error = float(torch.mean((predicted - query.labels) ** 2))
        finite = bool(torch.isfinite(predicted).all())
        rank = spearman(predicted.numpy(), query.scores) if finite else 0.0
        seen.append((seconds, error if np.isfinite(error) else float("inf"), rank))

    descend(predictor, start, task.support, rate, steps, look)
    return Trajectory(*(np.array(column) for column in zip(*seen, strict=True)))


@dataclass(frozen=True)
class Question:
    """What is asked beside the study.

    Attributes:
        labels: numbers of labels of the new assay.
        horizon: gradient steps of fine-tuning; every start is followed for twice as many.
        tasks_counted: numbers of new assays that share the bill of meta-training.
        size_ids: assays of the study with many variants, for the dependence on the number of
            labels; the part is left out when there are none.
        sizes: numbers of labels there.

    """

    labels: tuple[int, ...] = (10, 40)
    horizon: int = 50
    tasks_counted: tuple[int, ...] = (1, 10, 100, 1000, 10000)
    size_ids: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (10, 30, 100, 300, 1000, 2000)

    def __post_init__(self):
        for name in ("labels", "tasks_counted", "size_ids", "sizes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))


def speed(
    study: Study,
    question: Question,
    *,
    where: Where | None = None,
    profile: str = "full",
    progress: Callable[[str], None] | None = None,
) -> Record:
    """Measure the time that a start saves, and what it cost.

    Returns:
        A record; tables ``draws``, ``steps``, ``clock``, ``costs``, ``rates``, ``embedding``, and
        where asked for ``rapid``, ``sizes`` and ``size_means``; numbers as `bill` names them.

    """
    where = where or Where()
    assays, _ = read_assays(study)
    clusters = {assay.id: cluster for assay, cluster in _clustered(assays)}
    read = study.reads[0]
    data = prepare(study, read, "cpu", where.cache_dir)
    asked = {"study": study.parameters(), "question": vars(question) | {"tasks_counted": []}}
    asked |= {"data": {assay.id: assay.sha256 for assay in assays}, "version": __version__}
    asked |= {"encoder": data.vectors.predictor.encoder.sha256}
    kept = Store(Path(where.store) if where.store else None, asked)

    def run_of(asked_study: Study, case: Case) -> Run:
        return Run(asked_study, read, case, replace(where, device="cpu"), kept, silent)

    parts = []
    for case in draw_cases(study, assays):
        name = f"{case.name}, seed {case.seed}"
        run = run_of(study, case)
        parts.append(kept.get(name, lambda run=run: follow_all(run, question, clusters)))
        if progress:
            progress(f"{name}: done")
    names = ("draws", "curves", "clock", "rapid", "costs", "rates", "left_out")
    rows = {key: pd.DataFrame([row for part in parts for row in part[key]]) for key in names}
    sized: list[dict] = []
    if question.size_ids:
        around = replace(study, regime="around", test_ids=question.size_ids, share=0.25)
        for case in draw_cases(around, assays):
            run = run_of(around, case)
            sized += kept.get(f"sizes, {case.seed}", lambda run=run: by_size(run, question))
    rows["sizes"] = pd.DataFrame(sized)
    costs = kept.get("embedding", lambda: embedding_cost(data.vectors.predictor, study))
    rows["embedding"] = pd.DataFrame(costs)
    return make_record(
        "speed",
        profile,
        study.parameters() | vars(question),
        assays=assays,
        encoder=describe_encoder(data.vectors.predictor.encoder),
        device="cpu",
        seconds={
            "meta_training": float(rows["costs"]["seconds"].sum()),
            "tuning": float(rows["rates"]["seconds"].sum()),
        },
        numbers=bill(rows, question.tasks_counted),
        tables=tables(rows),
    )


def _clustered(assays):
    clusters = cluster_proteins(assays)
    return [(assay, clusters[assay.wild_type]) for assay in assays]


def learn_starts(run: Run) -> tuple[dict[str, Params], dict[str, float]]:
    """Every start by arm, and the seconds of computation that it took."""
    starts, costs = {}, {}
    for arm, name in STARTS.items():
        began = time.process_time()
        if name == "fresh":
            starts[arm] = initial_params(run.data.vectors.predictor, run.case.seed)
        else:
            starts[arm] = run.train(name)[0].params
        costs[arm] = time.process_time() - began
    return starts, costs


def tuned(run: Run, start: Params, labels: int, steps: int) -> Rate:
    """The rate with the lowest error from so many labels in so many steps."""
    own = replace(run, study=replace(run.study, decided_at=labels, pool=labels))
    predictor = run.data.vectors.predictor
    rows = grid_scores(lambda rate: GradientMethod("", predictor, start, rate, steps), own.tasks())
    return best_rate(rows, "error")


def follow_all(run: Run, question: Question, clusters: dict[str, int]) -> dict[str, list[dict]]:
    """One fold and seed: learn the starts, tune, and follow them on every test assay."""
    data, horizon = run.data.vectors, question.horizon
    case = {"case": run.case.name, "seed": run.case.seed}
    starts, costs = learn_starts(run)
    made: dict[str, list[dict]] = {key: [] for key in ("draws", "curves", "clock", "rapid")}
    made |= {"rates": [], "left_out": []}
    made["costs"] = [{"arm": arm, "seconds": seconds, **case} for arm, seconds in costs.items()]
    chosen = {}
    for steps, k in [(horizon, k) for k in question.labels] + [(RAPID, RAPID)]:
        for arm, start in starts.items():
            began = time.process_time()
            rate = chosen[arm, steps, k] = tuned(run, start, k, steps)
            row = {"arm": arm, "steps": steps, "labels": k, "optimiser": rate[0], "lr": rate[1]}
            made["rates"].append({**row, "seconds": time.process_time() - began, **case})
    for assay in (data.assays[name] for name in run.case.split.test):
        about = {"assay": assay.assay.id, "property": assay.assay.property, **case}
        about["cluster"] = clusters[assay.assay.id]
        usable = [k for k in question.labels if len(assay) >= k + MIN_QUERY]
        for k in usable:
            task = _task(assay, k, run.case.seed, max(usable), run.study.max_query)
            here = {**about, "labels": k}
            if np.ptp(task.query.scores) == 0 or not task.label_scale.identified:
                made["left_out"].append(here)
                continue
            paths = {
                arm: follow(data.predictor, start, task, chosen[arm, horizon, k], 2 * horizon)
                for arm, start in starts.items()
            }
            end, whole = (getattr(paths["finetune"], x)[horizon] for x in ("errors", "seconds"))
            for arm, path in paths.items():
                made["draws"].append({**here, "arm": arm, **arrival(path, float(end), horizon)})
                for step in [step for step in STEPS if step <= 2 * horizon]:
                    made["curves"].append({**here, "arm": arm, "step": step, **path.at(step, end)})
                for share in SHARES:
                    found = path.at(path.at_seconds(share * whole), end)
                    made["clock"].append({**here, "arm": arm, "share": share, **found})
            for arm, start in starts.items() if k == RAPID else ():
                path = follow(data.predictor, start, task, chosen[arm, RAPID, RAPID], RAPID)
                ranks = {f"after_{s}": float(path.ranks[s]) for s in (0, 1, 2, 5, 10)}
                made["rapid"].append({**about, "arm": arm, **ranks})
    return made


def arrival(path: Trajectory, target: float, horizon: int) -> dict:
    """When the error is down to fine-tuning's at its end; twice the horizon if never."""
    step = path.reaches(target)
    stop = len(path.seconds) - 1 if step is None else step
    return {
        "reached": step is not None,
        "steps": stop,
        "seconds": float(path.seconds[stop]),
        "seconds_end": float(path.seconds[horizon]),
        "error_start": float(path.errors[0]),
        "error_end": float(path.errors[horizon]),
        "spearman_end": float(path.ranks[horizon]),
    }


def _task(assay: EncodedAssay, labels: int, seed: int, pool: int, max_query: int) -> Task:
    rng = task_generator(seed, assay.assay.id)
    return draw_task(assay, labels, rng, pool=pool, max_query=max_query or None)


def by_size(run: Run, question: Question) -> list[dict]:
    """Time and score MAML's start and a fresh one, by the number of labels and how they are read.

    ``fixed``: the first labels, however many there are; ``steps``: all labels in full batches;
    ``epochs``: all labels in batches of 16. A method that reads ten labels takes the same time
    however many there are; so that this is not taken for a property of meta-learning, fine-tuning
    is given the same ten labels, and MAML's start the same epochs.
    """
    study, seed, fixed = run.study, run.case.seed, run.study.support
    cap = max(question.sizes) + study.max_query
    large = replace(study, selection="", ids=question.size_ids, per_protein=0, cap=cap)
    assays = prepare(large, run.read, "cpu", run.where.cache_dir).vectors.assays
    predictor, starts, rows = run.data.vectors.predictor, learn_starts(run)[0], []
    for arm in ("maml", "finetune"):
        start = starts[arm]
        rate = tuned(run, start, fixed, question.horizon)
        for id, assay in assays.items():
            for size in question.sizes:
                task = _task(assay, size, seed, max(question.sizes), study.max_query)
                for kind in ("fixed", "steps", "epochs"):
                    support = task.support
                    if kind == "fixed":
                        first = _task(assay, min(size, fixed), seed, max(question.sizes), 0)
                        support = first.support
                    generator = torch.Generator().manual_seed(stable_seed("sizes", seed, size))
                    began = time.process_time()
                    if kind == "epochs":
                        batches = shuffled(support, study.epochs, 16, generator)
                        adapted = finetune(predictor.loss, start, batches, lr=EPOCH_RATE)
                    else:
                        adapted = descend(predictor, start, support, rate, question.horizon)
                    seconds = time.process_time() - began
                    predicted = predict(predictor, adapted, task.query.tokens).numpy()
                    row = {"assay": id, "seed": seed, "start": arm, "kind": kind, "labels": size}
                    row |= {"seconds": seconds, "spearman": spearman(predicted, task.query.scores)}
                    rows.append(row)
    return rows


def embedding_cost(predictor: Predictor, study: Study) -> list[dict]:
    """Seconds per variant that the frozen encoder takes, on assays of different lengths."""
    some = replace(study, cap=32, reads=(replace(study.reads[0], depth="all"),))
    encoded = prepare(some, some.reads[0], "cpu", None).vectors.assays
    by_length = sorted(encoded.values(), key=lambda item: len(item.assay.wild_type))
    places = np.unique(np.linspace(0, len(by_length) - 1, min(8, len(by_length))).astype(int))
    rows = []
    for item in (by_length[place] for place in places):
        began = time.process_time()
        embed(predictor.encoder, item.tokens, predictor.pooling)
        seconds = (time.process_time() - began) / len(item.tokens)
        about = {"assay": item.assay.id, "length": len(item.assay.wild_type)}
        rows.append({**about, "seconds_per_variant": seconds})
    return rows


def bill(rows: dict[str, pd.DataFrame], tasks_counted: Sequence[int]) -> dict[str, dict]:
    """The named numbers; intervals resample protein clusters.

    ``saved_<arm>_<labels>``: share of the seconds saved until fine-tuning's last query error is
    reached, fine-tuning's own being those until it first reaches it; ``saved_of_all_<arm>_...``
    the same against all of fine-tuning's steps; with ``_<property>`` for one property, with
    ``_over_<n>`` with meta-training on the bill of n new assays. ``reached_...``: share of draws
    that get there at all; ``worse_than_start_<labels>``: share of draws where fine-tuning ends with
    more error than it began with; ``break_even_...``: new assays after which meta-training is paid
    for (open where it never is); ``gain_<arm>_<labels>``: error saved at equal steps.
    """
    costs, made = rows["costs"], {}
    for arm in ARMS:
        own = costs.loc[costs["arm"] == arm, "seconds"]
        made[f"meta_training_{arm}"] = number(own.mean(), own.min(), own.max(), len(own), "s")
    for k, draws in rows["draws"].groupby("labels"):
        table = per_assay(draws)
        ends = table.loc["finetune"]
        clusters = ends["cluster"]
        for name, column in (("seconds", "seconds"), ("all_seconds", "seconds_end")):
            made[f"finetune_{name}_{k}"] = mean(ends[column], clusters, "s")
        made[f"worse_than_start_{k}"] = mean(ends["worse"], clusters, "draws")
        for arm in (*ARMS, "finetune"):
            made[f"spearman_{arm}_{k}"] = mean(table.loc[arm]["spearman_end"], clusters)
        for arm in ARMS:
            own, cost = table.loc[arm], made[f"meta_training_{arm}"]["value"]
            made[f"reached_{arm}_{k}"] = mean(own["reached"], clusters, "draws")
            made[f"{arm}_seconds_{k}"] = mean(own["seconds"], clusters, "s")
            ends_of = bootstrap_mean(own["log_error"] - ends["log_error"], clusters)
            saving = (1 - np.exp(ends_of[place]) for place in (0, 2, 1))
            made[f"gain_{arm}_{k}"] = number(*saving, len(own), "of the error")
            for words, column in (("", "seconds"), ("_of_all", "seconds_end")):
                made[f"saved{words}_{arm}_{k}"] = saved(own["seconds"], ends[column], clusters)
                less = ends[column] - own["seconds"]
                paid = bootstrap_ratio(np.full(len(own), cost), less, clusters)
                made[f"break_even{words}_{arm}_{k}"] = open_ended(paid, len(own), "assays")
                for name, part in ends.groupby("property"):
                    mine = own.loc[part.index]["seconds"]
                    made[f"saved{words}_{arm}_{k}_{name}"] = saved(
                        mine, part[column], part["cluster"]
                    )
            for n in tasks_counted:
                billed = own["seconds"] + cost / n
                made[f"saved_{arm}_{k}_over_{n}"] = saved(billed, ends["seconds"], clusters)
    made |= rapid(rows["rapid"]) | slopes(rows["sizes"])
    per_variant = rows["embedding"]["seconds_per_variant"]
    made["embedding_seconds_per_variant"] = number(
        per_variant.mean(), per_variant.min(), per_variant.max(), len(per_variant), "s"
    )
    return made


def per_assay(draws: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, indexed by arm and assay."""
    table = draws.assign(
        worse=draws["error_end"] > draws["error_start"],
        log_error=np.log(draws["error_end"].clip(1e-12, 1e6)),
    )
    numeric = ["steps", "seconds", "seconds_end", "spearman_end", "log_error", "reached", "worse"]
    kept = {name: (name, "mean") for name in numeric}
    kept |= {name: (name, "first") for name in ("property", "cluster")}
    return table.groupby(["arm", "assay"]).agg(**kept)


def mean(values: pd.Series, clusters: pd.Series, unit: str = "Spearman") -> dict:
    """A mean over assays with its interval over clusters."""
    return number(*bootstrap_mean(values, clusters), len(values), unit)


def saved(own: pd.Series, other: pd.Series, clusters: pd.Series) -> dict:
    """One minus the ratio of summed seconds: what is saved by whoever has all of the assays."""
    ratio, low, high = bootstrap_ratio(own, other, clusters)
    return open_ended((1 - ratio, 1 - high, 1 - low), len(own), "of the time")


def open_ended(values: tuple[float, float, float], n: int, unit: str) -> dict:
    """A number whose infinite ends are left open."""
    return number(*(float(v) if np.isfinite(v) else float("nan") for v in values), n, unit)


def rapid(rows: pd.DataFrame) -> dict[str, dict]:
    """Correlation after few steps: the means, one step less none, and one step over ten."""
    made = {}
    if not len(rows):
        return made
    steps = [name for name in rows if name.startswith("after_")]
    kept = {name: (name, "mean") for name in steps} | {"cluster": ("cluster", "first")}
    for arm, own in rows.groupby(["arm", "assay"]).agg(**kept).groupby(level="arm"):
        clusters = own["cluster"]
        for name in steps:
            made[f"rapid_{arm}_{name}"] = mean(own[name], clusters)
        for name, step in (("first_step", "after_1"), ("ten_steps", "after_10")):
            made[f"rapid_{arm}_{name}"] = mean(own[step] - own["after_0"], clusters)
        share = bootstrap_ratio(own["after_1"], own["after_10"], clusters)
        made[f"rapid_{arm}_share"] = open_ended(share, len(own), "of the correlation")
    return made


def slopes(sizes: pd.DataFrame) -> dict[str, dict]:
    """How seconds grow with labels, and whether a fixed support makes fine-tuning flat as well.

    ``exponent_<start>_<kind>``: slope of log seconds against log labels; ``<kind>_maml_over_...``:
    seconds of the one over the other at the largest size; ``flat_saving...``: the share of time
    that a fixed support saves against fine-tuning by epochs there.
    """
    made = {}
    if not len(sizes):
        return made
    table = sizes.groupby(["start", "kind", "assay", "labels"])["seconds"].mean()
    for (start, kind), own in table.groupby(level=["start", "kind"]):
        logs = np.log(own.unstack("labels"))
        found = np.array([np.polyfit(np.log(logs.columns), row, 1)[0] for row in logs.to_numpy()])
        made[f"exponent_{start}_{kind}"] = number(*bootstrap_mean(found), len(found), "exponent")
    largest = table.xs(sizes["labels"].max(), level="labels")
    slow = largest["finetune", "epochs"]
    for kind in ("fixed", "epochs"):
        ratio = bootstrap_ratio(largest["maml", kind], largest["finetune", kind])
        made[f"{kind}_maml_over_finetune"] = open_ended(ratio, len(slow), "ratio")
    for name, start in (("flat_saving", "maml"), ("flat_saving_finetune", "finetune")):
        made[name] = saved(largest[start, "fixed"], slow, np.arange(len(slow)))
    return made


def tables(rows: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Tables of the record: draws, mean curves with intervals, and the parts of the bill."""
    made = {name: rows[name] for name in ("draws", "costs", "rates", "embedding")}
    made |= {name: rows[name] for name in ("rapid", "left_out", "sizes") if len(rows[name])}
    for name, along in (("curves", "step"), ("clock", "share")):
        table = rows[name].rename(columns={"arm": "method"})
        made["steps" if name == "curves" else name] = pd.concat(
            estimate(table, metric, by=("labels", "method", along))
            for metric in ("spearman", "log_error_ratio")
        )
    if len(rows["sizes"]):
        sizes = rows["sizes"]
        sizes = sizes.assign(method=sizes["start"] + "_" + sizes["kind"], shots=sizes["labels"])
        made["size_means"] = estimate(sizes, ("seconds", "spearman"), over="assay")
    return made
