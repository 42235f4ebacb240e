"""The record of the public code's comparison, as released and as described.

One draw of the test is what the code reports; here the same test is repeated over many draws and
seeds, scored as there and scored fairly.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from itertools import product
from pathlib import Path

import pandas as pd

from mutmeta_lib import __version__
from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoders import load_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.records.record import Record, recorded_parameters
from mutmeta_lib.records.store import Store
from mutmeta_lib.reproduction import protocol_data as files
from mutmeta_lib.reproduction import protocol_estimates as estimates
from mutmeta_lib.reproduction.protocol_data import ProtocolData, Rows, cap_rows
from mutmeta_lib.reproduction.protocol_run import Protocol, Trial, run_seed, run_times
from mutmeta_lib.study.run import make_record
from mutmeta_lib.study.study import describe_encoder
from mutmeta_lib.tasks.batches import distinct_rows

KINDS = ("scores", "seconds", "times")
"""The tidy tables of a run, see `run_seed` and `run_times`."""


def protocol_experiment(
    *,
    release_dir: str,
    encoder: str = "",
    encodings: Sequence[str] = ("separator",),
    max_tokens: int = 256,
    sizes: Sequence[int] = (8, 16, 32),
    draws: int = 200,
    seeds: int = 5,
    initial_epochs: int = 10,
    finetune_epochs: int = 5,
    maml_epochs: int = 30,
    inner_steps: int = 5,
    time_rows: Sequence[int] = (500, 1000, 2000, 4000, 8000, 16000),
    time_seeds: int = 2,
    tiny_encodings: Sequence[str] = ("separator",),
    tiny_sizes: Sequence[int] = (16,),
    tiny_draws: int = 200,
    tiny_rows: int = 3000,
    tiny_max_tokens: int = 64,
    tiny_initial_epochs: int = 5,
    profile: str = "full",
    checkpoint_dir: str | None = None,
    cache_dir: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Record:
    """Run the protocol of the public code with its own files.

    ``release_dir`` is a copy of the public repository, or ``demo``: a miniature on bundled data.
    There are two encoders, `Protocol` says what the arguments mean: ``tiny``, trained in every
    phase as the public code trains its encoder, and a pretrained one, frozen. Parts of a run are
    kept in ``checkpoint_dir`` as they end, vectors of the frozen encoder in ``cache_dir``.

    The record has the tables ``rows``, ``times``, ``texts``, those of `gain_tables`, `mean_tables`
    and `contrast_tables`, and `protocol_numbers`. Seconds are of the processor, without what other
    programs took; those of a frozen encoder do not contain running it.
    """
    parameters = recorded_parameters(locals())
    say = progress or (lambda line: None)
    data = files.read_protocol(release_dir)
    own = ("encodings", "max_tokens", "sizes", "draws", "initial_epochs")
    same = ("finetune_epochs", "maml_epochs", "inner_steps", "seeds", "time_rows", "time_seeds")
    shared, runs = {name: parameters[name] for name in same}, []
    if encoder:
        how = shared | {name: parameters[name] for name in own}
        name = _short(load_encoder(encoder).name)
        runs.append(Protocol(name=name, encoder=encoder, frozen=True, most_rows=0, **how))
    if tiny_encodings:
        how = shared | {name: parameters[f"tiny_{name}"] for name in own}
        run = Protocol(name="tiny", encoder="tiny", frozen=False, most_rows=tiny_rows, **how)
        runs.append(run)
    if not runs:
        raise DataError("there is no encoder to run", "name one, or encodings for tiny")
    found = {
        (run.name, encoding): tidy_rows(run, data, encoding, checkpoint_dir, cache_dir, say)
        for run in runs
        for encoding in run.encodings
    }
    scores, seconds, times = (
        pd.DataFrame([row for tidy in found.values() for row in tidy[kind]]) for kind in KINDS
    )
    tables = {
        "rows": row_table(data, runs),
        "texts": text_table(data, runs),
        "times": times.assign(target=data.targets[0]),
        **estimates.gain_tables(scores),
        **estimates.mean_tables(scores, seconds),
        **estimates.contrast_tables(scores),
    }
    described = describe_encoder(runs[0].load())
    if len(runs) > 1:
        also = {"beside it": "tiny, trained"}
        described |= {"provenance": described["provenance"] | also}
    made = make_record(
        "protocol",
        profile,
        parameters,
        assays=[],
        encoder=described,
        device="cpu",
        seconds={", ".join(which): sum(tidy["spent"]) for which, tidy in found.items()},
        numbers=estimates.protocol_numbers(tables),
        tables=tables,
    )
    return replace(made, data=data.sha256)


def tidy_rows(
    run: Protocol,
    whole: ProtocolData,
    encoding: str,
    checkpoint_dir: str | None,
    cache_dir: str | None,
    say: Callable[[str], None],
) -> dict[str, list]:
    """What one encoder and encoding yields: rows of each of `KINDS`, of all seeds.

    ``spent`` are the processor seconds of every seed. Seeds that were kept are not computed again;
    their seconds are those that they took.
    """
    label, data = f"{run.name}, {encoding}", cap_rows(whole, run.most_rows)
    folder = Path(checkpoint_dir) / f"{run.name}-{encoding}" if checkpoint_dir else None
    question = asdict(replace(run, encodings=[encoding], seeds=0))
    question |= {"data": data.sha256, "encoder": run.load().sha256, "version": __version__}
    kept = Store(folder, question)

    @cache  # takes long, and is not needed if all parts were kept
    def encoded() -> dict[str, Rows]:
        how = {"frozen": run.frozen, "cache_dir": cache_dir}
        how["progress"] = lambda done, total: say(f"{label}: {done} of {total} rows run")
        return files.encode_protocol(data, encoding, run.load(), **how)

    def one(seed: int) -> dict:
        predictor = Predictor(run.load(seed), files.POOLING, start=None if run.frozen else 0)
        trial = Trial(predictor, encoded(), run, seed)
        began = time.process_time()
        made = run_seed(trial)
        made["times"] = run_times(trial) if seed < run.time_seeds else []
        return made | {"spent": time.process_time() - began}

    found: dict[str, list] = {kind: [] for kind in (*KINDS, "spent")}
    for seed in range(run.seeds):
        made = kept.get(f"seed {seed}", partial(one, seed))
        found["spent"].append(made["spent"])
        where = {"encoder": run.name, "encoding": encoding, "seed": seed}
        for kind in KINDS:
            found[kind] += [{**row, **where} for row in made[kind]]
        say(f"{label}: seed {seed} done")
    return found


def row_table(data: ProtocolData, runs: Sequence[Protocol]) -> pd.DataFrame:
    """How many rows each part has, how many each run reads, and which were split anew."""
    read = {"rows": data} | {run.name: cap_rows(data, run.most_rows) for run in runs}
    counted = {who: {part: len(t) for part, t in own.parts.items()} for who, own in read.items()}
    made = pd.DataFrame(counted).rename_axis("part").reset_index()
    return made.assign(resplit=made["part"].str.split().str[0].isin(data.resplit))


def text_table(data: ProtocolData, runs: Sequence[Protocol]) -> pd.DataFrame:
    """How many test rows, stated sequences, and different texts there are, per target.

    Rows that are one text are one to the model, whatever their labels.
    """
    found = []
    for run, target in product(runs, data.targets):
        part = data.parts[f"{target} test"]
        for encoding in run.encodings:
            texts, _ = distinct_rows(files.encode_rows(part, encoding, run.load()), files.POOLING)
            row = {"target": target, "encoding": encoding, "rows": len(part)}
            row |= {"sequences": part["wild_type"].nunique(), "texts": len(texts)}
            found.append(row | {"encoder": run.name})
    return pd.DataFrame(found)


def _short(name: str) -> str:
    """A frozen encoder's name in numbers: letters and digits only.

    >>> _short("ESM-2 t6 8M (UR50D), encoder"), _short("tiny")
    ('esm2', 'frozen_tiny')
    """
    first = name.split()[0] if name.split() else name
    short = "".join(letter for letter in first.lower() if letter.isalnum())
    return "frozen_tiny" if short == "tiny" else short
