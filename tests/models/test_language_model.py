"""Log-odds by a language model's head: against Hugging Face by hand, and where there is no head."""

import numpy as np
import pytest
import torch
from hf_directories import write_esm, write_protbert
from safetensors.torch import load_file, save_file

from mutmeta_lib.data.variants import AMINO_ACIDS
from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoders import load_encoder
from mutmeta_lib.models.language_model import load_language_model, log_odds

WRITERS = {"esm": write_esm, "protbert": write_protbert}
WILD = "MKTAYIAKQRQISFVKSHFS"


@pytest.fixture(scope="module", params=list(WRITERS))
def directory(request, tmp_path_factory):
    return WRITERS[request.param](tmp_path_factory.mktemp("lm") / request.param, head=True)


@pytest.fixture(scope="module")
def model(directory):
    return load_language_model(str(directory))


def by_hand(directory, sequence, place, masked):
    """Log-probabilities of all tokens at a place, and the tokenizer: nothing of ours is used."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    theirs = AutoModelForMaskedLM.from_pretrained(directory).eval()
    spaced = len(tokenizer.tokenize("MK")) != 2
    read = tokenizer(" ".join(sequence) if spaced else sequence, return_tensors="pt")
    column = place + 1  # after the start token
    if masked:
        read["input_ids"][0, column] = tokenizer.mask_token_id
    with torch.no_grad():
        logits = theirs(**read).logits[0, column]
    return logits.log_softmax(dim=-1), tokenizer


@pytest.mark.parametrize("masked", [True, False])
def test_log_odds_are_those_of_hugging_face_by_hand(directory, model, masked):
    positions = [1, 4, 5, 20]
    found = log_odds(model, WILD, positions, masked=masked)
    assert found.shape == (4, 20)
    assert found.dtype == np.float32
    assert np.abs(found).max() > 1
    for row, position in zip(found, positions, strict=True):
        expected, tokenizer = by_hand(directory, WILD, position - 1, masked)
        ids = tokenizer.convert_tokens_to_ids(list(AMINO_ACIDS))
        own = tokenizer.convert_tokens_to_ids(WILD[position - 1])
        np.testing.assert_allclose(row, expected[ids] - expected[own], rtol=1e-4, atol=1e-4)


def test_the_sum_that_normalises_cancels(directory):
    """Over all tokens or over the 20 letters alone: the odds are the same."""
    everything, tokenizer = by_hand(directory, WILD, 4, True)
    ids = tokenizer.convert_tokens_to_ids(list(AMINO_ACIDS))
    letters = everything[ids].log_softmax(dim=-1)
    assert not torch.allclose(letters, everything[ids], atol=1e-2)
    torch.testing.assert_close(
        letters - letters[0], everything[ids] - everything[ids[0]], rtol=1e-4, atol=1e-4
    )


def test_a_masked_site_does_not_see_its_own_letter(model):
    """Log-odds of two wild types that differ at the site alone differ by a constant."""
    other = WILD[:4] + "W" + WILD[5:]
    first, second = (log_odds(model, sequence, [5])[0] for sequence in (WILD, other))
    np.testing.assert_allclose(np.ptp(first - second), 0, atol=1e-4)
    first, second = (log_odds(model, w, [5], masked=False)[0] for w in (WILD, other))
    assert np.ptp(first - second) > 1e-2


def test_the_other_sites_are_seen(model):
    other = WILD[:5] + "W" + WILD[6:]
    first, second = (log_odds(model, sequence, [5])[0] for sequence in (WILD, other))
    assert np.ptp(first - second) > 1e-2


@pytest.mark.parametrize("masked", [True, False])
def test_the_wild_type_has_odds_of_nought(model, masked):
    positions = range(1, len(WILD) + 1)
    found = log_odds(model, WILD, positions, masked=masked)
    own = [AMINO_ACIDS.index(letter) for letter in WILD]
    assert (found[np.arange(len(WILD)), own] == 0).all()


@pytest.mark.parametrize("masked", [True, False])
def test_neither_batches_nor_order_matter(model, masked):
    whole = log_odds(model, WILD, range(1, 21), masked=masked)
    order = [7, 2, 20, 2]
    one_by_one = log_odds(model, WILD, order, masked=masked, batch_size=1)
    np.testing.assert_allclose(one_by_one, whole[np.array(order) - 1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("masked", [True, False])
def test_a_long_protein_is_read_through_a_window(directory, masked):
    short = load_language_model(str(directory), max_tokens=11)  # 9 residues and a frame
    found = log_odds(short, WILD, [1, 10, 20], masked=masked)
    windows = [(WILD[:9], 1), (WILD[5:14], 5), (WILD[-9:], 9)]
    for row, (window, place) in zip(found, windows, strict=True):
        (expected,) = log_odds(short, window, [place], masked=masked)
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-4)


def test_wild_type_marginals_take_one_pass_and_masked_marginals_one_per_site(model, monkeypatch):
    import mutmeta_lib.models.language_model as language_model

    texts = []
    real = language_model.functional_call

    def counting(module, weights, reads):
        texts.append(len(reads[0]))
        return real(module, weights, reads)

    monkeypatch.setattr(language_model, "functional_call", counting)
    log_odds(model, WILD, [1, 2, 3], masked=False)
    assert sum(texts) == 1
    log_odds(model, WILD, [1, 2, 3], masked=True)
    assert sum(texts) == 1 + 3


def test_no_site_no_pass(model):
    assert log_odds(model, WILD, []).shape == (0, 20)


@pytest.mark.parametrize(
    ("wild_type", "position", "says"),
    [
        ("MKXA", 3, "has X at position 3"),
        ("MKTA", 5, "position 5 lies outside the wild type"),
        ("MKTA", 0, "position"),
    ],
)
def test_sites_without_odds_are_refused(model, wild_type, position, says):
    with pytest.raises(DataError, match=says):
        log_odds(model, wild_type, [position])


def test_an_unresolved_residue_elsewhere_is_read(model):
    assert np.isfinite(log_odds(model, "MKXA", [1, 4])).all()


@pytest.mark.parametrize("kind", list(WRITERS))
def test_a_checkpoint_without_a_head_is_refused(tmp_path, kind):
    """Hugging Face would draw the head at random and say nothing that stops a run."""
    from transformers import AutoModelForMaskedLM

    directory = WRITERS[kind](tmp_path / "headless")
    load_encoder(str(directory))  # as an encoder it is complete
    AutoModelForMaskedLM.from_pretrained(directory)  # no error: this is the trap
    with pytest.raises(
        DataError, match=r"'headless' comes without a language-model head"
    ) as caught:
        load_language_model(str(directory))
    assert "facebook/esm2_t6_8M_UR50D" in str(caught.value)
    assert "\n" not in str(caught.value)


def lose(directory, name):
    file = directory / "model.safetensors"
    weights = load_file(file)
    lost = [key for key in weights if name in key]
    assert lost
    for key in lost:
        del weights[key]
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("esm", "lm_head.bias", r"head \(1 weights are missing, first lm_head.bias\)"),
        ("protbert", "cls.predictions.transform.dense.bias", "without a language-model head"),
        ("esm", "encoder.layer.1.output.dense.weight", "lacks 1 weights"),
    ],
)
def test_an_incomplete_checkpoint_is_refused(tmp_path, kind, name, says):
    directory = WRITERS[kind](tmp_path / "lossy", head=True)
    lose(directory, name)
    with pytest.raises(DataError, match=says):
        load_language_model(str(directory))


def test_a_tokenizer_without_a_mask_is_refused(directory, monkeypatch):
    import mutmeta_lib.models.language_model as language_model
    from mutmeta_lib.models.hugging_face import Checkpoint

    real = language_model.read_checkpoint

    def maskless(name, **options):
        return Checkpoint(**{**vars(real(name, **options)), "mask": ""})

    monkeypatch.setattr(language_model, "read_checkpoint", maskless)
    with pytest.raises(DataError, match="has no mask token"):
        load_language_model(str(directory))


def test_the_hash_is_of_what_the_logits_depend_on(tmp_path, directory, model):
    assert load_language_model(str(directory)).sha256 == model.sha256
    other = write_esm(tmp_path / "esm", head=True)
    first = load_language_model(str(other)).sha256
    file = other / "model.safetensors"
    weights = load_file(file)
    weights["lm_head.bias"] += 1
    save_file(weights, file, metadata={"format": "pt"})
    assert load_language_model(str(other)).sha256 != first
    assert load_language_model(str(other)).sha256 != load_encoder(str(other)).sha256
