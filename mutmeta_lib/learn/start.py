"""A meta-trained start as a file: `mutmeta train` writes it, `load_start` makes it of use."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mutmeta_lib import __version__
from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import Variant, check_variant, parse_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.inner import InnerLoop, Params
from mutmeta_lib.learn.methods import STARTS, joined, members
from mutmeta_lib.learn.ranker import RankerPredictor, spread
from mutmeta_lib.learn.train import Trained, pick_device
from mutmeta_lib.models.encoder import Encoder, load_encoder, placed
from mutmeta_lib.models.predictor import Predictor, predict
from mutmeta_lib.models.sites import READS, SiteRows, site_numbers, site_rows
from mutmeta_lib.models.trunk import trunk_encoder
from mutmeta_lib.records import store
from mutmeta_lib.tasks.batches import TokenBatch
from mutmeta_lib.tasks.encodings import ENCODINGS, encode_variants
from mutmeta_lib.tasks.tasks import EncodedAssay, Examples, LabelScale

NEEDED = {"algorithm", "inner", "encoding", "encoder", "predictor"}
"""What a file must tell; the rest is `Start.origin`."""
CHOICES = ("pooling", "hidden", "dropout", "objective")
PRETRAINED = {"no-encoder": "", "esm2-8m": "facebook/esm2_t6_8M_UR50D"}
"""Starts in the package, and the public checkpoint that has their encoder's shape."""


@dataclass(frozen=True, eq=False)
class Start:
    """A meta-trained start, ready to adapt by ``inner`` to a few labels of a new assay.

    ``params`` may be those of several networks (`methods.joined`). On sites, ``sites`` gives their
    numbers for a wild type; those of the last few proteins are kept.
    """

    predictor: Predictor
    params: Params
    algorithm: str
    inner: InnerLoop
    encoding: str
    origin: Mapping[str, Any] = field(default_factory=dict)
    sites: Callable[[str], torch.Tensor] | None = None

    @property
    def networks(self) -> list[Params]:
        """The parameters of each network."""
        return members(self.params) if STARTS[self.algorithm].members else [self.params]

    def encode(self, assay: Assay) -> EncodedAssay:
        """Write an assay's variants as the start was trained to read them."""
        return EncodedAssay(assay, self.encoding, self.write(assay, assay.variants))

    def write(self, assay: Assay, variants: Sequence[Variant]) -> TokenBatch | SiteRows:
        """Any variants of an assay's protein; a read of sites is told the assay's property."""
        if self.sites is None:
            encoder = self.predictor.encoder
            how = encoder.vocabulary, encoder.max_tokens
            return encode_variants(self.encoding, assay.wild_type, variants, *how)
        for variant in variants:
            check_variant(variant, assay.wild_type)
        return site_rows(self.sites(assay.wild_type), variants, assay.property)

    def adapt(self, support: Examples | EncodedAssay) -> "Adapted":
        """Adapt to labelled variants of one assay, or all of it, scaled by these labels alone."""
        if isinstance(support, EncodedAssay):
            support = Examples(support, np.arange(len(support)), torch.empty(0))
        written, assay = support.assay.encoding, support.assay.assay
        if written != self.encoding:
            told = f"the support is written as '{written}', the start learned '{self.encoding}'"
            raise DataError(told, "encode the assay with start.encode")
        algorithm, networks = ALGORITHMS[self.algorithm](self.predictor), self.networks
        loop = algorithm.loop(replace(self.inner, first_order=True))
        scale = LabelScale.fit(support.scores)
        known = Examples(support.assay, support.rows, scale.to_labels(support.scores))
        if len(known):
            with torch.no_grad():
                loss = algorithm.model.loss
                networks = [algorithm.update(loss, one, known, loop) for one in networks]
        if not all(value.isfinite().all() for one in networks for value in one.values()):
            told = f"adaptation to {len(known)} labels of assay {assay.id} did not stay finite"
            raise DataError(told, "lower the start's inner.lr")
        return Adapted(self, assay, algorithm.model, networks, scale)


