"""Encoders of ESM-2's shapes with random weights: nothing is downloaded to time them."""

from dataclasses import dataclass

import torch

from mutmeta_lib.models.encoders import Encoder
from mutmeta_lib.models.esm import EsmLayers
from mutmeta_lib.models.hugging_face import hide_unused
from mutmeta_lib.tasks.vocabulary import Vocabulary

ESM_TOKENS = (
    "<cls>",
    "<pad>",
    "<eos>",
    "<unk>",
    *"LAGVSERTIDPKQNFYMHWCXBUZO.-",
    "<null_1>",
    "<mask>",
)


@dataclass(frozen=True)
class EsmShape:
    """Sizes of an ESM-2 (doi:10.1126/science.ade2574); the defaults are those of 8M."""

    layers: int = 6
    width: int = 320
    heads: int = 20


def random_esm(shape: EsmShape) -> Encoder:
    """An encoder of that shape with random weights, the same at every call."""
    from transformers import EsmConfig, EsmModel

    config = EsmConfig(
        vocab_size=len(ESM_TOKENS),
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.width,
        max_position_embeddings=1026,
        position_embedding_type="rotary",
        pad_token_id=1,
        mask_token_id=32,
        token_dropout=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = EsmModel(config, add_pooling_layer=False).eval()
    module = EsmLayers(model).eval()
    hide_unused(module, torch.tensor([[0, 4, 5, 2]]))
    vocabulary = Vocabulary(
        "esm2", ESM_TOKENS, "<pad>", "<unk>", "<cls>", "<eos>", "<eos>", spaced=False
    )
    return Encoder(
        name=f"ESM-2 of {shape.layers} layers, random weights",
        vocabulary=vocabulary,
        max_tokens=1024,
        width=shape.width,
        module=module,
        sha256=f"random {shape}",
        provenance={"weights": "random", **vars(shape)},
    )
