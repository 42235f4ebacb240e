"""Hugging Face directories with random weights and the real vocabularies of ProtBERT and ESM-2."""

import json

import cases
import torch
import transformers

SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32)
PROTBERT_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"LAGVESIKRDTPNQFYMHCWXUBZO"]
LOUD = 0.5
"""Spread of the weights of models with a head: their odds are to differ by more than rounding."""


def write_protbert(directory, positions=48, head=False):
    """A BERT of ProtBERT's kind with 16 hidden units, with its language-model head or without."""
    _write_tokenizer(directory, PROTBERT_TOKENS, "BertTokenizer", do_lower_case=False)
    config = transformers.BertConfig(
        **SMALL,
        vocab_size=len(PROTBERT_TOKENS),
        max_position_embeddings=positions,
        pad_token_id=0,
        initializer_range=LOUD if head else 0.02,
    )
    return _write_model(directory, "BertForMaskedLM" if head else "BertModel", config)


def write_esm(directory, positions=50, kind="rotary", head=False):
    """An ESM-2 with 16 hidden units, with its language-model head or without."""
    more = {"max_position_embeddings": positions, "position_embedding_type": kind}
    return cases.write_esm(
        directory, 2, 16, 4, head, **more, initializer_range=LOUD if head else 0.02
    )


def write_distilbert(directory):
    """A model whose layers are not ours to loop over, with ProtBERT's vocabulary."""
    _write_tokenizer(directory, PROTBERT_TOKENS, "BertTokenizer", do_lower_case=False)
    sizes = dict(dim=16, n_layers=2, n_heads=4, hidden_dim=32, max_position_embeddings=48)
    vocabulary = dict(vocab_size=len(PROTBERT_TOKENS), pad_token_id=0)
    config = transformers.DistilBertConfig(**sizes, **vocabulary)
    return _write_model(directory, "DistilBertModel", config)


def _write_tokenizer(directory, tokens, kind, **options):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.txt").write_text("\n".join(tokens) + "\n")
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": kind, **options})
    )


def _write_model(directory, kind, config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        getattr(transformers, kind)(config).save_pretrained(directory)
    return directory
