"""BERT layer by layer; what all layered encoders share is in test_layers and test_siblings."""

import pytest
import torch
from hf_directories import write_protbert
from toy import toy_assay
from transformers import BertConfig, EsmConfig

from mutmeta_lib.errors import DataError
from mutmeta_lib.models.bert import BertLayers, is_supported
from mutmeta_lib.models.encoders import load_encoder
from mutmeta_lib.models.frozen import freeze
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.tasks.tasks import draw_task, encode_assay, task_generator


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_encoder(str(write_protbert(tmp_path_factory.mktemp("bert") / "bert")))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (BertConfig(), True),
        (BertConfig(is_decoder=True), False),
        (BertConfig(is_decoder=True, add_cross_attention=True), False),
        (EsmConfig(pad_token_id=1), False),
    ],
)
def test_plain_encoders_are_supported(config, expected):
    assert is_supported(config) is expected


def test_relative_positions_are_not():
    config = BertConfig()
    config.position_embedding_type = "relative_key"
    assert not is_supported(config)


def test_protbert_is_layered(encoder):
    assert isinstance(encoder.module, BertLayers)
    assert encoder.module.layers == 2


def test_a_text_beyond_the_positions_is_refused(encoder):
    ids = torch.full((1, 49), 5)
    with pytest.raises(DataError, match="49 tokens exceed this encoder's context of 48"):
        encoder.module(ids, None)


def test_gradients_are_those_of_hugging_face(encoder):
    ids = torch.tensor([encoder.vocabulary.residue_ids("MKTAYI")])
    mask = torch.ones_like(ids, dtype=torch.bool)
    named = dict(encoder.module.named_parameters())

    def gradients(hidden):
        return torch.autograd.grad(hidden.pow(3).sum(), list(named.values()))

    theirs = encoder.module.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    for name, one, other in zip(
        named, gradients(encoder.module(ids, mask)), gradients(theirs), strict=True
    ):
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-5, name


def test_a_trunk_can_be_frozen_below_the_last_layer(encoder):
    """Predictions and gradients of what learns are those of the whole model."""
    predictor = Predictor(encoder, hidden=(8,))
    assay = encode_assay(toy_assay(0), "separator", encoder.vocabulary, encoder.max_tokens)
    part, (held,) = freeze(predictor, [assay], 1)
    params = predictor.init(torch.Generator().manual_seed(0))
    learning = part.learning(params)
    assert 0 < len(learning) < len(params)

    def loss_and_gradient(model, given, values):
        task = draw_task(given, 6, task_generator(0, "t"), pool=6)
        leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
        loss = model.loss(leaves, task.support)
        return loss, torch.autograd.grad(loss, [leaves[name] for name in learning])

    whole, expected = loss_and_gradient(predictor, assay, params)
    loss, found = loss_and_gradient(part, held, learning)
    torch.testing.assert_close(loss, whole, rtol=1e-5, atol=1e-6)
    for name, one, other in zip(learning, found, expected, strict=True):
        assert (one - other).norm() <= 1e-3 * other.norm() + 1e-5, name
