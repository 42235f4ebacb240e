"""The public code's comparison as a record, over many draws and seeds, as released and described.

One draw of the test is what the code reports. Its data are rows for the initial fit, and target
data sets with a training and a test part, rows of many proteins split at random. Rows are taken at
their word: this is the data as released, faults included.
"""

import functools
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mutmeta_lib import __version__
from mutmeta_lib.data.folders import DEMO
from mutmeta_lib.models.embed import embed
from mutmeta_lib.models.encoder import Encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.records.record import Record, recorded_parameters, shared_parameters
from mutmeta_lib.records.store import Store
from mutmeta_lib.reproduction import protocol_estimates as estimates
from mutmeta_lib.reproduction.protocol_run import (
    Protocol,
    Rows,
    Trial,
    run_seed,
    run_times,
    targets,
)
from mutmeta_lib.reproduction.released import INITIAL, as_stated, find_table, read_release
from mutmeta_lib.reproduction.speed import timed
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.study.run import make_record
from mutmeta_lib.study.study import describe_encoder, load_assays
from mutmeta_lib.tasks.batches import TokenBatch, concatenate, distinct_rows
from mutmeta_lib.tasks.encodings import encode_variants

TARGETS = ("binding_affinity", "fireprot_dTm", "soluprotmut_solubility")
"""The targets that the repository's later README names."""
POOLING = "cls"
"""The head reads the hidden state of the first token, as in the public code."""
CHUNK = 1000
"""Rows whose vectors are kept in one cache file."""

Parts = dict[str, pd.DataFrame]
"""Tables of wild_type, variant and label (as the file scales it) by name: ``initial``, and
``<target> train`` and ``<target> test`` for each target."""


def read_protocol(release_dir: str | os.PathLike[str]) -> tuple[Parts, list[str], dict[str, str]]:
    """Read a copy of the public repository, or ``demo``, a miniature of bundled assays.

    Returns the parts, the targets without a training file, whose test file was split anew, and the
    SHA-256 of each table. A row that cannot be taken at its word is a `DataError`.
    """
    if release_dir == DEMO:
        return _miniature()
    resplit = [name for name in TARGETS if find_table(release_dir, f"{name}_train") is None]
    names = [(name, part) for part in ("train", "test") for name in (INITIAL, *TARGETS)]
    ids = [f"{n}_{part}" for n, part in names if part == "test" or n not in resplit]
    rows, hashes = read_release(release_dir, ids)
    rows = rows.assign(wild_type=rows["sequence"], variant=rows["mutations"].map(as_stated))
    parts = {"initial": rows[rows["name"] == INITIAL]}
    for name in TARGETS:
        own = {f"{name} {p}": rows[rows["table"] == f"{name}_{p}"] for p in ("train", "test")}
        parts |= split_rows(name, own[f"{name} test"]) if name in resplit else own
    parts = {name: part[["wild_type", "variant", "label"]] for name, part in parts.items()}
    return parts, resplit, hashes


def _miniature() -> tuple[Parts, list[str], dict[str, str]]:
    """Stability of GB1 for the initial fit, then two assays of each protein as a data set.

    Labels are standardised over all rows before the split, as in the public code.
    """
    assays = load_assays(DEMO, per_protein=2)
    sets: dict[str, list[pd.DataFrame]] = {}
    for assay in assays:
        label = (assay.scores - assay.scores.mean()) / assay.scores.std()
        rows = {"wild_type": assay.wild_type, "variant": list(assay.variants), "label": label}
        target = assay.protein.replace("-", " ").split()[0]
        name = "initial" if assay.property == "stability" else target
        sets.setdefault(name, []).append(pd.DataFrame(rows))
    parts = {"initial": pd.concat(sets.pop("initial"))}
    for name, rows in sets.items():
        parts |= split_rows(name, pd.concat(rows, ignore_index=True))
    return parts, list(sets), {a.id: a.sha256 for a in assays}


def split_rows(target: str, rows: pd.DataFrame) -> Parts:
    """A random fifth as test part, behind the rest, which is the training part."""
    places = dict(zip(("train", "test"), fifth(len(rows), 42), strict=True))
    return {f"{target} {part}": rows.iloc[index] for part, index in places.items()}