@dataclass(frozen=True, eq=False)
class Adapted:
    """A start after a few labels of one protein, and the scale of these labels."""

    start: Start
    assay: Assay
    predictor: Predictor
    networks: Sequence[Params]
    label_scale: LabelScale

    def predict(self, query: Examples | EncodedAssay | Sequence[Variant | str]) -> np.ndarray:
        """Scores ``(n,)`` of examples, an encoded assay, or any variants of the protein.

        In the assay's units if ``label_scale.identified`` and the start learned values, else ranks.
        """
        return self.label_scale.to_scores(np.mean(self._all(query, self.predictor), axis=0))

    def deviation(self, query: Examples | EncodedAssay | Sequence[Variant | str]) -> np.ndarray:
        """Standard deviations ``(n,)`` of new measurements, in the same units; of rankers alone."""
        model = self.predictor
        if not isinstance(model, RankerPredictor):
            told = f"'{self.start.algorithm}' does not know how sure it is"
            raise DataError(told, "use a start of the ranker")
        both = (self._all(query, what) for what in (model, model.deviation))
        return self.label_scale.scale * spread(*both)

    def _all(self, query: Any, what: Callable[[Params, TokenBatch], torch.Tensor]) -> list:
        """What every network says of a query, ``(n,)`` each."""
        if isinstance(query, Examples | EncodedAssay):
            tokens = query.tokens
        else:
            variants = [parse_variant(one) if isinstance(one, str) else one for one in query]
            tokens = self.start.write(self.assay, variants)
        if isinstance(tokens, SiteRows):
            tokens = tokens.rows(np.arange(len(tokens)))
        asked = partial(predict, self.predictor, tokens=tokens, what=what)
        return [asked(params=one).numpy() for one in self.networks]


def save_start(
    path: str | Path,
    trained: Trained,
    predictor: Predictor,
    encoding: str,
    data: dict[str, str],
    below: Encoder | None = None,
) -> None:
    """Write a start with all that `load_start` needs; ``data`` are hashes of the assays by id.

    ``below`` is the encoder that a read of sites needs. The file names no path of this machine: an
    encoder of a local directory is known by its hash.
    """
    if predictor.start != 0:
        mend = "train the whole predictor, with the scope 'head' if only that is to adapt"
        raise DataError("a start over a frozen encoder cannot stand alone", mend)
    if READS.get(encoding) and below is None:
        told = f"a start on '{encoding}' is of no use without its encoder"
        raise DataError(told, "give it as below")
    settings, tensors = asdict(trained.settings), dict(trained.params)
    encoder = predictor.encoder
    if encoding in READS:
        tensors |= dict(encoder.module.named_buffers(prefix="trunk"))
        encoder = below
    told = {
        "algorithm": settings["algorithm"],
        "inner": settings["inner"],
        "encoding": encoding,
        "predictor": {name: getattr(predictor, name) for name in CHOICES},
        "encoder": encoder and _about(encoder),
    }
    origin = {"settings": settings, "seed": trained.seed, "best_step": trained.best_step}
    origin |= {"data": data, "version": __version__, "torch": torch.__version__}
    store.save(path, tensors, told | origin)


def _about(encoder: Encoder) -> dict:
    source = encoder.name if encoder.name in ("small", "tiny") else encoder.source
    known = {"name": encoder.name, "seed": encoder.provenance.get("seed", 0)}
    return _identity(encoder) | known | {"source": "" if os.path.exists(source) else source}


def _identity(encoder: Encoder) -> dict:
    shape = {name: getattr(encoder, name) for name in ("width", "layers", "max_tokens")}
    return shape | {"separator": encoder.vocabulary.separator, "sha256": encoder.sha256}


def load_pretrained(
    name: str, *, encoder: Encoder | str | None = None, strict: bool = True, device: str = "auto"
) -> Start:
    """A start that comes with the package: a ranker on sites, trained on ProteinGym's assays.

    ``no-encoder`` reads the sequence alone; ``esm2-8m`` one pass of an ESM-2 8M as well, which is
    given as ``encoder``. Its card beside the file says of which copy; with ``strict`` False another
    of this shape, such as the original, will do, with a warning. ``pretrained/<name>.md`` tells
    what they learned from and what they are not for.

    >>> import mutmeta_lib as mm
    >>> model, wild_type = mm.load_pretrained("no-encoder"), "MKTAYIAKQRQISFVKSHFSRQLEERLGLIE"
    >>> variants = mm.single_variants(wild_type)
    >>> unmeasured = mm.Assay("mine", "mine", "stability", wild_type, (), ())
    >>> ranked = model.adapt(model.encode(unmeasured)).predict(variants)  # no label is needed
    >>> some = [mm.parse_variant(one) for one in ("Y5P", "I6V", "V15D", "S17A", "L27K")]
    >>> measured = mm.Assay("mine", "mine", "stability", wild_type, some, [-3, -0.2, -2, 0.1, -1])
    >>> adapted = model.adapt(model.encode(measured))
    >>> scores, sure = adapted.predict(variants), adapted.deviation(variants)  # in your units
    >>> len(ranked), bool(scores[variants.index(some[0])] < scores[variants.index(some[3])])
    (589, True)
    """
    if name not in PRETRAINED:
        told = f"there is no pretrained start '{name}'"
        raise DataError(told, f"use one of {', '.join(PRETRAINED)}")
    if encoder is None and (public := PRETRAINED[name]):
        mend = f"give the directory of the copy its card names, or '{public}' with strict=False"
        raise DataError(f"'{name}' needs an encoder that is not in the package", mend)
    file = Path(__file__).parents[1] / "pretrained" / f"{name}.safetensors"
    return load_start(file, encoder=encoder, strict=strict, device=device)


