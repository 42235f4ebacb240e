"""Encoders by name: what is read, what identifies it, and what is refused."""

import json
import shutil

import pytest
import torch
from cases import ESM_TOKENS
from hf_directories import PROTBERT_TOKENS, write_protbert
from safetensors.torch import load_file, save_file

from mutmeta_lib.data.variants import parse_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoder import SMALL, load_encoder, on_device, tiny_encoder
from mutmeta_lib.records import store
from mutmeta_lib.tasks.encodings import encode_variants

# The weights of tiny_encoder(seed=0). A change of this hash changes every result of the book.
TINY_SHA256 = "c8faff2842e20b37ee245e0bc33e9bb3683b7c091d29d2eb8e7e8595c75ea9d2"
MADE = '{"source": "made for this test"}'
LOST = "encoder.layer.1.output.dense.weight"


def load(directory, **options):
    return load_encoder(str(directory), **options)


@pytest.fixture
def esm(directories, tmp_path):
    """A directory that a test may damage."""
    return shutil.copytree(directories["esm"], tmp_path / "my_esm")


def rewrite(directory, change):
    """Change the weights of a checkpoint in place."""
    file = directory / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def first_ids(encoder, encoding="mutant"):
    variants = [parse_variant("K2R")]
    return encode_variants(encoding, "MKTA", variants, encoder.vocabulary, 40).token_ids


