"""A meta-trained start as a file: `mutmeta train` writes it, `load_start` makes it of use."""

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mutmeta_lib import __version__
from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import Variant, parse_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.inner import InnerLoop, Params
from mutmeta_lib.learn.train import Trained, pick_device
from mutmeta_lib.models.encoder import Encoder, load_encoder
from mutmeta_lib.models.predictor import Predictor, predict
from mutmeta_lib.records import store
from mutmeta_lib.tasks.encodings import ENCODINGS, encode_variants
from mutmeta_lib.tasks.tasks import EncodedAssay, Examples, LabelScale, encode_assay

NEEDED = {"algorithm", "inner", "encoding", "encoder", "predictor"}
"""What a file must tell; the rest is `Start.origin`."""
CHOICES = ("pooling", "hidden", "dropout", "objective")


@dataclass(frozen=True, eq=False)
class Start:
    """A meta-trained start, ready to adapt by ``inner`` to a few labels of a new assay."""

    predictor: Predictor
    params: Params
    algorithm: str
    inner: InnerLoop
    encoding: str
    origin: Mapping[str, Any] = field(default_factory=dict)

    def encode(self, assay: Assay) -> EncodedAssay:
        """Write an assay's variants as the start was trained to read them."""
        encoder = self.predictor.encoder
        return encode_assay(assay, self.encoding, encoder.vocabulary, encoder.max_tokens)

    def adapt(self, support: Examples | EncodedAssay) -> "Adapted":
        """Adapt to labelled variants of one assay, or all of it, scaled by these labels alone."""
        if isinstance(support, EncodedAssay):
            support = Examples(support, np.arange(len(support)), torch.empty(0))
        written, assay = support.assay.encoding, support.assay.assay
        if written != self.encoding:
            told = f"the support is written as '{written}', the start learned '{self.encoding}'"
            raise DataError(told, "encode the assay with start.encode")
        algorithm, params = ALGORITHMS[self.algorithm](self.predictor), self.params
        loop = algorithm.loop(replace(self.inner, first_order=True))
        scale = LabelScale.fit(support.scores)
        known = Examples(support.assay, support.rows, scale.to_labels(support.scores))
        if len(known):
            with torch.no_grad():
                params = algorithm.update(algorithm.model.loss, params, known, loop)
        if not all(value.isfinite().all() for value in params.values()):
            told = f"adaptation to {len(known)} labels of assay {assay.id} did not stay finite"
            raise DataError(told, "lower the start's inner.lr")
        return Adapted(self.encoding, algorithm.model, params, scale, assay.wild_type)


@dataclass(frozen=True, eq=False)
class Adapted:
    """A start after a few labels of one protein, and the scale of these labels."""

    encoding: str
    predictor: Predictor
    params: Params
    label_scale: LabelScale
    wild_type: str

    def predict(self, query: Examples | EncodedAssay | Sequence[Variant | str]) -> np.ndarray:
        """Scores ``(n,)`` of examples, an encoded assay, or any variants of the protein.

        In the assay's units if ``label_scale.identified`` and the start learned values, else ranks.
        """
        if isinstance(query, Examples | EncodedAssay):
            tokens = query.tokens
        else:
            variants = [parse_variant(one) if isinstance(one, str) else one for one in query]
            written, encoder = (self.encoding, self.wild_type, variants), self.predictor.encoder
            tokens = encode_variants(*written, encoder.vocabulary, encoder.max_tokens)
        return self.label_scale.to_scores(predict(self.predictor, self.params, tokens).numpy())


def save_start(
    path: str | Path, trained: Trained, predictor: Predictor, encoding: str, data: dict[str, str]
) -> None:
    """Write a start with all that `load_start` needs; ``data`` are hashes of the assays by id.

    The file names no path of this machine: an encoder of a local directory is known by its hash.
    """
    if predictor.start != 0:
        mend = "train the whole predictor, with the scope 'head' if only that is to adapt"
        raise DataError("a start over a frozen encoder cannot stand alone", mend)
    encoder, settings = predictor.encoder, asdict(trained.settings)
    source = "tiny" if encoder.name == "tiny" else encoder.source
    told = {
        "algorithm": settings["algorithm"],
        "inner": settings["inner"],
        "encoding": encoding,
        "predictor": {name: getattr(predictor, name) for name in CHOICES},
        "encoder": {
            **_identity(encoder),
            "name": encoder.name,
            "seed": encoder.provenance.get("seed", 0),
            "source": "" if os.path.exists(source) else source,
        },
    }
    origin = {"settings": settings, "seed": trained.seed, "best_step": trained.best_step}
    store.save(path, trained.params, told | origin | {"data": data, "version": __version__})


def _identity(encoder: Encoder) -> dict:
    about = {"sha256": encoder.sha256, "max_tokens": encoder.max_tokens}
    return about | {"separator": encoder.vocabulary.separator}


def load_start(
    path: str | Path, *, encoder: Encoder | str | None = None, device: str = "auto"
) -> Start:
    """Read a start that `mutmeta train` wrote; a damaged file or another encoder is a DataError.

    ``encoder`` is the one that it was trained on, loaded or as `load_encoder` takes it. It may be
    left out for ``tiny`` and for one that was loaded by a Hugging Face name.
    """
    tensors, meta = store.load(path)
    refused = partial(DataError, file=path)
    if missing := sorted(NEEDED - meta.keys()):
        told = f"this is no meta-trained start (it does not tell {missing[0]})"
        raise refused(told, "give a file that mutmeta train wrote")
    if meta["algorithm"] not in ALGORITHMS or meta["encoding"] not in ENCODINGS:
        told = f"{meta['algorithm']} or {meta['encoding']}"
        raise refused(f"this version of mutmeta does not know {told}", "use the one that wrote it")
    wanted, where = meta["encoder"], pick_device(device)
    source = encoder or wanted["source"]
    if not source:
        told = f"the start was trained on the encoder {wanted['name']}, from files of its own"
        raise refused(told, "give their directory as encoder")
    if not isinstance(source, Encoder):
        source = load_encoder(source, seed=wanted["seed"], max_tokens=wanted["max_tokens"])
    for name, value in _identity(source).items():
        if value != wanted[name]:
            told = f"{wanted['name']} with {name} {wanted[name]}, not {source.name} with {value}"
            raise refused(f"the start was trained on {told}", "give that one as encoder")
    if where.type != "cpu":
        source = replace(source, module=deepcopy(source.module).to(where))
    choices, inner = dict(meta["predictor"]), InnerLoop(**meta["inner"])
    predictor = Predictor(source, **choices | {"hidden": tuple(choices["hidden"])})
    algorithm = ALGORITHMS[meta["algorithm"]](predictor)
    expected = algorithm.prepare(predictor.init(torch.Generator()), algorithm.loop(inner))
    for name in expected.keys() | tensors.keys():
        if getattr(expected.get(name), "shape", 0) != getattr(tensors.get(name), "shape", 0):
            told = f"the parameter {name} is not that of {meta['algorithm']} on {wanted['name']}"
            raise refused(told, "train the start anew with this version")
    params = {name: tensors[name].to(where) for name in expected}
    origin = {name: value for name, value in meta.items() if name not in NEEDED}
    return Start(predictor, params, meta["algorithm"], inner, meta["encoding"], origin)