def load_start(
    path: str | Path,
    *,
    encoder: Encoder | str | None = None,
    strict: bool = True,
    device: str = "auto",
) -> Start:
    """Read a start that `mutmeta train` wrote; a damaged file or another encoder is a DataError.

    ``encoder`` is the one that it was trained on, loaded or as `load_encoder` takes it. It may be
    left out for our own, for one that was loaded by a Hugging Face name, and where there is none.
    With ``strict`` False one of the same shape and other weights is a warning.
    """
    tensors, meta = store.load(path)
    refused = partial(DataError, file=path)
    if missing := sorted(NEEDED - meta.keys()):
        told = f"this is no meta-trained start (it does not tell {missing[0]})"
        raise refused(told, "give a file that mutmeta train wrote")
    if meta["algorithm"] not in ALGORITHMS or meta["encoding"] not in ENCODINGS | READS:
        told = f"{meta['algorithm']} or {meta['encoding']}"
        raise refused(f"this version of mutmeta does not know {told}", "use the one that wrote it")
    wanted, where, sites = meta["encoder"], pick_device(device), None
    if wanted:
        encoder = placed(_checked(encoder, wanted, strict, refused), where)
    elif encoder is not None:
        raise refused("the start was trained without an encoder", "leave encoder out")
    if meta["encoding"] in READS:
        read = partial(site_numbers, meta["encoding"], encoder=encoder, device=where)
        sites, blank = lru_cache(maxsize=8)(read), torch.ones(read("M").shape[1])
        encoder = placed(trunk_encoder(blank, blank.clone(), seed=0), where)
    choices, inner = dict(meta["predictor"]), InnerLoop(**meta["inner"])
    predictor = Predictor(encoder, **choices | {"hidden": tuple(choices["hidden"])})
    algorithm = ALGORITHMS[meta["algorithm"]](predictor)
    expected = algorithm.prepare(predictor.init(torch.Generator()), algorithm.loop(inner))
    if STARTS[meta["algorithm"]].members:
        count = len({name.partition("/")[0] for name in tensors if "/" in name})
        expected = joined([expected] * max(1, count))
    scales = dict(encoder.module.named_buffers(prefix="trunk")) if sites else {}
    expected |= scales
    for name in expected.keys() | tensors.keys():
        if getattr(expected.get(name), "shape", 0) != getattr(tensors.get(name), "shape", 0):
            on = wanted["name"] if wanted else meta["encoding"]
            told = f"the parameter {name} is not that of {meta['algorithm']} on {on}"
            raise refused(told, "train the start anew with this version")
    for name, value in scales.items():
        value.copy_(tensors[name])
    params = {name: tensors[name].to(where) for name in expected if name not in scales}
    origin = {name: value for name, value in meta.items() if name not in NEEDED}
    return Start(predictor, params, meta["algorithm"], inner, meta["encoding"], origin, sites)


def _checked(
    encoder: Encoder | str | None, wanted: dict, strict: bool, refused: Callable[..., DataError]
) -> Encoder:
    """The encoder that was given, or that a start names, if it is the wanted one."""
    source = encoder or wanted["source"]
    if not source:
        told = f"the start was trained on the encoder {wanted['name']}, from files of its own"
        raise refused(told, "give their directory as encoder")
    if not isinstance(source, Encoder):
        source = load_encoder(source, seed=wanted["seed"], max_tokens=wanted["max_tokens"])
    for name, value in _identity(source).items():
        if value != (was := wanted.get(name)):
            told = f"{wanted['name']} with {name} {was}, not {source.name} with {value}"
            told = f"the start was trained on {told}"
            if name != "sha256":
                raise refused(told, "give that one as encoder")
            if strict:
                mend = "give that one as encoder, or say strict=False to read with other weights"
                raise refused(told, mend)
            warnings.warn(f"{told}; what it was tested to do may not hold", stacklevel=3)
    return source
