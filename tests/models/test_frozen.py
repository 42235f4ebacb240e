"""A frozen trunk gives the numbers of the whole, from memory and from disk."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_assay, toy_encoded

from mutmeta_lib.data.variants import parse_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop, meta_gradient
from mutmeta_lib.models.encoders import tiny_encoder
from mutmeta_lib.models.frozen import freeze
from mutmeta_lib.models.predictor import Predictor, predict
from mutmeta_lib.tasks.tasks import encode_assay, sample_tasks

PREDICTOR = Predictor(tiny_encoder(width=16, layers=3, heads=2), hidden=(8,))
START = PREDICTOR.init(torch.Generator().manual_seed(0))


def ragged_assay():
    """Variants of no, one and two mutations: their tokens differ in length."""
    assay = toy_assay(3, n=20)
    letters = assay.wild_type
    double = parse_variant(f"{letters[0]}1{'A' if letters[0] != 'A' else 'C'}:{letters[4]}5W")
    variants = ((), *assay.variants, double if letters[4] != "W" else assay.variants[0])
    scores = np.concatenate([[0.0], assay.scores, [1.0]])
    return replace(assay, variants=variants, scores=scores)


def encoded():
    encoder = PREDICTOR.encoder
    return [
        *toy_encoded(2),
        encode_assay(ragged_assay(), "separator", encoder.vocabulary, encoder.max_tokens),
    ]


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("pooling", ["sites", "mean", "cls"])
@pytest.mark.parametrize("start", [1, 2, 3, None])
def test_predictions_are_those_of_the_whole(tmp_path, start, pooling, cached):
    whole = replace(PREDICTOR, pooling=pooling)
    assays = encoded()
    top, frozen = freeze(whole, assays, start, cache_dir=tmp_path if cached else None)
    params = top.learning(START)
    assert set(params) < set(START)
    assert set(params) == set(top.init(torch.Generator()))
    for before, after in zip(assays, frozen, strict=True):
        rows = np.random.default_rng(0).permutation(len(before))[:15]
        expected = predict(whole, START, before.tokens.rows(rows))
        found = predict(top, params, after.tokens.rows(rows))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("start", "scope"), [(1, "last-2"), (2, "last-1"), (None, "head")])
def test_meta_gradients_are_those_of_the_whole(start, scope):
    top, frozen = freeze(PREDICTOR, encoded(), start)
    loop = InnerLoop(0.1, 3, scope=scope)
    found, expected = (
        meta_gradient(
            model.loss,
            model.learning(START),
            [
                (task.support, task.query)
                for task in sample_tasks(
                    assays, 3, support=5, query=5, rng=np.random.default_rng(1)
                )
            ],
            loop,
        )
        for model, assays in [(top, frozen), (PREDICTOR, encoded())]
    )
    torch.testing.assert_close(found[2], expected[2], rtol=1e-4, atol=1e-6)
    for name, value in found[1].items():
        assert (value - expected[1][name]).norm() <= 1e-3 * value.norm() + 1e-6, name


def test_a_cache_is_read_not_computed(tmp_path, monkeypatch):
    assays = encoded()
    freeze(PREDICTOR, assays, 2, cache_dir=tmp_path)
    monkeypatch.setattr(
        "mutmeta_lib.models.frozen._run", lambda *given: pytest.fail("computed again")
    )
    _, frozen = freeze(PREDICTOR, assays, 2, cache_dir=tmp_path)
    assert frozen[0].tokens.rows([0]).hidden.shape[2] == 16
    with pytest.raises(pytest.fail.Exception):
        freeze(PREDICTOR, assays, 1, cache_dir=tmp_path)


def test_a_damaged_cache_is_computed_anew(tmp_path):
    assays = toy_encoded(1, predictor=PREDICTOR)
    _, (sound,) = freeze(PREDICTOR, assays, 2, cache_dir=tmp_path)
    expected = sound.tokens.states.clone()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.warns(UserWarning, match="wrong checksum.*computed anew"):
        _, (found,) = freeze(PREDICTOR, assays, 2, cache_dir=tmp_path)
    assert torch.equal(found.tokens.states, expected)


def test_a_mapped_file_cannot_be_changed_through_its_tensor(tmp_path):
    _, (frozen,) = freeze(PREDICTOR, toy_encoded(1), 2, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()
    frozen.tokens.states.zero_()
    assert file.read_bytes() == before


def test_an_unusable_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="the file cannot be written"):
        freeze(PREDICTOR, toy_encoded(1), 2, cache_dir=tmp_path / "file")


@pytest.mark.parametrize("start", [0, 4, -1])
def test_a_layer_that_is_not_there_is_refused(start):
    with pytest.raises(DataError, match="is not one that a trunk can end at"):
        freeze(PREDICTOR, encoded(), start)
