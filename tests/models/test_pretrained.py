import json
import shutil

import pytest
import torch
from hf_directories import ESM_TOKENS, PROTBERT_TOKENS, write_esm, write_protbert
from safetensors.torch import load_file, save_file

from mutmeta_lib.data.variants import parse_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.models.encoders import load_encoder
from mutmeta_lib.tasks.encodings import encode


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    directory = tmp_path_factory.mktemp("originals")
    return {
        "esm": write_esm(directory / "esm"),
        "protbert": write_protbert(directory / "protbert"),
    }


@pytest.fixture
def esm(originals, tmp_path):
    """A directory that a test may damage."""
    return shutil.copytree(originals["esm"], tmp_path / "my_esm")


def rewrite(directory, change):
    """Change the weights of a checkpoint in place."""
    file = directory / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def test_an_esm_directory(originals):
    encoder = load_encoder(str(originals["esm"]))
    assert (encoder.name, encoder.width) == ("esm", 16)
    assert encoder.max_tokens == 50 - 2  # ESM counts positions from 2
    assert encoder.vocabulary.tokens == tuple(ESM_TOKENS)
    assert encoder.vocabulary.separator == "<eos>"
    assert encoder.provenance == {}


def test_a_protbert_directory(originals):
    encoder = load_encoder(str(originals["protbert"]), max_tokens=40)
    assert encoder.max_tokens == 40
    assert load_encoder(str(originals["protbert"])).max_tokens == 48
    assert encoder.vocabulary.tokens == tuple(PROTBERT_TOKENS)
    assert encoder.vocabulary.separator == "[SEP]"


@pytest.mark.parametrize("name", ["esm", "protbert"])
def test_hidden_states_are_those_of_the_model_loaded_by_hand(originals, name):
    from transformers import AutoModel, AutoTokenizer

    encoder = load_encoder(str(originals[name]))
    variant = parse_variant("K2R")
    ids = torch.tensor([encode("mutant", "MKTA", variant, encoder.vocabulary, 40).token_ids])
    tokenizer = AutoTokenizer.from_pretrained(originals[name])
    read = tokenizer("M R T A", return_tensors="pt")
    assert torch.equal(read["input_ids"], ids)
    expected = AutoModel.from_pretrained(originals[name]).eval()(**read).last_hidden_state
    hidden = encoder.module(ids, torch.ones_like(ids, dtype=torch.bool))
    torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["esm", "protbert"])
def test_every_parameter_takes_part_in_the_hidden_states(originals, name):
    encoder = load_encoder(str(originals[name]))
    names = [key for key, _ in encoder.module.named_parameters()]
    assert not [key for key in names if "pooler" in key or "contact_head" in key]
    ids = torch.tensor([encoder.vocabulary.residue_ids("MKTA")])
    hidden = encoder.module(ids, torch.ones_like(ids, dtype=torch.bool))
    gradients = torch.autograd.grad(hidden.pow(2).sum(), list(encoder.module.parameters()))
    assert len(gradients) == len(names) > 20


def test_the_hash_is_of_what_is_used(originals, esm):
    def scale(name):
        def change(weights):
            weights[name] = 2 * weights[name] + 1

        return change

    first = load_encoder(str(originals["esm"])).sha256
    assert load_encoder(str(esm)).sha256 == first
    rewrite(esm, scale("contact_head.regression.weight"))  # not used
    assert load_encoder(str(esm)).sha256 == first
    rewrite(esm, scale("encoder.layer.1.output.dense.weight"))
    assert load_encoder(str(esm)).sha256 != first


def test_settings_that_change_the_function_change_the_hash(originals, esm):
    config = json.loads((esm / "config.json").read_text())
    (esm / "config.json").write_text(json.dumps({**config, "num_attention_heads": 2}))
    assert load_encoder(str(esm)).sha256 != load_encoder(str(originals["esm"])).sha256


