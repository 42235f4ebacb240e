"""From ten labels to a score for every single mutant of one protein: how long it takes."""

import tempfile
import time

import numpy as np
import torch

from mutmeta_lib.app.bench.cases import made_up_assay
from mutmeta_lib.app.bench.shapes import EsmShape, random_esm
from mutmeta_lib.learn.methods import GradientMethod
from mutmeta_lib.models.encoders import tiny_encoder
from mutmeta_lib.models.frozen import freeze
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.tasks.tasks import EncodedAssay, encode_assay, make_task

RESIDUES = 250
LABELS = 10


def _adapt_and_score(predictor: Predictor, assay: EncodedAssay) -> None:
    """Five gradient steps on ten labels of whatever learns, then all variants."""
    start = predictor.init(torch.Generator().manual_seed(0))
    order = np.random.default_rng(0).permutation(len(assay))
    task = make_task(assay, order[:LABELS], np.arange(len(assay)))
    method = GradientMethod("maml", predictor, start, "sgd", 0.01, 5)
    state = method.adapt(task.support, torch.Generator())
    method.predict(state, task.query)


def tiny_latency(rounds: int) -> list[float]:
    """Seconds with `tiny`, all of it adapted, tokens included; one per round."""
    assay, encoder = made_up_assay(RESIDUES), tiny_encoder()
    predictor = Predictor(encoder)
    found = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        encoded = encode_assay(assay, "separator", encoder.vocabulary, encoder.max_tokens)
        _adapt_and_score(predictor, encoded)
        found.append(time.perf_counter() - began)
    return found[1:]  # the first one warms up


def esm_latency(rounds: int) -> tuple[float, list[float]]:
    """Seconds with ESM-2 8M's shape and its head adapted: cold, and from the cache."""
    assay, encoder = made_up_assay(RESIDUES), random_esm(EsmShape())
    predictor = Predictor(encoder)

    def run(folder: str) -> float:
        began = time.perf_counter()
        encoded = encode_assay(assay, "separator", encoder.vocabulary, encoder.max_tokens)
        top, (frozen,) = freeze(predictor, [encoded], None, cache_dir=folder)
        _adapt_and_score(top, frozen)
        return time.perf_counter() - began

    with tempfile.TemporaryDirectory() as folder:
        cold = run(folder)
        return cold, [run(folder) for _ in range(rounds)]
