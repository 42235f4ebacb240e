"""Seconds to a given accuracy, with meta-training excluded, included and shared out.

Every start (meta-trained, jointly trained, fresh) takes the same kind of steps on the same labels,
its rate tuned alike, until its query error is that of fine-tuning's end. Seconds are those of
computation, all threads together (``time.process_time``); the encoder is frozen, and its share, the
same for all, is reported apart.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch

from mutmeta_lib import __version__
from mutmeta_lib.data.proteins import cluster_proteins
from mutmeta_lib.learn.inner import finetune, shuffled
from mutmeta_lib.learn.methods import GRID, GradientMethod, Rate
from mutmeta_lib.learn.tuning import best_rate, grid_scores
from mutmeta_lib.models.embed import embed
from mutmeta_lib.models.predictor import Params, Predictor, predict
from mutmeta_lib.records.progress import silent
from mutmeta_lib.records.record import Record, number
from mutmeta_lib.records.store import Store
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.study.case import Run, Where, initial_params, prepare
from mutmeta_lib.study.estimates import bootstrap_mean, bootstrap_ratio, contrast, estimate, named
from mutmeta_lib.study.run import make_record
from mutmeta_lib.study.study import Study, describe_encoder, draw_cases, read_assays
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import EncodedAssay, Examples, Task, draw_task, task_generator

STARTS = ("maml", "multitask", "finetune")
ARMS = STARTS[:2]
"""Starts whose time is compared with fine-tuning's."""
STEPS, SHARES = (0, 1, 2, 5, 10, 20, 50, 100), (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Numbers of steps, and shares of fine-tuning's seconds, at which starts are compared."""
TABLES = ("draws", "curves", "clock", "costs", "rates", "left_out", "sizes")
PER_ASSAY = {"seconds": "mean", "seconds_end": "mean", "property": "first", "cluster": "first"}
MIN_QUERY = 15
EPOCH_RATE = 1e-3


def descent(
    predictor: Predictor, start: Params, support: Examples, rate: Rate, steps: int
) -> Iterator[tuple[float, Params]]:
    """Full-batch gradient steps: the seconds so far and the parameters, before and after each."""
    params = {name: value.detach().clone().requires_grad_(True) for name, value in start.items()}
    stepper = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[rate[0]]
    optimiser, spent = stepper(params.values(), lr=rate[1]), 0.0
    yield spent, params
    for _ in range(steps):
        began = time.process_time()
        optimiser.zero_grad()
        predictor.loss(params, support).backward()
        optimiser.step()
        spent += time.process_time() - began
        yield spent, params


def follow(predictor: Predictor, start: Params, task: Task, rate: Rate, steps: int) -> pd.DataFrame:
    """Take gradient steps on the support set and look at the query set before and after each.

    One row per step: ``seconds`` so far, without those of looking, ``error`` (mean squared, on
    scaled labels, infinite where the method diverged) and ``spearman``.
    """
    query, seen = task.query, []
    for seconds, params in descent(predictor, start, task.support, rate, steps):
        with torch.no_grad():
            predicted = predictor(params, query.tokens)
        error = float(torch.mean((predicted - query.labels) ** 2))
        finite = bool(torch.isfinite(predicted).all())
        rank = spearman(predicted.numpy(), query.scores) if finite else 0.0
        seen.append((seconds, error if np.isfinite(error) else float("inf"), rank))
    return pd.DataFrame(seen, columns=["seconds", "error", "spearman"])


def race(paths: dict[str, pd.DataFrame], horizon: int) -> dict[str, list[dict]]:
    """When each start has the error that fine-tuning has at the horizon; what all have meanwhile.

    ``draws`` has one row per start, who never gets there took all steps; ``curves`` one per start
    and number of steps, ``clock`` one per start and share of the seconds that fine-tuning takes to
    the horizon, with the steps that are finished by then.
    """
    target, whole = paths["finetune"].loc[horizon, ["error", "seconds"]]
    rows: dict[str, list[dict]] = {"draws": [], "curves": [], "clock": []}
    for arm, path in paths.items():
        seconds, error = path["seconds"], path["error"]
        there = path.index[error <= target]
        stop, last = int(min(there, default=path.index[-1])), path.loc[horizon]
        row = {"arm": arm, "reached": len(there) > 0, "steps": stop, "seconds": seconds[stop]}
        row |= {"seconds_end": last["seconds"], "error_start": error[0]}
        row |= {"error_end": last["error"], "spearman_end": last["spearman"]}
        rows["draws"].append(row)
        logs = np.log(error.clip(1e-12, 1e6)) - np.log(np.clip(target, 1e-12, 1e6))
        told = path[["spearman"]].assign(log_error_ratio=logs)
        for step in (step for step in STEPS if step in path.index):
            rows["curves"].append({"arm": arm, "step": step, **told.loc[step]})
        for share in SHARES:
            step = seconds.searchsorted(share * whole, side="right") - 1
            rows["clock"].append({"arm": arm, "share": share, **told.loc[step]})
    return rows


@dataclass(frozen=True)
class Question:
    """What is asked beside the study.

    ``labels`` are numbers of labels of the new assay; fine-tuning takes ``horizon`` gradient steps,
    and every start is followed for twice as many; meta-training is shared by ``tasks_counted`` new
    assays. On ``size_ids``, assays with many variants, time is taken against ``sizes``, numbers of
    labels.
    """

    labels: Sequence[int] = (10, 40)
    horizon: int = 50
    tasks_counted: Sequence[int] = (1, 10, 100, 1000, 10000)
    size_ids: Sequence[str] = ()
    sizes: Sequence[int] = (10, 30, 100, 300, 1000, 2000)


def speed(
    study: Study, question: Question, *, where: Where | None = None, profile: str = "full"
) -> Record:
    """Measure the time that a start saves, and what it cost: `tables`, and numbers of `bill`."""
    where = replace(where or Where(), device="cpu")
    assays, _ = read_assays(study)
    clusters, read = cluster_proteins(assays), study.reads[0]
    predictor = prepare(study, read, "cpu", where.cache_dir).vectors.predictor
    asked = {"study": study.parameters(), "question": vars(question) | {"tasks_counted": []}}
    data = {assay.id: assay.sha256 for assay in assays}
    asked |= {"data": data, "version": __version__}
    asked |= {"encoder": predictor.encoder.sha256}
    kept = Store(where.store, asked)
    rows: dict[str, list[dict]] = {name: [] for name in TABLES}
    for case in draw_cases(study, assays):
        run = Run(study, read, case, where, kept, silent)
        follow_one = partial(follow_all, run, question, clusters)
        for name, found in kept.get(f"{case.name}, seed {case.seed}", follow_one).items():
            rows[name] += found
    if question.size_ids:
        around = replace(study, regime="around", test_ids=question.size_ids, share=0.25)
        for case in draw_cases(around, assays):
            run = Run(around, read, case, where, kept, silent)
            rows["sizes"] += kept.get(f"sizes, {case.seed}", partial(by_size, run, question))
    rows["embedding"] = kept.get("embedding", partial(embedding_cost, predictor, study))
    found = {name: pd.DataFrame(part) for name, part in rows.items()}
    seconds = {"meta_training": float(found["costs"]["seconds"].sum())}
    seconds |= {"tuning": float(found["rates"]["seconds"].sum())}
    how = {"data": data, "encoder": describe_encoder(predictor.encoder), "device": "cpu"}
    how |= {"numbers": bill(found, question.tasks_counted), "tables": tables(found)}
    parameters = study.parameters() | vars(question)
    return make_record("speed", profile, parameters, seconds=seconds, **how)


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a function returns, and its processor seconds, without what other programs took."""
    began = time.process_time()
    made = function(*arguments)
    return made, time.process_time() - began


def learn(run: Run, name: str) -> tuple[Params, dict[str, float]]:
    """A start, and the outer rates and steps that were chosen; fine-tuning's is a fresh head."""
    if name == "finetune":
        return initial_params(run.data.vectors.predictor, run.case.seed), {}
    best, *_ = run.train(name)
    rates = {"inner_lr": best.settings.inner.lr, "meta_lr": best.settings.meta_lr}
    return best.params, rates | {"meta_steps": best.best_step}


def tuned(run: Run, start: Params, labels: int, steps: int) -> Rate:
    """The rate with the lowest error from so many labels in so many steps."""
    tasks = replace(run, study=replace(run.study, pool=labels)).tasks(labels)
    build = partial(GradientMethod, "", run.data.vectors.predictor, start)
    return best_rate(grid_scores(build, tasks, [Rate(*one, steps) for one in GRID]), "error")


def follow_all(run: Run, question: Question, clusters: dict[str, int]) -> dict[str, list[dict]]:
    """One fold and seed: learn the starts, tune, and follow them on every test assay."""
    data, horizon = run.data.vectors, question.horizon
    case = {"case": run.case.name, "seed": run.case.seed}
    made: dict[str, list[dict]] = {name: [] for name in TABLES}
    starts, chosen = {}, {}
    for arm in STARTS:
        (starts[arm], told), seconds = timed(learn, run, arm)
        made["costs"].append({"arm": arm, "seconds": seconds, **told, **case})
    for k, (arm, start) in product(question.labels, starts.items()):
        rate, seconds = timed(tuned, run, start, k, horizon)
        row = {"arm": arm, "labels": k, "optimiser": rate.optimiser, "lr": rate.lr}
        made["rates"].append({**row, "seconds": seconds, **case})
        chosen[arm, k] = rate
    for assay in (data.assays[name] for name in run.case.split.test):
        about = {"assay": assay.assay.id, "property": assay.assay.property, **case}
        about["cluster"] = clusters[assay.assay.wild_type]
        usable = [k for k in question.labels if len(assay) >= k + MIN_QUERY]
        for k in usable:
            task = _task(assay, k, run.case.seed, max(usable), run.study.max_query)
            here = {**about, "labels": k}
            if np.ptp(task.query.scores) == 0 or not task.label_scale.identified:
                made["left_out"].append(here)
                continue
            paths = {
                arm: follow(data.predictor, start, task, chosen[arm, k], 2 * horizon)
                for arm, start in starts.items()
            }
            for name, rows in race(paths, horizon).items():
                made[name] += [here | row for row in rows]
    return made


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
    study, seed, fixed, most = run.study, run.case.seed, run.study.support, max(question.sizes)
    large = replace(study, selection="", ids=question.size_ids, per_protein=0)
    large = replace(large, cap=most + study.max_query)
    assays = prepare(large, run.read, "cpu", run.where.cache_dir).vectors.assays
    predictor, rows = run.data.vectors.predictor, []

    def adapted(kind: str, start: Params, rate: Rate, support: Examples) -> Params:
        if kind == "epochs":
            generator = torch.Generator().manual_seed(stable_seed("sizes", seed, len(support)))
            batches = shuffled(support, study.epochs, 16, generator)
            return finetune(predictor.loss, start, batches, lr=EPOCH_RATE)
        *_, (_, params) = descent(predictor, start, support, rate, question.horizon)
        return params

    for arm in ("maml", "finetune"):
        start, _ = learn(run, arm)
        rate = tuned(run, start, fixed, question.horizon)
        asked = product(assays.items(), question.sizes, ("fixed", "steps", "epochs"))
        for (id, assay), size, kind in asked:
            read = min(size, fixed) if kind == "fixed" else size
            task = _task(assay, read, seed, most, study.max_query)
            params, seconds = timed(adapted, kind, start, rate, task.support)
            predicted = predict(predictor, params, task.query.tokens).numpy()
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
        _, seconds = timed(embed, predictor.encoder, item.tokens, predictor.pooling)
        row = {"assay": item.assay.id, "length": len(item.assay.wild_type)}
        rows.append(row | {"seconds_per_variant": seconds / len(item.tokens)})
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
    costs, made = rows["costs"].groupby("arm")["seconds"], {}
    draws = rows["draws"].assign(
        worse=rows["draws"]["error_end"] > rows["draws"]["error_start"],
        log_error=np.log(rows["draws"]["error_end"].clip(1e-12, 1e6)),
    )
    fine = draws[draws["arm"] == "finetune"]
    for table, metric, name, unit in (
        (draws, "reached", "reached_{arm}_{labels}", "draws"),
        (draws, "seconds", "{arm}_seconds_{labels}", "s"),
        (fine, "seconds_end", "{arm}_all_seconds_{labels}", "s"),
        (fine, "worse", "worse_than_start_{labels}", "draws"),
    ):
        made |= named(estimate(table, metric, by=("arm", "labels")), name, unit)
    for arm in ARMS:
        made[f"meta_training_{arm}"] = _range(costs.get_group(arm))
        gain = contrast(draws, "log_error", "arm", arm, by=("labels",))
        gain = gain[gain["baseline"] == "finetune"]
        ends = 1 - np.exp(gain[["mean", "high", "low"]].to_numpy())
        gain = gain.assign(**dict(zip(("mean", "low", "high"), ends.T, strict=True)))
        made |= named(gain, "gain_{arm}_{labels}", "of the error")
    for arm, k in product(ARMS, draws["labels"].unique()):
        cost = costs.mean()[arm]
        table = draws[draws["labels"] == k].groupby(["arm", "assay"]).agg(PER_ASSAY)
        own, ends = table.loc[arm, "seconds"], table.loc["finetune"]
        clusters = ends["cluster"]
        for words, column in (("", "seconds"), ("_of_all", "seconds_end")):
            name, theirs = f"saved{words}_{arm}_{k}", ends[column]
            made[name] = saved(own, theirs, clusters)
            paid = bootstrap_ratio(np.full(len(own), cost), theirs - own, clusters)
            made[f"break_even{words}_{arm}_{k}"] = number(*paid, len(own), "assays")
            for kind, part in ends.groupby("property"):
                made[f"{name}_{kind}"] = saved(own[part.index], part[column], part["cluster"])
        for n in tasks_counted:
            made[f"saved_{arm}_{k}_over_{n}"] = saved(own + cost / n, ends["seconds"], clusters)
    made["embedding_seconds_per_variant"] = _range(rows["embedding"]["seconds_per_variant"])
    return made | slopes(rows["sizes"])


def _range(values: pd.Series) -> dict:
    return number(values.mean(), values.min(), values.max(), len(values), "s")


def saved(own: pd.Series, other: pd.Series, clusters: pd.Series) -> dict:
    """One minus the ratio of summed seconds: what is saved by whoever has all of the assays."""
    ratio, low, high = bootstrap_ratio(own, other, clusters)
    return number(1 - ratio, 1 - high, 1 - low, len(own), "of the time")


def slopes(sizes: pd.DataFrame) -> dict[str, dict]:
    """How seconds grow with labels, and whether a fixed support makes fine-tuning flat as well.

    ``exponent_<start>_<kind>``: slope of log seconds against log labels; at the largest size
    ``fixed_maml_over_finetune`` the ratio of seconds, and ``flat_saving...`` the share of time that
    a fixed support saves against fine-tuning by epochs.
    """
    made = {}
    if not len(sizes):
        return made
    table = sizes.groupby(["start", "kind", "assay", "labels"])["seconds"].mean()
    for (start, kind), own in table.groupby(level=["start", "kind"]):
        logs = np.log(own.unstack("labels"))
        found = np.polyfit(np.log(logs.columns), logs.to_numpy().T, 1)[0]
        made[f"exponent_{start}_{kind}"] = number(*bootstrap_mean(found), len(found), "exponent")
    largest = table.xs(sizes["labels"].max(), level="labels")
    slow = largest["finetune", "epochs"]
    ratio = bootstrap_ratio(largest["maml", "fixed"], largest["finetune", "fixed"])
    made["fixed_maml_over_finetune"] = number(*ratio, len(slow), "ratio")
    for name, start in (("flat_saving", "maml"), ("flat_saving_finetune", "finetune")):
        made[name] = saved(largest[start, "fixed"], slow, np.arange(len(slow)))
    return made


def tables(rows: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Tables of the record: draws, mean curves with intervals, and the parts of the bill."""
    made = {name: rows[name] for name in ("draws", "costs", "rates", "embedding")}
    made |= {name: rows[name] for name in ("left_out", "sizes") if len(rows[name])}
    for name, source, along in (("steps", "curves", "step"), ("clock", "clock", "share")):
        table, by = rows[source].rename(columns={"arm": "method"}), ("labels", "method", along)
        made[name] = estimate(table, ("spearman", "log_error_ratio"), by=by)
    if len(sizes := rows["sizes"]):
        sizes = sizes.assign(method=sizes["start"] + "_" + sizes["kind"], shots=sizes["labels"])
        made["size_means"] = estimate(sizes, ("seconds", "spearman"), over="assay")
    return made
