"""Batches that are run without gradients: every row once, and the same numbers in any batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hf_directories import write_esm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mutmeta_lib.data.variants import AMINO_ACIDS, Substitution
from mutmeta_lib.learn.lora import with_lora
from mutmeta_lib.models.embeddings import embed
from mutmeta_lib.models.encoders import load_encoder, tiny_encoder
from mutmeta_lib.models.pooling import POOLINGS
from mutmeta_lib.models.predictor import Predictor, predict
from mutmeta_lib.models.pretrained import HiddenStates
from mutmeta_lib.tasks import batches
from mutmeta_lib.tasks.batch import concatenate
from mutmeta_lib.tasks.encodings import ENCODINGS, encode_variants
from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY

WILD_TYPE = "MKTAYIAKQR"
VOCABULARY = TINY_VOCABULARY


@st.composite
def variants(draw):
    """Wild type, single and double substitutions, in any order, some sites with many."""
    changes = st.dictionaries(st.integers(1, 5), st.sampled_from(AMINO_ACIDS), max_size=2)
    chosen = draw(st.lists(changes, min_size=1, max_size=25))
    return [
        tuple(
            Substitution(position, WILD_TYPE[position - 1], mutant)
            for position, mutant in sorted(one.items())
            if mutant != WILD_TYPE[position - 1]
        )
        for one in chosen
    ]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    esm = load_encoder(str(write_esm(tmp_path_factory.mktemp("esm") / "esm")))
    tiny = tiny_encoder(width=16, heads=2)
    return {"tiny": tiny, "esm": esm, "lora": with_lora(tiny, rank=2)}


@given(variants(), st.sampled_from(sorted(ENCODINGS)), st.integers(1, 9), st.integers(10, 30))
def test_every_row_is_run_once(chosen, encoding, rows, limit):
    tokens = encode_variants(encoding, WILD_TYPE, chosen, VOCABULARY, 48)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "MAX_TOKENS", limit)
        parts = list(batches.run_batches(tokens, rows))
    assert sorted(np.concatenate([index for index, _ in parts])) == list(range(len(tokens)))
    for index, part in parts:
        assert 1 <= len(index) <= rows
        assert len(index) == 1 or part.mask.numel() <= 2 * limit
        assert part.token_ids.tolist() == tokens.rows(index).token_ids.tolist()
        if part.varying is not None:
            assert part.mask.all()
            differing = (part.token_ids != part.token_ids[0]).any(dim=0)
            differing[part.varying] = False
            assert not differing.any()


@pytest.mark.parametrize("name", ["tiny", "esm", "lora"])
@pytest.mark.parametrize("pooling", POOLINGS)
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(variants(), st.sampled_from(sorted(ENCODINGS)))
def test_siblings_change_no_number(encoders, name, pooling, chosen, encoding):
    encoder = encoders[name]
    tokens = encode_variants(encoding, WILD_TYPE, chosen, encoder.vocabulary, 48)
    predictor = Predictor(encoder, pooling=pooling, hidden=(8,))
    params = predictor.init(torch.Generator().manual_seed(0))
    with torch.no_grad():
        pooled = predictor.pooled(params, tokens)
        expected = predictor(params, tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "LEAST_SIBLINGS", 1)
        found = torch.from_numpy(embed(encoder, tokens, pooling))
        predicted = predict(predictor, params, tokens)
    torch.testing.assert_close(found, pooled, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(predicted, expected, rtol=1e-5, atol=1e-5)


def test_all_substitutions_at_a_site_are_one_batch():
    chosen = [
        (Substitution(place + 1, residue, mutant),)
        for mutant in AMINO_ACIDS
        for place, residue in enumerate(WILD_TYPE)
        if mutant != residue
    ]
    for encoding in ("separator", "mutant", "wt_mutant_pair"):
        tokens = encode_variants(encoding, WILD_TYPE, [*chosen, ()], VOCABULARY, 48)
        parts = [(len(index), part.varying) for index, part in batches.run_batches(tokens)]
        assert sorted(n for n, varying in parts if varying is not None) == [19] * 10
        assert [n for n, varying in parts if varying is None] == [1]
        plain = batches.run_batches(tokens, layered=False)
        assert {part.varying for _, part in plain} == {None}


def test_few_siblings_are_run_among_the_others():
    chosen = [(Substitution(2, "K", mutant),) for mutant in "ACD"]
    tokens = encode_variants("mutant", WILD_TYPE, chosen, VOCABULARY, 48)
    assert [part.varying for _, part in batches.run_batches(tokens)] == [None]


def test_proteins_together_are_not_taken_for_one():
    chosen = [(Substitution(2, "K", mutant),) for mutant in "ACDEF"]
    both = [encode_variants("mutant", w, chosen, VOCABULARY, 48) for w in (WILD_TYPE, "MKTAYI")]
    groups = batches.sibling_rows(concatenate(both))
    assert [rows.tolist() for _, rows in groups] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_an_encoder_without_layers_is_run_as_it_is(encoders):
    esm = encoders["esm"]
    chosen = [(Substitution(2, "K", mutant),) for mutant in "ACDEF"]
    tokens = encode_variants("mutant", WILD_TYPE, chosen, esm.vocabulary, 48)
    whole = HiddenStates(esm.module.model)

    found = embed(replace(esm, module=whole), tokens, "mean")
    np.testing.assert_allclose(found, embed(esm, tokens, "mean"), rtol=1e-4, atol=1e-5)
