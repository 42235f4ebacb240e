"""What all experiments share: the data, the predictor and the protein-disjoint fold."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mutmeta_lib import __version__
from mutmeta_lib.data.assays import Assay, demo_dir, read_data_dir
from mutmeta_lib.data.manifest import read_manifest
from mutmeta_lib.data.splits import Split
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.training import MetaTraining, pick_device
from mutmeta_lib.models.encoders import load_encoder
from mutmeta_lib.models.predictor import Params, Predictor
from mutmeta_lib.records.pieces import Pieces
from mutmeta_lib.records.record import Record, environment, peak_memory_mb
from mutmeta_lib.seeds import stable_seed
from mutmeta_lib.tasks.tasks import EncodedAssay, encode_assay

DEMO = "demo"
"""The ``data_dir`` that means the data bundled with the library."""


def load_assays(
    data_dir: str, *, ids: Sequence[str] | None = None, per_protein: int = 0
) -> list[Assay]:
    """Read assays in order of id; ``per_protein`` > 0 keeps so many per protein and property."""
    folder = demo_dir() if data_dir == DEMO else data_dir
    if data_dir == DEMO and per_protein and ids is None:
        # The bundled files are sound: those that would be left out need not be read.
        listed = read_manifest(folder).sort_values("id")
        ids = list(listed.groupby(["protein", "property"]).head(per_protein)["id"])
    assays = sorted(read_data_dir(folder, ids=ids), key=lambda assay: assay.id)
    if not per_protein:
        return assays
    kept: dict[tuple[str, str], list[Assay]] = {}
    for assay in assays:
        kept.setdefault((assay.protein, assay.property), []).append(assay)
    return [assay for group in kept.values() for assay in group[:per_protein]]


def make_predictor(
    encoder: str, pooling: str, *, seed: int, device: str, local_files_only: bool = False
) -> Predictor:
    """A predictor whose encoder lives on the device."""
    loaded = load_encoder(encoder, seed=seed, local_files_only=local_files_only)
    where = pick_device(device)
    if where.type != "cpu":
        loaded = replace(loaded, module=deepcopy(loaded.module).to(where))
    return Predictor(loaded, pooling)


def initial_params(predictor: Predictor, seed: int, device: str) -> Params:
    """The pretrained encoder with a fresh head, on the device."""
    generator = torch.Generator().manual_seed(stable_seed("head", seed))
    where = pick_device(device)
    return {name: value.to(where) for name, value in predictor.init(generator).items()}


@dataclass(frozen=True, eq=False)
class Fold:
    """Encoded assays of one fold; no protein is in two of them."""

    train: list[EncodedAssay]
    validation: list[EncodedAssay]
    test: list[EncodedAssay]


def encode_fold(split: Split, assays: Sequence[Assay], encoding: str, predictor: Predictor) -> Fold:
    """Encode the assays of a split for the predictor's encoder."""
    by_id = {assay.id: assay for assay in assays}
    encoder = predictor.encoder

    def encode(ids: Sequence[str]) -> list[EncodedAssay]:
        return [
            encode_assay(by_id[name], encoding, encoder.vocabulary, encoder.max_tokens)
            for name in ids
        ]

    return Fold(encode(split.train), encode(split.validation), encode(split.test))


def outer_loop(
    parameters: Mapping[str, Any], *, validate_every: int, validation_tasks: int
) -> MetaTraining:
    """The meta-training that an experiment's parameters ask for; all experiments name them alike.

    Read are ``meta_steps``, ``tasks_per_step``, ``support``, ``query``, ``inner_lr``,
    ``inner_steps``, ``meta_lr``, and where there are such ``first_order`` and ``backend``.
    """
    inner = InnerLoop(
        parameters["inner_lr"], parameters["inner_steps"], parameters.get("first_order", False)
    )
    return MetaTraining(
        steps=parameters["meta_steps"],
        tasks_per_step=parameters["tasks_per_step"],
        support=parameters["support"],
        query=parameters["query"],
        inner=inner,
        meta_lr=parameters["meta_lr"],
        backend=parameters.get("backend", "auto"),
        validate_every=validate_every,
        validation_tasks=validation_tasks,
    )


def finished_parts(
    folder: str | Path | None, parameters: dict, data: Any, encoder_sha256: str, **others: Any
) -> Pieces:
    """Where the finished parts of a run are kept, and everything that they depend on.

    ``data`` holds the hashes of the assays, ``others`` what tells runs of one experiment apart.
    """
    question = {
        "parameters": parameters,
        "data": data,
        "encoder": encoder_sha256,
        "version": __version__,
        **others,
    }
    return Pieces(Path(folder) if folder else None, question)


def describe_encoder(predictor: Predictor) -> dict:
    """What a record says about the encoder."""
    encoder = predictor.encoder
    return {"name": encoder.name, "sha256": encoder.sha256, "provenance": encoder.provenance}


def make_record(
    experiment: str,
    profile: str,
    parameters: dict,
    *,
    assays: Sequence[Assay],
    encoder: dict,
    device: str,
    seconds: dict[str, float],
    numbers: dict[str, dict],
    tables: dict[str, pd.DataFrame],
) -> Record:
    """A record of what was just run, with the hashes of its data and the state of this machine."""
    return Record(
        experiment=experiment,
        profile=profile,
        parameters=parameters,
        data={assay.id: assay.sha256 for assay in assays},
        encoder=encoder,
        environment=environment(device),
        seconds=seconds,
        peak_memory_mb=peak_memory_mb(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        numbers=numbers,
        tables=tables,
    )
