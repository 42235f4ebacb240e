"""What `mutmeta train` writes can be read, adapts as in memory, or is refused in one sentence."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hf_directories import write_esm
from toy import toy_assay, toy_encoded, toy_predictor
from typer.testing import CliRunner

from mutmeta_lib.cli import app
from mutmeta_lib.data.folders import read_data_dir
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.start import load_start, save_start
from mutmeta_lib.learn.train import MetaTraining, meta_train
from mutmeta_lib.models.embed import freeze
from mutmeta_lib.models.encoder import load_encoder, tiny_encoder
from mutmeta_lib.models.predictor import Predictor, predict
from mutmeta_lib.records import store
from mutmeta_lib.tasks.tasks import Examples, LabelScale, draw_task, encode_assay, task_generator

SETTINGS = MetaTraining(
    steps=2, tasks_per_step=1, support=4, query=4, inner=InnerLoop(0.05, 2, scope="last-1")
)
PREDICTOR = replace(toy_predictor(), pooling="mean", objective="list_mle")


def trained(predictor=PREDICTOR, algorithm="maml", encoding="separator", scope="last-1"):
    settings = replace(SETTINGS, algorithm=algorithm, inner=InnerLoop(0.05, 2, scope=scope))
    start = predictor.init(torch.Generator().manual_seed(0))
    return meta_train(
        predictor, start, toy_encoded(2, encoding, predictor=predictor), settings, seed=0
    )


def ten(encoded):
    rng = task_generator(0, encoded.assay.id)
    return draw_task(encoded, 10, rng, pool=10, max_query=12)


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_start_on_the_disk_predicts_what_it_predicts_in_memory(tmp_path, algorithm):
    scope = "all" if algorithm in ("anil", "boil") else "last-1"
    run = trained(algorithm=algorithm, scope=scope)
    save_start(tmp_path / "start.safetensors", run, PREDICTOR, "separator", {"TOY0": "abc"})
    start = load_start(tmp_path / "start.safetensors", encoder=PREDICTOR.encoder, device="cpu")
    assert (start.algorithm, start.inner, start.encoding) == (
        algorithm,
        run.settings.inner,
        "separator",
    )
    assert (start.origin["seed"], start.origin["data"]) == (0, {"TOY0": "abc"})
    torch.testing.assert_close(start.params, run.params, rtol=0, atol=0)
    task = ten(start.encode(toy_assay(5)))
    found = start.adapt(task.support).predict(task.query)
    member = ALGORITHMS[algorithm](PREDICTOR)
    loop = member.loop(run.settings.inner)
    with torch.no_grad():
        adapted = member.update(member.model.loss, run.params, task.support, loop)
    labels = predict(member.model, adapted, task.query.tokens).numpy()
    np.testing.assert_array_equal(found, task.label_scale.to_scores(labels))


def test_the_command_writes_what_can_be_loaded_and_adapted(tmp_path):
    file = tmp_path / "start.safetensors"
    given = "--steps 2 --tasks-per-step 1 --support 4 --query 4 --inner-steps 2 --seed 3"
    done = CliRunner().invoke(app, ["train", str(file), *given.split(), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    start = load_start(file, device="cpu")
    assert start.predictor.encoder.sha256 == tiny_encoder(seed=3).sha256
    (assay,) = read_data_dir(properties=["stability"])
    task = ten(start.encode(assay))
    member = ALGORITHMS["maml"](start.predictor)
    adapted = member.update(start.predictor.loss, start.params, task.support, InnerLoop(0.01, 2))
    labels = predict(start.predictor, adapted, task.query.tokens).numpy()
    model = start.adapt(task.support)
    np.testing.assert_array_equal(model.predict(task.query), task.label_scale.to_scores(labels))
    assert start.origin["data"].keys() >= {assay.id}
    assert start.origin["settings"]["steps"] == 2


@pytest.fixture
def start(tmp_path):
    save_start(tmp_path / "start.safetensors", trained(), PREDICTOR, "separator")
    return load_start(tmp_path / "start.safetensors", encoder=PREDICTOR.encoder, device="cpu")


def test_any_variants_of_the_protein_are_predicted_by_the_support_alone(start):
    encoded = start.encode(toy_assay(5))
    task = ten(encoded)
    model = start.adapt(task.support)
    whole = model.predict(encoded)
    np.testing.assert_allclose(whole[task.query.rows], model.predict(task.query), rtol=1e-5)
    np.testing.assert_array_equal(model.predict(encoded.assay.variants), whole)
    texts = [str(variant[0]) for variant in encoded.assay.variants]
    np.testing.assert_array_equal(model.predict(texts), whole)
    with pytest.raises(DataError, match="position 999"):
        model.predict(["A999C"])
    # Measured scores of what is predicted are not looked at, nor is a scale of other labels.
    lying = replace(encoded.assay, scores=np.where(np.isin(np.arange(60), task.support.rows),
                                                   encoded.assay.scores, 99.0))  # fmt: skip
    again = start.adapt(replace(task.support, assay=start.encode(lying), labels=torch.zeros(10)))
    np.testing.assert_array_equal(again.predict(encoded), whole)
    assert again.label_scale == LabelScale.fit(task.support.scores)


def test_units_follow_the_support_and_few_labels_have_none(start):
    encoded = start.encode(toy_assay(5))
    task = ten(encoded)
    plain = start.adapt(task.support).predict(encoded)
    stretched = start.encode(replace(encoded.assay, scores=7 * encoded.assay.scores + 40))
    other = start.adapt(replace(task.support, assay=stretched)).predict(encoded)
    np.testing.assert_allclose(other, 7 * plain + 40, rtol=1e-4)
    whole, every = start.adapt(encoded), Examples(encoded, np.arange(60), torch.zeros(60))
    np.testing.assert_array_equal(whole.predict(encoded), start.adapt(every).predict(encoded))
    for few in (0, 1):
        model = start.adapt(task.support.take(np.arange(few)))
        assert not model.label_scale.identified
        assert np.isfinite(model.predict(encoded)).all()
    none = start.adapt(task.support.take(np.array([], dtype=int)))
    assert none.params is start.params


def test_steps_and_rates_may_be_told(start, tmp_path):
    task = ten(start.encode(toy_assay(5)))
    usual, more, faster, told = (
        start.adapt(task.support, **how).predict(task.query)
        for how in ({}, {"steps": 4}, {"lr": 0.1}, {"steps": 2, "lr": 0.05})
    )
    np.testing.assert_array_equal(told, usual)
    assert (more != usual).any()
    assert (faster != usual).any()
    with pytest.raises(DataError, match=r"10 labels of assay TOY5 gave numbers .*; lower lr"):
        start.adapt(task.support, lr=1e30)
    with pytest.raises(DataError, match=r"written as 'mutant', .* start learned 'separator'"):
        start.adapt(ten(toy_encoded(1, "mutant")[0]).support)
    for name, wrong in (("metasgd", {"lr": 0.1}), ("r2d2", {"steps": 3})):
        run = trained(algorithm=name, scope="all")
        save_start(tmp_path / name, run, PREDICTOR, "separator")
        learned = load_start(tmp_path / name, encoder=PREDICTOR.encoder, device="cpu")
        with pytest.raises(DataError, match=f"{name} has learned how to adapt; leave"):
            learned.adapt(task.support, **wrong)


def test_an_encoder_of_files_is_known_by_its_hash_and_never_by_its_place(tmp_path):
    folder = write_esm(tmp_path / "model")
    encoder = load_encoder(str(folder), max_tokens=40)
    predictor, file = Predictor(encoder, hidden=(4,)), tmp_path / "start.safetensors"
    run = trained(predictor)
    save_start(file, run, predictor, "separator")
    assert str(tmp_path).encode() not in file.read_bytes()
    with pytest.raises(DataError, match="from files of its own; give their directory as encoder"):
        load_start(file)
    start = load_start(file, encoder=str(folder), device="cpu")
    assert start.predictor.encoder.max_tokens == 40
    task = ten(start.encode(toy_assay(5)))
    adapted = start.adapt(task.support)
    twice = load_start(file, encoder=encoder, device="cpu").adapt(task.support)
    np.testing.assert_array_equal(adapted.predict(task.query), twice.predict(task.query))
    with pytest.raises(DataError, match=r"another encoder than tiny: .* with sha256"):
        load_start(file, encoder=tiny_encoder(max_tokens=40))
    with pytest.raises(DataError, match="with max_tokens 40, not"):
        load_start(file, encoder=load_encoder(str(folder), max_tokens=39))
    vocabulary = replace(encoder.vocabulary, separator="<unk>")
    with pytest.raises(DataError, match="with separator <eos>, not <unk>"):
        load_start(file, encoder=replace(encoder, vocabulary=vocabulary))


def test_what_is_no_start_is_refused_in_one_sentence(tmp_path):
    file, run = tmp_path / "start.safetensors", trained()
    save_start(file, run, PREDICTOR, "separator")
    tensors, meta = store.load(file)

    def refused(told, tensors=tensors, **changed):
        store.save(tmp_path / "other", tensors, {**meta, **changed})
        with pytest.raises(DataError, match=told) as error:
            load_start(tmp_path / "other", encoder=PREDICTOR.encoder, device="cpu")
        assert str(tmp_path / "other") in str(error.value)

    def without(mapping, name):
        return {key: value for key, value in mapping.items() if key != name}

    refused("head.0.weight is not that of maml on tiny", without(tensors, "head.0.weight"))
    refused("rate.head.0.bias is not that", tensors | {"rate.head.0.bias": torch.zeros(16)})
    refused("parameter head.[12].* is not", predictor=meta["predictor"] | {"hidden": [16, 9]})
    refused("version of mutmeta does not know protonet", algorithm="protonet")
    refused("version of mutmeta does not know maml or emoji", encoding="emoji")
    for name in ("algorithm", "inner", "encoding", "encoder", "predictor"):
        store.save(tmp_path / "other", tensors, without(meta, name))
        with pytest.raises(DataError, match=f"no meta-trained start .*does not tell {name}"):
            load_start(tmp_path / "other", device="cpu")
    whole = file.read_bytes()
    for content, told in (
        (whole[:-9], "not a whole safetensors file"),
        (whole[:-9] + b"different", "wrong checksum"),
        (b"", "cannot be read"),
        (b"start", "cannot be read"),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match=told):
            load_start(file, device="cpu")
    with pytest.raises(DataError, match="cannot be opened"):
        load_start(tmp_path / "nowhere", device="cpu")
    frozen, _ = freeze(PREDICTOR, [encode_assay(toy_assay(0), "separator", *how())], None)
    with pytest.raises(DataError, match="over a frozen encoder cannot stand alone"):
        save_start(file, run, frozen, "separator")


def how():
    return PREDICTOR.encoder.vocabulary, PREDICTOR.encoder.max_tokens
