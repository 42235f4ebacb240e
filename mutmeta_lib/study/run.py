"""The one runner: every case of a study trained, tuned and tested, as rows of one tidy table.

Finished work is kept as it ends where a folder is given: meta-training in checkpoints, the rates,
the results on each test assay, and each case as a whole. A killed run that is started again goes on
from there and ends at the same numbers.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
from joblib import Parallel, delayed, parallel_config

from mutmeta_lib import __version__
from mutmeta_lib.data.assays import Assay
from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoder import load_encoder
from mutmeta_lib.models.sites import READS
from mutmeta_lib.models.zero_shot import describe_head
from mutmeta_lib.records.progress import Report, shown_progress, silent
from mutmeta_lib.records.record import (
    Record,
    describe,
    differing,
    environment,
    number,
    peak_memory_mb,
    read_record,
    recorded_parameters,
    shared_parameters,
    write_record,
)
from mutmeta_lib.records.store import Store
from mutmeta_lib.study.case import Run, Where
from mutmeta_lib.study.estimates import named
from mutmeta_lib.study.study import (
    Case,
    Read,
    Study,
    describe_assays,
    describe_encoder,
    draw_cases,
    read_assays,
)
from mutmeta_lib.tasks.metrics import METRICS


@dataclass(frozen=True, eq=False)
class Result:
    """What a run found: tidy rows, rates that were chosen, training histories, and the bill.

    ``rows`` have the columns of `evaluate.evaluate`, those of `Read`, and regime, case, role and
    cluster; ``choices`` one row per rate that was tried, ``history`` one per meta-step.
    """

    rows: pd.DataFrame
    choices: pd.DataFrame
    history: pd.DataFrame
    assays: pd.DataFrame
    cases: tuple[Case, ...]
    measured: tuple[Assay, ...]
    encoder: dict[str, Any]
    seconds: dict[str, float]
    diverged: int


def run(*studies: Study, where: Where | None = None) -> Result:
    """Run every case of some studies on the same assays, one after the other or side by side.

    It is a DataError if a worker process was killed; after Ctrl-C none is left.
    """
    where, began = where or Where(), time.perf_counter()
    assays, roles = read_assays(studies[0])
    about = describe_assays(assays, roles)
    data = {assay.id: assay.sha256 for assay in assays}
    jobs, cases, encoders, load = [], [], [], cache(load_encoder)
    for study in studies:
        drawn = draw_cases(study, assays)
        cases += drawn
        groups: dict[Read, list[Read]] = {}
        for read in study.reads:
            groups.setdefault(replace(read, swap="same"), []).append(read)
        for own, reads in groups.items():
            asked = {"data": data, "encoder": "", "version": __version__}
            if READS.get(own.encoding, True):
                encoder = load(own.encoder, max_tokens=own.max_tokens)
                head = describe_head(study.methods, encoder)  # refuses before anything is trained
                encoders.append(describe_encoder(encoder) | head)
                asked["encoder"] = encoder.sha256
            for case in drawn:
                kept = _kept(study, reads, case, where, asked)
                jobs.append((Run(study, own, case, where, kept, silent), reads))
    with shown_progress() as report:
        done = list(_outcomes(jobs, where, report))
    rows, choices, history = (
        pd.DataFrame([row for one in done for row in one[key]])
        for key in ("rows", "choices", "history")
    )
    if len(rows):
        known = about.set_index("assay")
        rows = rows.assign(**{key: rows["assay"].map(known[key]) for key in ("role", "cluster")})
    seconds = pd.DataFrame([one["seconds"] for one in done]).sum().to_dict()
    # Work that was kept, or shared by processes, may have taken longer than this run.
    seconds["everything_else"] = max(0.0, time.perf_counter() - began - sum(seconds.values()))
    diverged, tables = sum(one["diverged"] for one in done), (rows, choices, history, about)
    first = encoders[0] if encoders else {"name": "none", "sha256": "", "provenance": {}}
    return Result(*tables, tuple(cases), tuple(assays), first, seconds, diverged)


def _kept(study: Study, reads: Sequence[Read], case: Case, where: Where, asked: dict) -> Store:
    """The store of one case's finished work, which depends on all that its numbers depend on."""
    own = ("seeds", "seed", "folds", "properties", "reads")
    usual = {field.name: field.default for field in fields(Study)}
    chosen = {k: v for k, v in vars(study).items() if k not in own and v != usual[k]}
    question = {
        **asked,
        # Of the study what is not usual: a new field changes no question asked before.
        "study": recorded_parameters(chosen),
        "reads": [recorded_parameters(vars(read)) for read in reads],
        "case": [case.regime, case.name, case.seed],
        "split": [case.split.train, case.split.validation, case.split.test],
    }
    return Store(where.store, question)


