"""All seeds of one encoder in the public code's comparison, kept as they end."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path

import pandas as pd

from mutmeta_lib import __version__
from mutmeta_lib.models.encoders import Encoder, load_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.records.pieces import Pieces
from mutmeta_lib.reproduction.protocol_data import (
    POOLING,
    EncodedProtocol,
    ProtocolData,
    encode_protocol,
)
from mutmeta_lib.reproduction.protocol_numbers import shown
from mutmeta_lib.reproduction.protocol_run import Setting, run_seed
from mutmeta_lib.reproduction.protocol_tables import result_tables
from mutmeta_lib.reproduction.protocol_time import run_times

TIME_DRAWS = 50
"""Draws over which errors are taken where seconds are measured."""


@dataclass(frozen=True, eq=False)
class Run:
    """All that one encoder does: ``data`` is what it reads, ``setting`` how it is trained."""

    name: str
    encoder: str
    frozen: bool
    max_tokens: int
    encodings: Sequence[str]
    data: ProtocolData
    setting: Setting
    time_rows: Sequence[int]
    time_seeds: int


def loaded(run: Run, seed: int) -> Encoder:
    """The run's encoder; the seed decides the weights of ``tiny``."""
    return load_encoder(run.encoder, seed=seed, max_tokens=run.max_tokens)


@dataclass(frozen=True, eq=False)
class Done:
    """Processor seconds of one encoder and encoding, what every seed gave, and its tables."""

    seconds: float
    results: list[dict]
    tables: dict[str, pd.DataFrame]


def run_all_seeds(
    run: Run,
    encoding: str,
    seeds: int,
    checkpoint_dir: str | None,
    cache_dir: str | None,
    say: Callable[[str], None],
) -> Done:
    """All seeds of one encoder and encoding.

    Parts that were kept are not computed again; their seconds are those that they took.
    """
    label = f"{run.name}, {encoding}"
    question = {
        "setting": asdict(run.setting),
        "encoder": loaded(run, 0).sha256,
        "max_tokens": run.max_tokens,
        "encoding": encoding,
        "data": run.data.sha256,
        "rows": [len(run.data.initial), *map(len, run.data.train.values())],
        "version": __version__,
    }
    folder = Path(checkpoint_dir) / f"{run.name}-{encoding}" if checkpoint_dir else None
    pieces = Pieces(folder, question)

    @cache  # takes long, and is not needed if all parts were kept
    def encoded() -> EncodedProtocol:
        return encode_protocol(
            run.data,
            encoding,
            loaded(run, 0),
            frozen=run.frozen,
            cache_dir=cache_dir,
            progress=lambda done, total: say(f"{label}: {done} of {total} rows run"),
        )

    def predictor(seed: int) -> Predictor:
        return Predictor(loaded(run, seed), POOLING, start=None if run.frozen else 0)

    def one(seed: int) -> dict:
        given = predictor(seed), encoded()
        began = time.process_time()
        found = run_seed(*given, run.setting, seed)
        return found | {"total_seconds": time.process_time() - began}

    results = []
    for seed in range(seeds):
        results.append(pieces.get(f"seed {seed}", partial(one, seed)))
        say(f"{label}: seed {seed} done")

    target = next(iter(run.data.train))
    rows = [n for n in run.time_rows if n <= len(run.data.train[target])]
    setting = replace(run.setting, draws=min(run.setting.draws, TIME_DRAWS))

    def timed(seed: int) -> list[dict]:
        asked = {"target": target, "rows": rows, "size": shown(run.setting.sizes)}
        return run_times(predictor(seed), encoded(), setting, seed, **asked)

    times = []
    for seed in range(run.time_seeds if rows else 0):
        found = pieces.get(f"time {seed} {rows}", partial(timed, seed))
        times += [{**row, "seed": seed} for row in found]
        say(f"{label}: time, seed {seed} done")
    where = {"encoder": run.name, "encoding": encoding}
    made = result_tables(results, run.setting.sizes, where)
    spent = sum(result["total_seconds"] for result in results)
    spent += sum(row["seconds"] for row in times)
    made["times"] = pd.DataFrame(times).assign(target=target, **where)
    return Done(spent, results, made)
