"""Batches of tokens: rows without needless padding, every row run once, equal numbers anywhere."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hf_directories import write_esm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mutmeta_lib.data.variants import AMINO_ACIDS, Substitution, parse_variant
from mutmeta_lib.learn.lora import with_lora
from mutmeta_lib.models.embed import embed
from mutmeta_lib.models.encoder import load_encoder, tiny_encoder
from mutmeta_lib.models.predictor import POOLINGS, Predictor, predict
from mutmeta_lib.tasks import batches
from mutmeta_lib.tasks.batches import concatenate, distinct_rows, run_batches
from mutmeta_lib.tasks.encodings import ENCODINGS, encode_variants
from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY

WILD_TYPE = "MKTSYIAKQR"
BLOCKS = ("token_ids", "mask", "sites")
VARIANTS = [(), parse_variant("K2R"), parse_variant("M1A:T3G")]


def encoded(variants, encoding="separator", wild_type=WILD_TYPE):
    return encode_variants(encoding, wild_type, variants, TINY_VOCABULARY, 48)


@st.composite
def variants(draw):
    """Wild type, single and double substitutions, in any order, some sites with many."""
    changes = st.dictionaries(st.integers(1, 5), st.sampled_from("ACDEFGH"), max_size=2)
    return [
        tuple(Substitution(at, WILD_TYPE[at - 1], mutant) for at, mutant in sorted(one.items()))
        for one in draw(st.lists(changes, min_size=1, max_size=25))
    ]


@pytest.mark.parametrize("made", [list, np.array, torch.tensor, tuple])
def test_rows_are_those_asked_for_without_needless_padding(made):
    batch, fresh = encoded(VARIANTS), encoded([VARIANTS[1], VARIANTS[0]])
    part = batch.rows(made([1, 0]))
    assert all(torch.equal(getattr(part, name), getattr(fresh, name)) for name in BLOCKS)
    assert part.mask.shape[1] < batch.mask.shape[1]
    assert torch.equal(batch.rows(made([True, False, True])).token_ids, batch.token_ids[[0, 2]])
    assert batch.rows(made([])).token_ids.shape == (0, 1)
    assert len(encoded([])) == 0


@pytest.mark.parametrize("pooled", [False, True])
def test_what_has_been_run_goes_with_its_row(pooled):
    batch = encoded(VARIANTS)
    hidden = torch.randn(len(batch), *([] if pooled else [batch.mask.shape[1]]), 3)
    batch = replace(batch, hidden=hidden)
    back, again = concatenate([batch.rows([1]), batch.rows([2])]), batch.rows([1, 2])
    assert all(torch.equal(getattr(back, name), getattr(again, name)) for name in BLOCKS)
    for row, n in enumerate(again.mask.sum(dim=1).tolist()):
        kept = slice(None) if pooled else slice(n)
        assert torch.equal(back.hidden[row, kept], hidden[row + 1, kept])
        assert torch.equal(again.hidden[row, kept], hidden[row + 1, kept])
        assert pooled or not back.hidden[row, n:].any()
    assert {part.device.type for part in batch.to("meta").blocks().values()} == {"meta"}


def test_what_reads_alike_is_run_once():
    tokens = encoded(list(map(parse_variant, ("K2A", "WT", "K2C", "T3A"))), "unknown_text")
    for pooling, rows, places in (
        ("cls", [0, 1], [0, 1, 0, 0]),
        ("sites", [0, 1, 3], [0, 1, 0, 2]),
    ):
        assert [part.tolist() for part in distinct_rows(tokens, pooling)] == [rows, places]
    # What stands where nothing is read makes no difference.
    padded = replace(tokens, token_ids=tokens.token_ids.masked_fill(~tokens.mask, 9))
    assert distinct_rows(concatenate([tokens, padded]), "cls")[1].tolist() == [0, 1, 0, 0] * 2


@given(variants(), st.sampled_from(sorted(ENCODINGS)), st.integers(1, 9), st.integers(10, 30))
def test_every_row_is_run_once(chosen, encoding, rows, limit):
    tokens = encoded(chosen, encoding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "MAX_TOKENS", limit)
        parts = list(run_batches(tokens, rows))
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


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    esm = load_encoder(str(write_esm(tmp_path_factory.mktemp("esm") / "esm")))
    tiny = tiny_encoder(width=16, heads=2)
    return {"tiny": tiny, "esm": esm, "lora": with_lora(tiny, rank=2)}


@pytest.mark.parametrize("name", ["tiny", "esm", "lora"])
@pytest.mark.parametrize("pooling", POOLINGS)
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(variants(), st.sampled_from(sorted(ENCODINGS)))
def test_no_number_depends_on_the_rows_beside_it(encoders, name, pooling, chosen, encoding):
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
    # What an encoding cannot tell apart ties to the last bit.
    _, text = distinct_rows(tokens, pooling)
    assert len({*zip(text, predicted.tolist(), strict=True)}) == text.max() + 1


def test_all_substitutions_at_a_site_are_one_batch_and_few_are_none():
    chosen = [
        (Substitution(place + 1, residue, mutant),)
        for mutant in AMINO_ACIDS
        for place, residue in enumerate(WILD_TYPE)
        if mutant != residue
    ]
    for encoding in ("separator", "mutant", "wt_mutant_pair"):
        tokens = encoded([*chosen, ()], encoding)
        parts = [(len(index), part.varying) for index, part in run_batches(tokens)]
        assert sorted(n for n, varying in parts if varying is not None) == [19] * 10
        assert [n for n, varying in parts if varying is None] == [1]
        assert {part.varying for _, part in run_batches(tokens, siblings=False)} == {None}
    few = encoded([(Substitution(2, "K", mutant),) for mutant in "ACD"])
    assert [part.varying for _, part in run_batches(few)] == [None]


def test_proteins_together_are_not_taken_for_one():
    chosen = [(Substitution(2, "K", mutant),) for mutant in "ACDEF"]
    both = concatenate([encoded(chosen, "mutant", w) for w in (WILD_TYPE, "MKTAYI")])
    groups = batches.sibling_rows(both)
    assert [rows.tolist() for _, rows in groups] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
