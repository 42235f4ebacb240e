"""The record of the public code's comparison, as released and as described.

One draw of the test is what the code reports; here the same test is repeated over many draws and
seeds, scored as there and scored fairly.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path

import pandas as pd

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoders import Encoder, load_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.records.record import Record, recorded_parameters
from mutmeta_lib.reproduction.audit import rounded
from mutmeta_lib.reproduction.protocol_data import (
    POOLING,
    ProtocolData,
    Rows,
    cap_rows,
    encode_protocol,
    encode_rows,
    read_protocol,
)
from mutmeta_lib.reproduction.protocol_estimates import (
    contrast_tables,
    gain_tables,
    mean_tables,
    protocol_numbers,
    shown,
)
from mutmeta_lib.reproduction.protocol_run import Protocol, Trial, run_seed, run_times
from mutmeta_lib.study.setting import describe_encoder, finished_parts, make_record
from mutmeta_lib.tasks.batches import distinct_rows


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
    There are two encoders: ``tiny``, trained in every phase as the public code trains its encoder,
    on shorter texts and at most ``tiny_rows`` rows (0: all) per file that is trained on; and a
    pretrained one, frozen, of which the head alone is trained. Texts longer than ``max_tokens``
    keep the residues around the mutated sites. ``time_rows`` are numbers of rows of every data set
    whose cost is measured, on the first target. All other numbers are said in `Protocol`. Parts
    of a run are kept in ``checkpoint_dir`` as they end, vectors of the frozen encoder in
    ``cache_dir``.

    The record has the tables ``rows``, ``times``, ``texts``, those of `gain_tables`, `mean_tables`
    and `contrast_tables`, and `protocol_numbers`. Seconds are of the processor, without what other
    programs took; those of a frozen encoder do not contain running it.
    """
    parameters = recorded_parameters(locals())
    say = progress or (lambda line: None)
    data = read_protocol(release_dir)
    protocol = Protocol(
        initial_epochs=initial_epochs,
        finetune_epochs=finetune_epochs,
        maml_epochs=maml_epochs,
        inner_steps=inner_steps,
        sizes=tuple(sizes),
        draws=draws,
    )
    shared = {
        "seeds": seeds,
        "time_rows": time_rows,
        "time_seeds": time_seeds,
        "checkpoint_dir": checkpoint_dir,
        "cache_dir": cache_dir,
    }
    runs = []
    if encoder:
        name = _short(load_encoder(encoder).name)
        name = "frozen_tiny" if name == "tiny" else name
        runs.append(Run(name, encoder, True, max_tokens, encodings, data, protocol, **shared))
    if tiny_encodings:
        small = replace(
            protocol, initial_epochs=tiny_initial_epochs, sizes=tuple(tiny_sizes), draws=tiny_draws
        )
        how = (False, tiny_max_tokens, tiny_encodings, cap_rows(data, tiny_rows), small)
        runs.append(Run("tiny", "tiny", *how, **shared))
    if not runs:
        raise DataError("there is no encoder to run", "name one, or encodings for tiny")
    found = {(run.name, e): tidy_rows(run, e, say) for run in runs for e in run.encodings}
    rows = {
        kind: pd.concat(
            [
                pd.DataFrame(tidy[kind]).assign(encoder=name, encoding=encoding)
                for (name, encoding), tidy in found.items()
            ],
            ignore_index=True,
        )
        for kind in ("scores", "seconds", "times")
    }
    tables = {
        "rows": row_table(data, runs),
        "texts": pd.concat([text_table(run) for run in runs], ignore_index=True),
        "times": rows["times"].assign(target=data.targets[0]),
        **gain_tables(rows["scores"]),
        **mean_tables(rows["scores"], rows["seconds"]),
        **contrast_tables(rows["scores"]),
    }
    described = describe_encoder(Predictor(runs[0].load(), POOLING))
    if len(runs) > 1:
        described["provenance"] |= {"beside it": "tiny, trained"}
    made = make_record(
        "protocol",
        profile,
        parameters,
        assays=[],
        encoder=described,
        device="cpu",
        seconds={", ".join(which): sum(tidy["spent"]) for which, tidy in found.items()},
        numbers=protocol_numbers(tables),
        tables={name: rounded(table) for name, table in tables.items()},
    )
    made.data.update(data.sha256)
    return made


