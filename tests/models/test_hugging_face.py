"""Reading checkpoints: with a head and without, and what they lack."""

import json

import pytest
import torch
from hf_directories import write_esm, write_protbert
from safetensors.torch import load_file, save_file

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.hugging_face import hide_unused, read_checkpoint, sample

WRITERS = {"esm": write_esm, "protbert": write_protbert}


@pytest.fixture(scope="module", params=list(WRITERS))
def written(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("models")
    write = WRITERS[request.param]
    return {head: str(write(directory / f"head {head}", head=head)) for head in (False, True)}


def read(name, **options):
    return read_checkpoint(str(name), local_files_only=True, **options)


def test_a_complete_checkpoint_lacks_nothing_that_is_used(written):
    assert not {n for n in read(written[True], head=True).absent if "contact" not in n}
    assert not {n for n in read(written[True]).absent if "contact" not in n and "pool" not in n}


def test_a_head_that_is_not_there_is_told_and_not_made_up(written):
    state = torch.get_rng_state()
    found = read(written[False], head=True)
    assert torch.equal(torch.get_rng_state(), state)
    trunk = f"{found.model.base_model_prefix}."
    heads = {name for name in found.absent if not name.startswith(trunk)}
    assert len(heads) >= 5
    assert all(name.startswith(("lm_head.", "cls.")) for name in heads)


def test_tied_weights_are_absent_under_all_their_names(written, tmp_path):
    """BERT's decoder has its bias under two names."""
    found = read(written[False], head=True)
    named = dict(found.model.named_parameters(remove_duplicate=False))
    for name in found.absent & named.keys():
        same = {other for other, value in named.items() if value is named[name]}
        assert same <= found.absent


def test_the_mask_token_is_the_tokenizers(written):
    found = read(written[True])
    assert found.mask in ("<mask>", "[MASK]")
    assert found.vocabulary.id(found.mask) == found.vocabulary.tokens.index(found.mask)


def test_parameters_out_of_use_are_hidden_without_gradients_too(written):
    class FirstRow(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used = torch.nn.Embedding(40, 3)
            self.idle = torch.nn.Linear(3, 3)

        def forward(self, token_ids, mask):
            return self.used(token_ids)

    module = FirstRow()
    with torch.no_grad():
        hide_unused(module, sample(read(written[True]).vocabulary))
    assert [name for name, _ in module.named_parameters()] == ["used.weight"]
    assert set(module.state_dict()) == {"used.weight"}


def test_a_model_of_another_kind_has_no_head_to_load(tmp_path):
    directory = write_esm(tmp_path / "esm")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "model_type": "t5"}))
    with pytest.raises(DataError, match="cannot be loaded") as caught:
        read(directory, head=True)
    assert "\n" not in str(caught.value)


def test_a_lost_bias_of_the_head_is_noticed(tmp_path):
    directory = write_protbert(tmp_path / "bert", head=True)
    file = directory / "model.safetensors"
    weights = load_file(file)
    lost = [name for name in weights if name.startswith("cls.") and name.endswith("bias")]
    kept = {name: value for name, value in weights.items() if name not in lost}
    save_file(kept, file, metadata={"format": "pt"})
    absent = read(directory, head=True).absent
    assert {"cls.predictions.bias", "cls.predictions.decoder.bias"} <= absent
