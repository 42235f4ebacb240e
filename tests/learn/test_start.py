"""A start on the disk can be read, adapts as in memory, or is refused in one sentence."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hf_directories import write_esm
from toy import toy_assay, toy_encoded, toy_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.start import load_start, save_start
from mutmeta_lib.learn.train import MetaTraining, meta_train
from mutmeta_lib.models.embed import freeze
from mutmeta_lib.models.encoder import load_encoder, tiny_encoder
from mutmeta_lib.models.predictor import Predictor, predict
from mutmeta_lib.records import store
from mutmeta_lib.tasks.tasks import Examples, LabelScale, draw_task, task_generator

PREDICTOR = replace(toy_predictor(), pooling="mean", objective="list_mle")


def saved(file, predictor=PREDICTOR, algorithm="maml", scope="head"):
    """A run of two meta-steps, kept in the file."""
    inner = InnerLoop(0.05, 2, scope=scope)
    settings = MetaTraining(algorithm, 2, 1, support=4, query=4, inner=inner)
    start = predictor.init(torch.Generator().manual_seed(0))
    run = meta_train(predictor, start, toy_encoded(2, predictor=predictor), settings, seed=0)
    save_start(file, run, predictor, "separator", {"TOY0": "abc"})
    return run


def loaded(file):
    return load_start(file, encoder=PREDICTOR.encoder, device="cpu")


def ten(start, assay=None):
    encoded = start.encode(assay or toy_assay(5))
    return draw_task(encoded, 10, task_generator(0, "ten"), pool=10, max_query=12)


@pytest.mark.parametrize("algorithm", sorted(set(ALGORITHMS) - {"ranker"}))
def test_a_start_on_the_disk_predicts_what_it_predicts_in_memory(tmp_path, algorithm):
    scope = "head" if algorithm in ("maml", "metasgd") else "all"
    run = saved(tmp_path / "start", algorithm=algorithm, scope=scope)
    start = loaded(tmp_path / "start")
    told = (start.algorithm, start.inner, start.encoding, start.origin["seed"])
    assert told == (algorithm, run.settings.inner, "separator", 0)
    assert start.origin["data"] == {"TOY0": "abc"}
    torch.testing.assert_close(start.params, run.params, rtol=0, atol=0)
    task = ten(start)
    member = ALGORITHMS[algorithm](PREDICTOR)
    with torch.no_grad():
        loop = member.loop(run.settings.inner)
        adapted = member.update(member.model.loss, run.params, task.support, loop)
    labels = predict(member.model, adapted, task.query.tokens).numpy()
    expected = task.label_scale.to_scores(labels)
    np.testing.assert_array_equal(start.adapt(task.support).predict(task.query), expected)


@pytest.fixture
def start(tmp_path):
    saved(tmp_path / "start")
    return loaded(tmp_path / "start")


def test_any_variants_of_the_protein_are_predicted_by_the_support_alone(start):
    task = ten(start)
    encoded, model = task.support.assay, start.adapt(task.support)
    whole = model.predict(encoded)
    np.testing.assert_allclose(whole[task.query.rows], model.predict(task.query), rtol=1e-5)
    np.testing.assert_array_equal(model.predict(encoded.assay.variants), whole)
    texts = [str(variant[0]) for variant in encoded.assay.variants]
    np.testing.assert_array_equal(model.predict(texts), whole)
    with pytest.raises(DataError, match="position 999"):
        model.predict(["A999C"])
    # Measured scores of what is predicted are not looked at, nor is a scale of other labels.
    known = np.isin(np.arange(60), task.support.rows)
    lying = replace(encoded.assay, scores=np.where(known, encoded.assay.scores, 99.0))
    again = start.adapt(replace(task.support, assay=start.encode(lying), labels=torch.zeros(10)))
    np.testing.assert_array_equal(again.predict(encoded), whole)
    assert again.label_scale == LabelScale.fit(task.support.scores)


def test_units_follow_the_support_and_few_labels_have_none(start):
    task = ten(start)
    encoded = task.support.assay
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
        assert (model.params is start.params) == (few == 0)


def test_a_support_that_cannot_be_adapted_to_is_refused(start):
    task = ten(start)
    far = replace(start, inner=replace(start.inner, lr=1e30))
    with pytest.raises(DataError, match=r"10 labels of assay TOY5 did not stay finite; lower"):
        far.adapt(task.support)
    with pytest.raises(DataError, match=r"written as 'mutant', .* start learned 'separator'"):
        start.adapt(ten(replace(start, encoding="mutant")).support)


def test_the_tiny_encoder_is_made_again_of_its_seed(tmp_path):
    saved(tmp_path / "start", Predictor(tiny_encoder(seed=3)))
    start = load_start(tmp_path / "start", device="cpu")
    assert start.predictor.encoder.sha256 == tiny_encoder(seed=3).sha256


def test_an_encoder_of_files_is_known_by_its_hash_and_never_by_its_place(tmp_path):
    folder, file = write_esm(tmp_path / "model"), tmp_path / "start"
    encoder = load_encoder(str(folder), max_tokens=40)
    saved(file, Predictor(encoder, hidden=(4,)))
    assert str(tmp_path).encode() not in file.read_bytes()
    start = load_start(file, encoder=str(folder), device="cpu")
    assert start.predictor.encoder.max_tokens == 40
    vocabulary = replace(encoder.vocabulary, separator="<unk>")
    for other, told in (
        (None, "from files of its own; give their directory as encoder"),
        (tiny_encoder(max_tokens=40), r"with sha256 .*, not tiny with"),
        (load_encoder(str(folder), max_tokens=39), "with max_tokens 40, not"),
        (replace(encoder, vocabulary=vocabulary), "with separator <eos>, not model with <unk>"),
    ):
        with pytest.raises(DataError, match=told):
            load_start(file, encoder=other)


def test_what_is_no_start_is_refused_in_one_sentence(tmp_path):
    file, other = tmp_path / "start", tmp_path / "other"
    run = saved(file)
    tensors, meta = store.load(file)
    more = tensors | {"rate.head.0.bias": torch.zeros(16)}
    less = {name: value for name, value in tensors.items() if name != "head.0.weight"}
    narrow = meta["predictor"] | {"hidden": [16, 9]}
    for told, held, about in (
        ("head.0.weight is not that of maml on tiny", less, meta),
        ("rate.head.0.bias is not that", more, meta),
        ("parameter head.[12].* is not", tensors, meta | {"predictor": narrow}),
        ("version of mutmeta does not know protonet", tensors, meta | {"algorithm": "protonet"}),
        ("version of mutmeta does not know maml or emoji", tensors, meta | {"encoding": "emoji"}),
        (r"no meta-trained start \(it does not tell algorithm\)", tensors, {}),
    ):
        store.save(other, held, about)
        with pytest.raises(DataError, match=told) as error:
            loaded(other)
        assert str(other) in str(error.value)
    frozen, _ = freeze(PREDICTOR, toy_encoded(1), None)
    with pytest.raises(DataError, match="over a frozen encoder cannot stand alone"):
        save_start(file, run, frozen, "separator", {})
