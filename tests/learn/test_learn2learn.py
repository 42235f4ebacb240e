"""learn2learn on an encoder with children that are None, and everything without learn2learn."""

import sys
from dataclasses import replace
from pathlib import Path

import jupytext
import numpy as np
import pytest
import torch
from hf_directories import write_esm, write_protbert
from torch.func import functional_call
from toy import toy_assay
from typer.testing import CliRunner

from mutmeta_lib.cli import app
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import BACKENDS, InnerLoop, meta_gradient
from mutmeta_lib.learn import learn2learn as module
from mutmeta_lib.learn.gradients import task_gradient
from mutmeta_lib.learn.inner import RATE, with_rates
from mutmeta_lib.learn.learn2learn import LossModule, has_learn2learn, load_algorithm
from mutmeta_lib.learn.lora import with_lora
from mutmeta_lib.models.encoders import load_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.tasks.tasks import encode_assay, sample_tasks


def beheaded_esm():
    """ESM with attention that differentiates twice, and its two heads taken off."""
    from transformers import EsmConfig, EsmModel

    config = EsmConfig(
        vocab_size=33,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        position_embedding_type="rotary",
        pad_token_id=1,
        mask_token_id=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = EsmModel(config).double()
    model.pooler = model.contact_head = None
    return model.eval()


def esm_loss(model):
    def loss(params, batch):
        ids, labels = batch
        hidden = functional_call(model, params, (ids,)).last_hidden_state
        return torch.mean((hidden.mean(dim=(1, 2)) - labels) ** 2)

    return loss


def batch(seed, n=3):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 24, (n, 7), generator=generator)
    return ids, torch.randn(n, generator=generator, dtype=torch.float64)


LOOP = InnerLoop(lr=0.05, steps=2)


@pytest.mark.learn2learn
def test_the_plain_call_stops_at_a_child_that_is_none():
    learner = load_algorithm().MAML(beheaded_esm(), lr=LOOP.lr).clone()
    ids, labels = batch(0)
    loss = torch.mean((learner(ids).last_hidden_state.mean(dim=(1, 2)) - labels) ** 2)
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute '_parameters'"):
        learner.adapt(loss)


@pytest.mark.learn2learn
@pytest.mark.parametrize("first_order", [False, True])
def test_our_backends_do_not(first_order):
    model = beheaded_esm()
    params = {name: value.detach() for name, value in model.named_parameters()}
    tasks = [(batch(0), batch(1)), (batch(2), batch(3))]
    loop = replace(LOOP, first_order=first_order)
    found = [meta_gradient(esm_loss(model), params, tasks, loop, backend=name) for name in BACKENDS]
    size = max(float(part.abs().max()) for part in found[0][1].values())
    assert size > 1e-3
    for theirs in found[1:]:
        torch.testing.assert_close(theirs, found[0], rtol=1e-6, atol=1e-9 * size)


@pytest.mark.learn2learn
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("write", [None, write_esm, write_protbert])
def test_all_backends_agree_on_a_loaded_encoder(tmp_path, write, lora):
    encoder = load_encoder(str(write(tmp_path / "model")) if write else "tiny")
    if lora:
        pytest.importorskip("peft")
        encoder = with_lora(encoder, rank=2)
    predictor = Predictor(encoder, hidden=(4,))
    params = predictor.init(torch.Generator().manual_seed(0))
    params = {name: value.double() + 0.1 * (".lora_B." in name) for name, value in params.items()}
    encoded = encode_assay(toy_assay(0), "separator", encoder.vocabulary, encoder.max_tokens)
    tasks = sample_tasks([encoded], 1, support=3, query=4, rng=np.random.default_rng(0))
    pairs = [(task.support, task.query) for task in tasks]
    loop = replace(LOOP, scope="lora" if lora else "all")
    ours, *others = (
        meta_gradient(predictor.loss, params, pairs, loop, backend=name) for name in BACKENDS
    )
    norm = sum(float((part**2).sum()) for part in ours[1].values()) ** 0.5
    for theirs in others:
        apart = sum(float(((ours[1][n] - theirs[1][n]) ** 2).sum()) for n in params) ** 0.5
        assert apart <= 1e-6 * norm


@pytest.mark.learn2learn
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_learned_rates_have_the_gradient_of_their_metasgd(first_order, steps):
    model = beheaded_esm()
    loss, loop = esm_loss(model), InnerLoop(0.05, steps, first_order)
    params = {name: value.detach() for name, value in model.named_parameters()}
    params = with_rates(params, loop)
    rates = {name: value for name, value in params.items() if name.startswith(RATE)}
    for place, name in enumerate(rates):  # unlike one another, some negative
        params[name] = params[name] * (1 + 0.1 * place) * (-1) ** place
    value, gradient = task_gradient(loss, params, batch(0), batch(1), loop)
    start = {name: params[name] for name in params if name not in rates}
    module = LossModule(loss, start, list(start))
    learned = torch.nn.ParameterList([torch.nn.Parameter(params[name]) for name in rates])
    sgd = load_algorithm("meta_sgd").MetaSGD(module, lrs=learned, first_order=first_order)
    learner = sgd.clone()
    for _ in range(steps):
        learner.adapt(learner(batch(0)))
    theirs = learner(batch(1))
    leaves = module.leaves() | dict(zip(rates, learned, strict=True))
    found = torch.autograd.grad(
        theirs, list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    torch.testing.assert_close(theirs, value)
    torch.testing.assert_close(
        dict(zip(leaves, found, strict=True)), gradient, rtol=1e-6, atol=1e-12
    )
    assert steps == 0 or all(gradient[name].any() for name in rates)


@pytest.fixture
def without(monkeypatch):
    """Here learn2learn is not installed."""
    for name in [name for name in sys.modules if name.split(".")[0] == "learn2learn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)


def test_a_missing_package_is_told_with_the_way_to_install_it(without):
    assert not has_learn2learn()
    with pytest.raises(DataError, match=r"not installed; .*-r requirements-learn2learn\.txt"):
        load_algorithm()


@pytest.mark.learn2learn
def test_a_broken_package_is_told_as_well(monkeypatch):
    assert has_learn2learn()
    monkeypatch.setitem(sys.modules, "learn2learn.algorithms.maml", None)
    with pytest.raises(DataError, match="learn2learn cannot be imported"):
        load_algorithm()


def test_a_command_ends_with_one_sentence_without_it(without, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["train", "start.safetensors", "--backend", "learn2learn"])
    assert done.exit_code == 2
    assert done.output.startswith("learn2learn 0.2.0 is not installed; install it with pip ")
    assert done.output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_chapter_goes_on_without_it(without, capsys):
    chapter = jupytext.read(Path(__file__).parents[2] / "notebooks/03_maml.md")
    code = [cell.source for cell in chapter.cells if cell.cell_type == "code"]
    wanted = ("encoder =", "import ", "assays = load", "has_learn2learn()", "cosine =", "timing =")
    names: dict = {}
    for source in code:
        if any(word in source for word in wanted):
            exec(source, names)
    said = capsys.readouterr().out.splitlines()
    assert "Not compared: learn2learn is not installed (make learn2learn)." in said
    assert list(names["timing"].index) == ["autograd"]