def test_loading_is_silent_and_leaves_the_random_state_alone(originals, capfd, recwarn):
    from transformers.utils import logging

    level, state = logging.get_verbosity(), torch.get_rng_state()
    load_encoder(str(originals["esm"]))
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert logging.get_verbosity() == level
    assert logging.is_progress_bar_enabled()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["esm", "protbert"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_loading_does_not_mind_gradients_switched_off(originals, name, mode):
    with mode():
        encoder = load_encoder(str(originals[name]))
    assert encoder.sha256 == load_encoder(str(originals[name])).sha256
    assert torch.is_grad_enabled()
    ids = torch.tensor([encoder.vocabulary.residue_ids("MKTA")])
    hidden = encoder.module(ids, torch.ones_like(ids, dtype=torch.bool))
    gradients = torch.autograd.grad(hidden.pow(2).sum(), list(encoder.module.parameters()))
    assert len(gradients) > 20


def test_provenance_is_read(esm):
    (esm / "PROVENANCE.json").write_text('{"source": "made for this test"}')
    assert load_encoder(str(esm)).provenance == {"source": "made for this test"}


def test_a_new_separator_is_one_learned_token(originals):
    plain = load_encoder(str(originals["esm"]))
    state = torch.get_rng_state()
    encoder = load_encoder(str(originals["esm"]), separator="new", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    vocabulary = encoder.vocabulary
    assert vocabulary.tokens == (*ESM_TOKENS, "[SEP]")
    assert (vocabulary.separator, vocabulary.end) == ("[SEP]", "<eos>")
    table = encoder.module.model.get_input_embeddings().weight
    old = plain.module.model.get_input_embeddings().weight
    assert torch.equal(table[:-1], old)
    assert (table[-1] - old.mean(dim=0)).abs().max() < 0.2 * old.std(dim=0).max()
    ids = torch.tensor(
        [encode("separator", "MKTA", parse_variant("K2R"), vocabulary, 40).token_ids]
    )
    assert vocabulary.show(ids[0])[2:7] == ["[SEP]", "K", "[SEP]", "R", "[SEP]"]
    hidden = encoder.module(ids, torch.ones_like(ids, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(hidden.pow(3).sum(), [table])
    assert gradient[-1].abs().max() > 0


def test_a_new_separator_depends_on_the_seed_only(originals):
    hashes = [
        load_encoder(str(originals["esm"]), separator="new", seed=seed).sha256 for seed in (1, 1, 2)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_another_token_as_separator(originals):
    encoder = load_encoder(str(originals["esm"]), separator="<null_1>")
    assert encoder.vocabulary.separator == "<null_1>"


def test_a_checkpoint_without_unused_weights_is_complete(originals, esm):
    def drop(weights):
        for name in list(weights):
            if name.startswith(("contact_head", "pooler")):
                del weights[name]

    rewrite(esm, drop)
    state = torch.get_rng_state()
    assert load_encoder(str(esm)).sha256 == load_encoder(str(originals["esm"])).sha256
    assert torch.equal(torch.get_rng_state(), state)


def incomplete(directory):
    rewrite(directory, lambda weights: weights.pop("encoder.layer.1.output.dense.weight"))


def cut_short(directory):
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def wrong_shape(directory):
    name = "encoder.layer.1.output.dense.weight"
    rewrite(directory, lambda weights: weights.update({name: torch.ones(3, 3)}))


def pickled_only(directory):
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()


def longer_vocabulary(directory):
    with open(directory / "vocab.txt", "a") as file:
        file.write("<extra>\n")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (incomplete, "lacks 1 weights .* first encoder.layer.1.output.dense.weight"),
        (cut_short, "cannot be loaded"),
        (wrong_shape, "lacks 1 weights .* first encoder.layer.1.output.dense.weight"),
        (pickled_only, "cannot be loaded.*model.safetensors"),
        (longer_vocabulary, "has 34 tokens, its model has vectors for 33"),
        (lambda d: (d / "config.json").unlink(), "must hold config.json"),
        (lambda d: (d / "config.json").write_text("{"), "cannot be loaded"),
        (lambda d: (d / "config.json").write_text('{"model_type": "nothing"}'), "cannot be loaded"),
        (lambda d: (d / "vocab.txt").unlink(), "without the files of its tokenizer"),
        (lambda d: (d / "PROVENANCE.json").write_text("{"), "not JSON"),
        (lambda d: (d / "PROVENANCE.json").write_text("[]"), "not a JSON object"),
    ],
)
def test_a_damaged_directory_is_one_clear_error(esm, damage, says):
    damage(esm)
    with pytest.raises(DataError, match=says) as caught:
        load_encoder(str(esm))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("./no/such/directory", {}, "neither a directory nor a Hugging Face name"),
        ("two words", {}, "neither a directory nor a Hugging Face name"),
        ("nobody/no-such-encoder", {"local_files_only": True}, "cannot be loaded: .*cached"),
    ],
)
def test_names_that_lead_nowhere(name, options, says, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=says):
        load_encoder(name, **options)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("esm", {"separator": "[SEP]"}, r"no separator token '\[SEP\]'"),
        ("protbert", {"separator": "new"}, r"already has \[SEP\]"),
        ("esm", {"max_tokens": 49}, "reads at most 48 tokens, not 49"),
        ("esm", {"max_tokens": 0}, "reads at most 48 tokens, not 0"),
    ],
)
def test_bad_options(originals, kind, options, says):
    with pytest.raises(DataError, match=says):
        load_encoder(str(originals[kind]), **options)
