"""Adapters that begin as nothing, and adapt as the scope says."""

import sys

import pytest
import torch
from hf_directories import write_esm, write_protbert
from torch.func import grad
from toy import toy_assay

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop, inner_update
from mutmeta_lib.learn.inner import adapted_names
from mutmeta_lib.learn.lora import with_lora
from mutmeta_lib.models.encoder import load_encoder, tiny_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.tasks.tasks import draw_task, encode_assay, task_generator

pytest.importorskip("peft")
HOW = {"rank": 2, "alpha": 6.0, "seed": 3}


@pytest.fixture(scope="module", params=["tiny", "esm", "protbert"])
def plain(request, tmp_path_factory):
    if request.param == "tiny":
        return tiny_encoder(width=16, layers=2, heads=2)
    write = {"esm": write_esm, "protbert": write_protbert}[request.param]
    return load_encoder(str(write(tmp_path_factory.mktemp(request.param) / "model")))


@pytest.fixture(scope="module")
def adapted(plain):
    return with_lora(plain, **HOW)


def start(encoder):
    """Float64 parameters, with B away from zero."""
    generator = torch.Generator().manual_seed(0)
    params = Predictor(encoder, hidden=(4,)).init(generator)
    return {
        name: (torch.randn(v.shape, generator=generator) / 10 if ".lora_B." in name else v).double()
        for name, v in params.items()
    }


def drawn(encoder):
    encoded = encode_assay(toy_assay(0), "separator", encoder.vocabulary, encoder.max_tokens)
    return draw_task(encoded, 3, task_generator(0, "lora"), pool=3, max_query=4)


def test_it_starts_as_the_identity_tells_of_itself_and_leaves_what_it_is_given(plain, adapted):
    tokens = drawn(plain).query.tokens
    with torch.no_grad():
        before, after = (e.module(tokens.token_ids, tokens.mask) for e in (plain, adapted))
    assert torch.equal(before[tokens.mask], after[tokens.mask])
    assert adapted.provenance["lora"]["rank"] == 2
    assert {k: v for k, v in adapted.provenance.items() if k != "lora"} == plain.provenance
    asks = [(name, p.requires_grad) for name, p in plain.module.named_parameters()]
    state = torch.random.get_rng_state()
    assert with_lora(plain, **HOW).sha256 == adapted.sha256
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [(name, p.requires_grad) for name, p in plain.module.named_parameters()] == asks
    changes = ({"rank": 3}, {"alpha": 5.0}, {"seed": 4}, {"targets": "0"})
    others = [with_lora(plain, **HOW | change).sha256 for change in changes]
    assert len({plain.sha256, adapted.sha256, *others}) == 6


def test_exactly_the_adapters_and_the_head_move_and_everything_learns(adapted):
    predictor, params, task = Predictor(adapted, hidden=(4,)), start(adapted), drawn(adapted)
    linear = [n for n in params if n.endswith(".base_layer.weight")]
    assert len(linear) >= 8
    assert not [name for name in params if "contact" in name or "pooler" in name]
    adapters = {n.replace("base_layer", f"lora_{part}.default") for n in linear for part in "AB"}
    head = {n for n in params if n.startswith("head.")}
    moved = inner_update(predictor.loss, params, task.support, InnerLoop(0.1, 2, scope="lora"))
    assert list(moved) == list(params)
    changed = {name for name in params if not torch.equal(moved[name], params[name])}
    assert changed == adapters | head == {*adapted_names(params, "lora")}
    gradient = grad(predictor.loss)(params, task.query)
    assert [name for name, part in gradient.items() if not part.abs().sum() > 0] == []


def test_targets_choose_layers(tmp_path):
    encoder = load_encoder(str(write_esm(tmp_path / "model")))
    made = with_lora(encoder, targets=r"layer\.1\..*(query|value)$")
    names = [name for name, _ in made.module.named_parameters() if ".lora_A." in name]
    assert len(names) == 2 == made.provenance["lora"]["layers"]
    assert all("layer.1.attention.self." in name for name in names)


def test_bad_calls_say_what_is_wrong(monkeypatch):
    encoder = tiny_encoder(width=16, layers=1, heads=2)
    with pytest.raises(DataError, match=r"no linear layer .* matches 'conv'; match some of blocks"):
        with_lora(encoder, targets="conv")
    with pytest.raises(DataError, match="has adapters already"):
        with_lora(with_lora(encoder))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r'pip install "mutmeta\[lora\]"'):
        with_lora(encoder)