def fifth(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of a training part, and of a random fifth for the test; both ascend."""
    order = np.random.default_rng(seed).permutation(n)
    cut = round(0.2 * n)
    return np.sort(order[cut:]), np.sort(order[:cut])


def cap_rows(parts: Parts, most: int) -> Parts:
    """At most so many rows for the initial fit and per training part (0: all), drawn once."""
    parts = dict(parts)
    for name, rows in parts.items():
        if most and len(rows) > most and not name.endswith(" test"):
            drawn = INITIAL if name == "initial" else name.removesuffix(" train")
            rng = np.random.default_rng(stable_seed("protocol rows", drawn))
            parts[name] = rows.iloc[np.sort(rng.choice(len(rows), most, replace=False))]
    return parts


def encode_rows(rows: pd.DataFrame, encoding: str, encoder: Encoder) -> TokenBatch:
    """Variants of many wild types as one padded batch, in their order; errors as in `encode`."""
    places = rows.groupby("wild_type", sort=False).indices
    variants = rows["variant"].to_numpy()
    how = (encoder.vocabulary, encoder.max_tokens)
    parts = [encode_variants(encoding, w, variants[at], *how) for w, at in places.items()]
    return concatenate(parts).rows(np.argsort(np.concatenate(list(places.values()))))


def encode_protocol(
    parts: Parts, encoding: str, encoder: Encoder, *, frozen: bool, cache_dir: str | None
) -> dict[str, Rows]:
    """The parts as tokens, by name; with ``frozen`` also run the encoder, once per text."""
    everything = pd.concat(parts.values())
    tokens = encode_rows(everything, encoding, encoder)
    if frozen:
        texts, place = distinct_rows(tokens, POOLING)
        chunks = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
        found = [embed(encoder, tokens.rows(c), POOLING, cache_dir=cache_dir) for c in chunks]
        vectors = torch.from_numpy(np.concatenate(found)[place])
        nothing = torch.empty(len(tokens), 0, dtype=torch.bool)  # tokens are not read any more
        tokens = TokenBatch(nothing.long(), nothing, nothing, vectors)
    whole = Rows(tokens, torch.tensor(everything["label"].to_numpy(), dtype=torch.float32))
    ends = np.cumsum([len(rows) for rows in parts.values()])[:-1]
    places = np.split(np.arange(len(whole)), ends)
    return {name: whole.take(place) for name, place in zip(parts, places, strict=True)}


def protocol_experiment(
    release_dir: str,
    first: Protocol,
    *others: Protocol,
    profile: str = "full",
    checkpoint_dir: str | None = None,
    cache_dir: str | None = None,
) -> Record:
    """Run the protocol of the public code with its own files, by one or several encoders.

    ``release_dir`` is a copy of the public repository, or ``demo``: a miniature on bundled data.
    Seeds are kept in ``checkpoint_dir`` as they end, vectors of a frozen encoder in ``cache_dir``;
    its seconds do not contain running it.
    """
    runs = (first, *others)
    parameters = shared_parameters(*(recorded_parameters(vars(run)) for run in runs))
    parameters |= {"release_dir": Path(release_dir).name}
    data, resplit, hashes = read_protocol(release_dir)
    kept_in = (checkpoint_dir, cache_dir)
    found = {
        (run.name, encoding): of_seeds(run, data, hashes, encoding, *kept_in)
        for run in runs
        for encoding in run.encodings
    }
    scores, seconds, times = (
        pd.DataFrame(
            {**row, "encoder": name, "encoding": encoding, "seed": seed}
            for (name, encoding), seeds in found.items()
            for seed, made in enumerate(seeds)
            for row in made[kind]
        )
        for kind in ("scores", "seconds", "times")
    )
    tables = {
        "rows": row_table(data, runs, resplit),
        "texts": text_table(data, runs),
        "times": times.assign(target=targets(data)[0]),
        **estimates.gain_tables(scores),
        **estimates.mean_tables(scores, seconds),
        **estimates.contrast_tables(scores),
    }
    described = describe_encoder(first.load())
    if others:
        beside = ", ".join(run.name + ("" if run.frozen else ", trained") for run in others)
        described["provenance"] = described["provenance"] | {"beside it": beside}
    how = {"data": hashes, "encoder": described, "device": "cpu", "tables": tables}
    how["seconds"] = {", ".join(k): sum(made["spent"] for made in v) for k, v in found.items()}
    how["numbers"] = estimates.protocol_numbers(tables)
    return make_record("protocol", profile, parameters, **how)


def of_seeds(
    run: Protocol, whole: Parts, sha256: dict, encoding: str, kept_in: str | None, cache: str | None
) -> list[dict]:
    """What each seed of an encoder and encoding finds: tidy rows by kind, and seconds ``spent``."""
    data = cap_rows(whole, run.most_rows)
    question = asdict(replace(run, encodings=[encoding], seeds=0))
    question |= {"data": sha256, "encoder": run.load().sha256, "version": __version__}
    kept = Store(kept_in, question)

    @functools.cache  # takes long, and is not needed if all seeds were kept
    def encoded() -> dict[str, Rows]:
        return encode_protocol(data, encoding, run.load(), frozen=run.frozen, cache_dir=cache)

    def one(seed: int) -> dict:
        predictor = Predictor(run.load(seed), POOLING, start=None if run.frozen else 0)
        trial = Trial(predictor, encoded(), run, seed)
        made, spent = timed(run_seed, trial)
        times, more = timed(run_times, trial) if seed < run.time_seeds else ([], 0)
        return made | {"times": times, "spent": spent + more}

    name = f"{run.name}, {encoding}, seed"
    return [kept.get(f"{name} {seed}", partial(one, seed)) for seed in range(run.seeds)]


def row_table(data: Parts, runs: Sequence[Protocol], resplit: Sequence[str]) -> pd.DataFrame:
    """How many rows each part has, how many each run reads, and which were split anew."""
    read = {"rows": data} | {run.name: cap_rows(data, run.most_rows) for run in runs}
    counted = {who: {part: len(t) for part, t in own.items()} for who, own in read.items()}
    made = pd.DataFrame(counted).rename_axis("part").reset_index()
    return made.assign(resplit=made["part"].str.split().str[0].isin(resplit))


def text_table(data: Parts, runs: Sequence[Protocol]) -> pd.DataFrame:
    """How many test rows, stated sequences, and texts that differ to a model, per target."""
    found = []
    for run, target in product(runs, targets(data)):
        part = data[f"{target} test"]
        for encoding in run.encodings:
            texts, _ = distinct_rows(encode_rows(part, encoding, run.load()), POOLING)
            row = {"target": target, "encoding": encoding, "rows": len(part)}
            row |= {"sequences": part["wild_type"].nunique(), "texts": len(texts)}
            found.append(row | {"encoder": run.name})
    return pd.DataFrame(found)