@dataclass(frozen=True, eq=False)
class Run:
    """All that one encoder does: ``data`` is what it reads, ``protocol`` how it is trained."""

    name: str
    encoder: str
    frozen: bool
    max_tokens: int
    encodings: Sequence[str]
    data: ProtocolData
    protocol: Protocol
    seeds: int
    time_rows: Sequence[int]
    time_seeds: int
    checkpoint_dir: str | None
    cache_dir: str | None

    def load(self, seed: int = 0) -> Encoder:
        """The encoder; the seed decides the weights of ``tiny``."""
        return load_encoder(self.encoder, seed=seed, max_tokens=self.max_tokens)


def tidy_rows(run: Run, encoding: str, say: Callable[[str], None]) -> dict[str, list]:
    """What one encoder and encoding yields: rows ``scores``, ``seconds`` and ``times``.

    ``spent`` are the processor seconds of every part. Parts that were kept are not computed again;
    their seconds are those that they took.
    """
    label = f"{run.name}, {encoding}"
    folder = Path(run.checkpoint_dir) / f"{run.name}-{encoding}" if run.checkpoint_dir else None
    asked = asdict(run.protocol) | {"max_tokens": run.max_tokens, "encoding": encoding}
    kept = finished_parts(
        folder,
        asked,
        run.data.sha256,
        run.load().sha256,
        rows=[len(rows) for rows in run.data.parts.values()],
        times=[list(run.time_rows), run.time_seeds],
    )

    @cache  # takes long, and is not needed if all parts were kept
    def encoded() -> dict[str, Rows]:
        return encode_protocol(
            run.data,
            encoding,
            run.load(),
            frozen=run.frozen,
            cache_dir=run.cache_dir,
            progress=lambda done, total: say(f"{label}: {done} of {total} rows run"),
        )

    target = run.data.targets[0]
    rows = [n for n in run.time_rows if n <= len(run.data.parts[f"{target} train"])]

    def one(seed: int) -> dict:
        predictor = Predictor(run.load(seed), POOLING, start=None if run.frozen else 0)
        trial = Trial(predictor, encoded(), run.protocol, seed)
        began, timed = time.process_time(), rows if seed < run.time_seeds else []
        made = run_seed(trial)
        made["times"] = run_times(trial, target, timed, shown(run.protocol.sizes)) if timed else []
        return made | {"spent": time.process_time() - began}

    found: dict[str, list] = {"scores": [], "seconds": [], "times": [], "spent": []}
    for seed in range(run.seeds):
        made = kept.get(f"seed {seed}", partial(one, seed))
        found["spent"].append(made["spent"])
        for kind in ("scores", "seconds", "times"):
            found[kind] += [{**row, "seed": seed} for row in made[kind]]
        say(f"{label}: seed {seed} done")
    return found


def row_table(data: ProtocolData, runs: Sequence[Run]) -> pd.DataFrame:
    """How many rows each part has, how many each run reads, and which were split anew."""
    read = {"rows": data} | {run.name: run.data for run in runs}
    counted = {who: {part: len(t) for part, t in own.parts.items()} for who, own in read.items()}
    made = pd.DataFrame(counted).rename_axis("part").reset_index()
    return made.assign(resplit=made["part"].str.split().str[0].isin(data.resplit))


def text_table(run: Run) -> pd.DataFrame:
    """How many test rows, stated sequences, and different texts there are, per target.

    Rows that are one text are one to the model, whatever their labels.
    """
    found = []
    for target in run.data.targets:
        part = run.data.parts[f"{target} test"]
        for encoding in run.encodings:
            texts, _ = distinct_rows(encode_rows(part, encoding, run.load()), POOLING)
            row = {"target": target, "encoding": encoding, "rows": len(part)}
            row |= {"sequences": part["wild_type"].nunique(), "texts": len(texts)}
            found.append(row | {"encoder": run.name})
    return pd.DataFrame(found)


def _short(name: str) -> str:
    """An encoder's name in numbers: letters and digits only.

    >>> _short("ESM-2 t6 8M (UR50D), encoder")
    'esm2'
    """
    first = name.split()[0] if name.split() else name
    return "".join(letter for letter in first.lower() if letter.isalnum())
