"""Seconds to a given accuracy, with meta-training excluded, included and shared out.

The target is fine-tuning's query error at its end. Every start (meta-trained, jointly trained,
fresh) takes the same kind of steps on the same labels, its rate tuned alike, and is followed until
it gets there. What each start cost is known, so it can be put on the bill of one new assay, or of a
thousand. Seconds are those of computation, all threads together (``time.process_time``); the
encoder is frozen, and its share, the same for all, is reported apart.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from mutmeta_lib.study.study import Study, describe_encoder, draw_cases, read_assays
from mutmeta_lib.tasks.metrics import spearman
from mutmeta_lib.tasks.tasks import EncodedAssay, Examples, Task, draw_task, task_generator

STARTS = ("maml", "multitask", "finetune")
ARMS = STARTS[:2]
"""Starts whose time is compared with fine-tuning's."""
STEPS = (0, 1, 2, 5, 10, 20, 50, 100)
"""Numbers of steps at which starts are compared."""
SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of fine-tuning's seconds at which they are compared."""
RAPID = 10
"""Labels, and at most steps, of the claim of rapid adaptation."""
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
    every start is followed for twice as many; meta-training is on the bill of ``tasks_counted`` new
    assays together. On ``size_ids``, assays of the study with many variants (none leaves the part
    out), time is taken against ``sizes``, numbers of labels.
    """

    labels: Sequence[int] = (10, 40)
    horizon: int = 50
    tasks_counted: Sequence[int] = (1, 10, 100, 1000, 10000)
    size_ids: Sequence[str] = ()
    sizes: Sequence[int] = (10, 30, 100, 300, 1000, 2000)


def speed(
    study: Study, question: Question, *, where: Where | None = None, profile: str = "full"
) -> Record:
    """Measure the time that a start saves, and what it cost.

    The record has the tables ``draws``, ``steps``, ``clock``, ``costs``, ``rates``, ``embedding``,
    and where asked for ``rapid``, ``sizes`` and ``size_means``; numbers as `bill` names them.
    """
    where = replace(where or Where(), device="cpu")
    assays, _ = read_assays(study)
    of = cluster_proteins(assays)
    clusters = {assay.id: of[assay.wild_type] for assay in assays}
    read = study.reads[0]
    predictor = prepare(study, read, "cpu", where.cache_dir).vectors.predictor
    asked = {"study": study.parameters(), "question": vars(question) | {"tasks_counted": []}}
    asked |= {"data": {assay.id: assay.sha256 for assay in assays}, "version": __version__}
    asked |= {"encoder": predictor.encoder.sha256}
    kept = Store(Path(where.store) if where.store else None, asked)
    names = ("draws", "curves", "clock", "rapid", "costs", "rates", "left_out", "sizes")
    rows: dict[str, list[dict]] = {name: [] for name in names}
    for case in draw_cases(study, assays):
        run = Run(study, read, case, where, kept, silent)
        part = kept.get(
            f"{case.name}, seed {case.seed}", partial(follow_all, run, question, clusters)
        )
        for name, found in part.items():
            rows[name] += found
    if question.size_ids:
        around = replace(study, regime="around", test_ids=question.size_ids, share=0.25)
        for case in draw_cases(around, assays):
            run = Run(around, read, case, where, kept, silent)
            rows["sizes"] += kept.get(f"sizes, {case.seed}", partial(by_size, run, question))
    rows["embedding"] = kept.get("embedding", partial(embedding_cost, predictor, study))
    found = {name: pd.DataFrame(part) for name, part in rows.items()}
    return make_record(
        "speed",
        profile,
        study.parameters() | vars(question),
        assays=assays,
        encoder=describe_encoder(predictor.encoder),
        device="cpu",
        seconds={
            "meta_training": float(found["costs"]["seconds"].sum()),
            "tuning": float(found["rates"]["seconds"].sum()),
        },
        numbers=bill(found, question.tasks_counted),
        tables=tables(found),
    )


def learn_starts(run: Run) -> tuple[dict[str, Params], dict[str, float]]:
    """Every start, and the seconds of computation that it took."""
    starts, costs = {}, {}
    for name in STARTS:
        began = time.process_time()
        if name == "finetune":
            starts[name] = initial_params(run.data.vectors.predictor, run.case.seed)
        else:
            starts[name] = run.train(name)[0].params
        costs[name] = time.process_time() - began
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
    names = ("draws", "curves", "clock", "rapid", "rates", "left_out")
    made: dict[str, list[dict]] = {name: [] for name in names}
    made["costs"] = [{"arm": arm, "seconds": seconds, **case} for arm, seconds in costs.items()]
    chosen = {}
    for steps, k in [*((horizon, k) for k in question.labels), (RAPID, RAPID)]:
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
            for name, rows in race(paths, horizon).items():
                made[name] += [here | row for row in rows]
            for arm, start in starts.items() if k == RAPID else ():
                path = follow(data.predictor, start, task, chosen[arm, RAPID, RAPID], RAPID)
                ranks = {f"after_{s}": path["spearman"][s] for s in (0, 1, 2, 5, 10)}
                made["rapid"].append({**about, "arm": arm, **ranks})
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
    predictor, starts, rows = run.data.vectors.predictor, learn_starts(run)[0], []
    for arm in ("maml", "finetune"):
        start, rate = starts[arm], tuned(run, starts[arm], fixed, question.horizon)
        for (id, assay), size in (
            (item, size) for item in assays.items() for size in question.sizes
        ):
            task = _task(assay, size, seed, most, study.max_query)
            first = _task(assay, min(size, fixed), seed, most, 0).support
            for kind in ("fixed", "steps", "epochs"):
                generator = torch.Generator().manual_seed(stable_seed("sizes", seed, size))
                began = time.process_time()
                if kind == "epochs":
                    batches = shuffled(task.support, study.epochs, 16, generator)
                    adapted = finetune(predictor.loss, start, batches, lr=EPOCH_RATE)
                else:
                    support = first if kind == "fixed" else task.support
                    *_, (_, adapted) = descent(predictor, start, support, rate, question.horizon)
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
    costs, made = rows["costs"].groupby("arm")["seconds"], {}
    for arm in ARMS:
        made[f"meta_training_{arm}"] = _range(costs.get_group(arm))
    for k, draws in rows["draws"].groupby("labels"):
        table = per_assay(draws)
        ends = table.loc["finetune"]
        clusters = ends["cluster"]
        made[f"finetune_seconds_{k}"] = mean(ends["seconds"], clusters, "s")
        made[f"finetune_all_seconds_{k}"] = mean(ends["seconds_end"], clusters, "s")
        made[f"worse_than_start_{k}"] = mean(ends["worse"], clusters, "draws")
        for arm in ARMS:
            own, cost = table.loc[arm], made[f"meta_training_{arm}"]["value"]
            seconds = own["seconds"]
            made[f"reached_{arm}_{k}"] = mean(own["reached"], clusters, "draws")
            made[f"{arm}_seconds_{k}"] = mean(seconds, clusters, "s")
            value, low, high = bootstrap_mean(own["log_error"] - ends["log_error"], clusters)
            saving = 1 - np.exp([value, high, low])
            made[f"gain_{arm}_{k}"] = number(*map(float, saving), len(own), "of the error")
            for words, column in (("", "seconds"), ("_of_all", "seconds_end")):
                name, theirs = f"saved{words}_{arm}_{k}", ends[column]
                made[name] = saved(seconds, theirs, clusters)
                paid = bootstrap_ratio(np.full(len(own), cost), theirs - seconds, clusters)
                made[f"break_even{words}_{arm}_{k}"] = open_ended(paid, len(own), "assays")
                for kind, part in ends.groupby("property"):
                    mine = seconds.loc[part.index]
                    made[f"{name}_{kind}"] = saved(mine, part[column], part["cluster"])
            for n in tasks_counted:
                billed = saved(seconds + cost / n, ends["seconds"], clusters)
                made[f"saved_{arm}_{k}_over_{n}"] = billed
    made["embedding_seconds_per_variant"] = _range(rows["embedding"]["seconds_per_variant"])
    return made | rapid(rows["rapid"]) | slopes(rows["sizes"])


def _range(values: pd.Series) -> dict:
    return number(values.mean(), values.min(), values.max(), len(values), "s")


def per_assay(draws: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, indexed by arm and assay."""
    table = draws.assign(
        worse=draws["error_end"] > draws["error_start"],
        log_error=np.log(draws["error_end"].clip(1e-12, 1e6)),
    )
    how = dict.fromkeys(("seconds", "seconds_end", "log_error", "reached", "worse"), "mean")
    how |= {"property": "first", "cluster": "first"}
    return table.groupby(["arm", "assay"]).agg(how)


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
    """Correlation gained by the first step, and its share of the correlation after ten."""
    made = {}
    if len(rows):
        how = {"after_0": "mean", "after_1": "mean", "after_10": "mean", "cluster": "first"}
        for arm, own in rows.groupby(["arm", "assay"]).agg(how).groupby(level="arm"):
            first = mean(own["after_1"] - own["after_0"], own["cluster"])
            share = bootstrap_ratio(own["after_1"], own["after_10"], own["cluster"])
            made[f"rapid_{arm}_first_step"] = first
            made[f"rapid_{arm}_share"] = open_ended(share, len(own), "of the correlation")
    return made


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
    made["fixed_maml_over_finetune"] = open_ended(ratio, len(slow), "ratio")
    for name, start in (("flat_saving", "maml"), ("flat_saving_finetune", "finetune")):
        made[name] = saved(largest[start, "fixed"], slow, np.arange(len(slow)))
    return made


def tables(rows: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Tables of the record: draws, mean curves with intervals, and the parts of the bill."""
    made = {name: rows[name] for name in ("draws", "costs", "rates", "embedding")}
    made |= {name: rows[name] for name in ("rapid", "left_out", "sizes") if len(rows[name])}
    for name, source, along in (("steps", "curves", "step"), ("clock", "clock", "share")):
        table, by = rows[source].rename(columns={"arm": "method"}), ("labels", "method", along)
        made[name] = estimate(table, ("spearman", "log_error_ratio"), by=by)
    if len(sizes := rows["sizes"]):
        sizes = sizes.assign(method=sizes["start"] + "_" + sizes["kind"], shots=sizes["labels"])
        made["size_means"] = estimate(sizes, ("seconds", "spearman"), over="assay")
    return made
