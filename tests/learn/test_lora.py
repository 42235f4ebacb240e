"""Adapters that begin as nothing, adapt as the scope says, and can be folded away."""

import builtins

import numpy as np
import pytest
import torch
from hf_directories import write_esm, write_protbert
from torch.func import grad
from toy import toy_assay

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop, inner_update
from mutmeta_lib.learn.inner import adapted_names
from mutmeta_lib.learn.lora import with_lora
from mutmeta_lib.models.encoders import load_encoder, tiny_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.tasks.tasks import encode_assay, sample_tasks

pytest.importorskip("peft")
KINDS = ("tiny", "esm", "protbert")
LOOP = InnerLoop(0.1, 2, scope="lora")


@pytest.fixture(scope="module", params=KINDS)
def plain(request, tmp_path_factory):
    if request.param == "tiny":
        return tiny_encoder(width=16, layers=2, heads=2)
    write = {"esm": write_esm, "protbert": write_protbert}[request.param]
    return load_encoder(str(write(tmp_path_factory.mktemp(request.param) / "model")))


@pytest.fixture(scope="module")
def adapted(plain):
    return with_lora(plain, rank=2, alpha=6.0, seed=3)


def start(encoder, seed=0, moved=True):
    """Float64 parameters; with B away from zero unless asked otherwise."""
    params = Predictor(encoder, hidden=(4,)).init(torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    for name in params:
        if ".lora_B." in name and moved:
            params[name] = 0.1 * torch.randn(params[name].shape, generator=generator)
    return {name: value.double() for name, value in params.items()}


def drawn(encoder, n=2):
    encoded = encode_assay(toy_assay(0), "separator", encoder.vocabulary, encoder.max_tokens)
    tasks = sample_tasks([encoded], n, support=3, query=4, rng=np.random.default_rng(0))
    return [(task.support, task.query) for task in tasks]


def test_it_starts_as_the_identity(plain, adapted):
    tokens = drawn(plain)[0][1].tokens
    with torch.no_grad():
        before, after = (e.module(tokens.token_ids, tokens.mask) for e in (plain, adapted))
    assert torch.equal(before[tokens.mask], after[tokens.mask])


def test_names_hash_and_provenance_tell(plain, adapted):
    assert adapted.name == f"{plain.name}+lora"
    assert adapted.provenance["lora"]["rank"] == 2
    assert {k: v for k, v in adapted.provenance.items() if k != "lora"} == plain.provenance
    again = with_lora(plain, rank=2, alpha=6.0, seed=3)
    assert again.sha256 == adapted.sha256
    others = [
        with_lora(plain, **{"rank": 2, "alpha": 6.0, "seed": 3} | change).sha256
        for change in ({"rank": 3}, {"alpha": 5.0}, {"seed": 4}, {"targets": "0"})
    ]
    assert len({plain.sha256, adapted.sha256, *others}) == 6


def test_the_given_encoder_and_the_global_generator_are_left_alone(plain):
    names = [name for name, _ in plain.module.named_parameters()]
    frozen = [p.requires_grad for p in plain.module.parameters()]
    state = torch.random.get_rng_state()
    with_lora(plain)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [name for name, _ in plain.module.named_parameters()] == names
    assert [p.requires_grad for p in plain.module.parameters()] == frozen


def test_the_scope_holds_adapters_and_head(adapted):
    params = start(adapted)
    chosen = adapted_names(params, "lora")
    adapters = [name for name in chosen if not name.startswith("head.")]
    assert set(chosen) - set(adapters) == {n for n in params if n.startswith("head.")}
    linear = [n for n in params if n.endswith(".base_layer.weight")]
    assert len(linear) >= 8
    assert sorted(adapters) == sorted(
        n.replace("base_layer", f"lora_{part}.default") for n in linear for part in "AB"
    )
    assert list(adapted_names(params, "all")) == list(params)
    last = adapted_names(params, "last-1")
    assert {n for n in last if ".lora_" in n} < {n for n in chosen if ".lora_" in n}


def test_unused_layers_get_no_adapter(adapted):
    assert not [name for name in start(adapted) if "contact" in name or "pooler" in name]
    predictor = Predictor(adapted, hidden=(4,))
    gradient = grad(predictor.loss)(start(adapted), drawn(adapted)[0][1])
    assert [name for name, part in gradient.items() if not part.abs().sum() > 0] == []


def test_exactly_the_scope_moves(adapted):
    predictor, params = Predictor(adapted, hidden=(4,)), start(adapted)
    moved = inner_update(predictor.loss, params, drawn(adapted)[0][0], LOOP)
    assert list(moved) == list(params)
    changed = {name for name in params if not torch.equal(moved[name], params[name])}
    assert changed == set(adapted_names(params, "lora"))


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
    with pytest.raises(DataError, match="cannot have rank 0"):
        with_lora(encoder, rank=0)
    with pytest.raises(DataError, match="has adapters already"):
        with_lora(with_lora(encoder))
    with pytest.raises(DataError, match=r"'lora' holds no parameter; .*with_lora"):
        adapted_names(["encoder.w", "head.w"], "lora")
    imported = builtins.__import__

    def without_peft(name, *arguments, **more):
        if name == "peft":
            raise ImportError(name)
        return imported(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    with pytest.raises(ImportError, match=r'pip install "mutmeta\[lora\]"'):
        with_lora(encoder)