def _outcomes(jobs: Sequence[tuple], where: Where, report: Report) -> Iterator[dict]:
    """What each job finds, in their order; processes of one thread each share them."""
    done, again = 0, f"; start again to go on from {where.store}" if where.store else ""
    report("runs", done, len(jobs))
    heard = report if where.workers == 1 else silent
    calls = (delayed(job.done)(reads, heard) for job, reads in jobs)
    try:
        with parallel_config("loky", inner_max_num_threads=1):
            for outcome in Parallel(n_jobs=where.workers, return_as="generator")(calls):
                done += 1
                report("runs", done, len(jobs))
                yield outcome
    except BrokenProcessPool:
        told = f"a worker process was killed after {done} of {len(jobs)} runs, perhaps for memory"
        raise DataError(told, f"ask for fewer workers{again}") from None
    except KeyboardInterrupt as stop:
        told = str(stop) or f"stopped after {done} of {len(jobs)} runs{again}"
        raise KeyboardInterrupt(told) from None


def average_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with seeds averaged, and ``n_seeds``, their number."""
    averaged = [name for name in (*METRICS, "seconds_adapt", "seconds_predict") if name in rows]
    varied = [name for name in rows if name not in (*averaged, "seed", "n_query", "case")]
    grouped = rows.groupby(varied, sort=False, dropna=False)
    means = grouped[averaged].mean()
    return means.assign(n_query=grouped["n_query"].first(), n_seeds=grouped.size()).reset_index()


def make_record(
    experiment: str,
    profile: str,
    parameters: dict[str, Any],
    *,
    data: Mapping[str, str],
    device: str,
    seconds: Mapping[str, float],
    tables: dict[str, pd.DataFrame],
    **more: Any,
) -> Record:
    """A record of what was just run on ``data``; ``more`` are its ``encoder`` and ``numbers``."""
    return Record(
        experiment=experiment,
        profile=profile,
        parameters=parameters,
        data=data,
        environment=environment(device),
        seconds={name: round(value, 3) for name, value in seconds.items()},
        peak_memory_mb=peak_memory_mb(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        tables={name: table.round(5) for name, table in tables.items()},
        **more,
    )


def committed(name: str, records_dir: str | Path) -> Record | None:
    """The committed record of the profile full, if there is one; says which it is."""
    path = Path(records_dir, "full", f"{name}.json")
    if not path.exists():
        print(f"{name}: no committed record of the full profile")
        return None
    record = read_record(path)
    print("shown:", describe(record, loaded=True))
    return record


def recorded(
    name: str,
    *studies: Study,
    path: str | Path | None = None,
    tables: Callable[[Result], dict[str, pd.DataFrame]] | None = None,
    names: Mapping[str, str] = MappingProxyType({}),
    recompute: bool = True,
    profile: str = "full",
    where: Where | None = None,
) -> tuple[Record, bool]:
    """The record of some studies, and whether it was loaded: from ``path`` if it is theirs.

    Its parameters are those of the first study, with what the others change; its tables are
    ``results`` (means over seeds where there are several), ``choices``, ``history``, ``assays``,
    and what ``tables`` makes of the result; rows of the tables in ``names`` are numbers too, called
    by a template, of the metric spearman alone where that says no metric. It is written to
    ``path`` if one is given.
    """
    parameters = shared_parameters(*(study.parameters() for study in studies))
    if not recompute and path is not None and Path(path).exists():
        found = read_record(path)
        # Records of earlier versions name fewer parameters, and those of the first read one by one.
        if not differing(found.parameters, {**parameters, **parameters["reads"][0]}):
            return found, True
    result = run(*studies, where=where)
    rows = average_seeds(result.rows) if studies[0].seeds > 1 and len(result.rows) else result.rows
    kept = {"results": rows, "choices": result.choices, "history": result.history}
    kept |= {"assays": result.assays} | (tables(result) if tables else {})
    numbers = {
        "assays": number(len(result.measured)),
        "clusters": number(result.assays["cluster"].nunique()),
        "variants": number(sum(map(len, result.measured))),
        "diverged_adaptations": number(result.diverged, n=len(result.rows), unit="adaptations"),
    }
    for table, template in names.items():
        rows = kept[table]
        if "metric" in rows and "{metric}" not in template:
            rows = rows[rows["metric"] == "spearman"]
        numbers |= named(rows, template)
    record = make_record(
        name,
        profile,
        parameters,
        data={assay.id: assay.sha256 for assay in result.measured},
        encoder=result.encoder,
        device=(where or Where()).device,
        seconds=result.seconds,
        numbers=numbers,
        tables=kept,
    )
    if path is not None:
        write_record(record, path)
    return record, False