def test_tiny_is_decided_by_its_seed_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    encoder = tiny_encoder(seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert encoder.sha256 == load_encoder("tiny").sha256 == TINY_SHA256
    assert tiny_encoder(seed=1).sha256 == load_encoder("tiny", seed=1).sha256 != TINY_SHA256
    assert encoder.provenance["seed"] == 0
    other = tiny_encoder(width=32, layers=3, heads=2, max_tokens=40)
    assert (other.width, other.max_tokens, other.layers) == (32, 40, 3)
    assert tiny_encoder(heads=2).sha256 != TINY_SHA256
    assert load_encoder("tiny", max_tokens=99).max_tokens == 99


def test_small_is_its_file_and_no_seed_changes_it(tmp_path):
    encoder, tiny = load_encoder("small", seed=1), tiny_encoder()
    assert (encoder.name, encoder.source, encoder.vocabulary) == ("small", "", tiny.vocabulary)
    tensors, about = store.load(SMALL)
    assert tensors.keys() == dict(encoder.module.state_dict()).keys()
    assert all(torch.equal(tensors[name], one) for name, one in encoder.module.named_parameters())
    assert encoder.sha256 == load_encoder("small", max_tokens=9).sha256 != tiny.sha256
    store.save(tmp_path / "own.safetensors", tensors | {"norm.bias": torch.ones(64)}, about)
    other = load(tmp_path / "own.safetensors", max_tokens=40)
    assert (other.name, other.max_tokens) == ("own", 40)
    assert other.sha256 != encoder.sha256
    store.save(tmp_path / "start.safetensors", tensors, {})
    with pytest.raises(DataError, match=r"no weights of the small .*train_small.py wrote"):
        load(tmp_path / "start.safetensors")
    with pytest.raises(DataError, match="'small' reads at most 64 tokens, not 65; ask for 1 to 64"):
        load_encoder("small", max_tokens=65)


@pytest.mark.parametrize(
    ("name", "context", "tokens", "separator"),
    [
        ("esm", 50 - 2, ESM_TOKENS, "<eos>"),  # ESM counts positions from 2
        ("protbert", 48, PROTBERT_TOKENS, "[SEP]"),
        ("distilbert", 48, PROTBERT_TOKENS, "[SEP]"),
    ],
)
def test_a_directory_is_read(directories, name, context, tokens, separator):
    (directories[name] / "PROVENANCE.json").write_text(MADE)
    encoder = load(directories[name])
    assert (encoder.name, encoder.width, encoder.max_tokens) == (name, 16, context)
    assert encoder.vocabulary.tokens == tuple(tokens)
    assert encoder.vocabulary.separator == separator
    assert (encoder.provenance, encoder.source) == (json.loads(MADE), str(directories[name]))
    assert load(directories[name], max_tokens=40).max_tokens == 40


def test_the_hash_is_of_what_is_used_and_nothing_else_is_missed(encoders, esm):
    def drop(weights):
        for name in [n for n in weights if n.startswith(("contact_head", "pooler"))]:
            del weights[name]

    sha256 = encoders["esm"].sha256
    rewrite(esm, lambda weights: weights["contact_head.regression.weight"].add_(1))
    assert load(esm).sha256 == sha256
    rewrite(esm, drop)
    assert load(esm).sha256 == sha256
    rewrite(esm, lambda weights: weights[LOST].mul_(2))
    assert load(esm).sha256 != sha256


@pytest.mark.parametrize(
    "settings", [{"num_attention_heads": 2}, {"layer_norm_eps": 1e-3}, {"token_dropout": False}]
)
def test_settings_that_change_the_function_change_the_hash(encoders, esm, settings):
    ids = first_ids(encoders["esm"])
    file = esm / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    changed = load(esm)
    assert changed.sha256 != encoders["esm"].sha256
    assert not torch.equal(changed.module(ids, None), encoders["esm"].module(ids, None))


def test_weights_move_and_the_encoder_stays(layered):
    moved = on_device(layered.module, "meta")
    assert {value.device.type for value in layered.module.state_dict().values()} == {"cpu"}
    ids = first_ids(layered).to("meta")
    mask = torch.ones_like(ids, dtype=torch.bool)
    assert torch.func.functional_call(layered.module, moved, (ids, mask)).device.type == "meta"


def test_loading_is_silent_and_leaves_the_random_state_alone(directories, capfd, caplog, recwarn):
    from transformers.utils import logging

    logging.enable_progress_bar()
    state = torch.get_rng_state()
    load(directories["esm"])
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    logging.get_logger("transformers").warning("is heard again")
    assert "is heard again" in caplog.text
    assert logging.is_progress_bar_enabled()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_loading_does_not_mind_gradients_switched_off(directories, encoders, mode):
    for name in ("esm", "protbert"):
        with mode():
            encoder = load(directories[name])
        assert encoder.sha256 == encoders[name].sha256
        hidden = encoder.module(first_ids(encoder), None)
        assert len(torch.autograd.grad(hidden.pow(2).sum(), list(encoder.module.parameters()))) > 20


def test_no_network_is_asked_where_there_is_a_directory(directories, monkeypatch):
    import socket

    def refuse(*address):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    load(directories["esm"])


def pickled_only(directory):
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()


def written(name, text, mode="w"):
    def write(directory):
        with open(directory / name, mode) as file:
            file.write(text)

    return write


def without(name, kept=0):
    """Only the first bytes of a file, or no file."""
    return lambda d: (
        (d / name).write_bytes((d / name).read_bytes()[:kept]) if kept else (d / name).unlink()
    )


NUCLEOTIDES = "\n".join(["<cls>", "<pad>", "<eos>", "<unk>", *"ACGTN", "<mask>"]) + "\n"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda d: rewrite(d, lambda w: w.pop(LOST)), f"lacks 1 weights .* first {LOST}"),
        (lambda d: rewrite(d, lambda w: w.update({LOST: torch.ones(3, 3)})), "lacks 1 weights"),
        (without("model.safetensors", kept=9_000), "cannot be loaded"),
        (pickled_only, "cannot be loaded.*model.safetensors"),
        (written("vocab.txt", "<extra>\n", "a"), "has 34 tokens, its model has vectors for 33"),
        (written("vocab.txt", NUCLEOTIDES), "one token per residue"),
        (without("config.json"), "cannot be loaded"),
        (written("config.json", "{"), "cannot be loaded"),
        (without("vocab.txt"), "without the files of its tokenizer"),
        (written("PROVENANCE.json", "{"), "not a JSON object"),
        (written("PROVENANCE.json", "[1]"), "not a JSON object"),
    ],
)
def test_a_damaged_directory_is_one_clear_error(esm, damage, says):
    damage(esm)
    with pytest.raises(DataError, match=says) as caught:
        load(esm)
    assert "\n" not in str(caught.value)


def test_a_lost_bias_is_noticed_under_any_of_its_names(tmp_path):
    """BERT's decoder has its bias under two names; Hugging Face reports one."""
    from mutmeta_lib.models.encoder import read_checkpoint

    directory = write_protbert(tmp_path / "bert", head=True)
    names = {"cls.predictions.bias", "cls.predictions.decoder.bias"}
    rewrite(directory, lambda weights: [weights.pop(n) for n in names & weights.keys()])
    assert names <= read_checkpoint(str(directory), head=True).absent


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("./no/such/directory", {}, "cannot be loaded: Repo id must be"),
        ("two words", {}, "cannot be loaded"),
        ("nobody/no-such-encoder", {}, "cannot be loaded: .*cached"),
        ("esm", {"max_tokens": 49}, "reads at most 48 tokens, not 49"),
        ("esm", {"max_tokens": 0}, "reads at most 48 tokens, not 0"),
    ],
)
def test_what_cannot_be_had_is_refused(directories, name, options, says, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=says) as caught:
        load(directories.get(name, name), **options)
    assert "\n" not in str(caught.value)
