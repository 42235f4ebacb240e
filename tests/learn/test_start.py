"""A start on the disk can be read, adapts as in memory, or is refused in one sentence."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hf_directories import write_esm
from toy import toy_assay, toy_encoded, toy_predictor, toy_site_assays, toy_site_predictor

from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.learn.algorithms import ALGORITHMS
from mutmeta_lib.learn.methods import joined, members
from mutmeta_lib.learn.ranker import RankerMethod
from mutmeta_lib.learn.start import load_start, save_start
from mutmeta_lib.learn.train import MetaTraining, meta_train
from mutmeta_lib.models import sites
from mutmeta_lib.models.embed import freeze
from mutmeta_lib.models.encoder import load_encoder, tiny_encoder
from mutmeta_lib.models.predictor import Predictor, predict
from mutmeta_lib.records import store
from mutmeta_lib.tasks.tasks import Examples, LabelScale, draw_task, task_generator

PREDICTOR = replace(toy_predictor(), pooling="mean", objective="list_mle")
SITES = {
    "no_encoder": (toy_site_predictor(), None),
    "wild_type_pass": (toy_site_predictor(read="wild_type_pass"), PREDICTOR.encoder),
}
ON_TEXTS = [("separator", name) for name in sorted(set(ALGORITHMS) - {"ranker"})]
ON_SITES = [("no_encoder", name) for name in sorted(ALGORITHMS)] + [("wild_type_pass", "ranker")]


def saved(file, predictor=PREDICTOR, algorithm="maml", scope="head", read="separator"):
    """A run of two meta-steps, kept in the file; of the ranker, two of them."""
    predictor, below = SITES.get(read, (predictor, None))
    assays = (
        toy_encoded(2, predictor=predictor) if read == "separator" else toy_site_assays(2, read)
    )
    inner = InnerLoop(0.05, 2, scope=scope)
    settings = MetaTraining(algorithm, 2, 1, support=4, query=4, inner=inner)
    start = predictor.init(torch.Generator().manual_seed(0))
    runs = [meta_train(predictor, start, assays, settings, seed=seed) for seed in (0, 1)]
    run = runs[0]
    if algorithm == "ranker":
        run = replace(run, params=joined([one.params for one in runs]))
    save_start(file, run, predictor, read, {"TOY0": "abc"}, below)
    return run


def loaded(file, **how):
    return load_start(file, device="cpu", **{"encoder": PREDICTOR.encoder} | how)


def ten(start, assay=None):
    encoded = start.encode(assay or toy_assay(5))
    return draw_task(encoded, 10, task_generator(0, "ten"), pool=10, max_query=12)


@pytest.mark.parametrize(("read", "algorithm"), ON_TEXTS + ON_SITES)
def test_a_start_on_the_disk_predicts_what_it_predicts_in_memory(tmp_path, read, algorithm):
    scope = "head" if algorithm in ("maml", "metasgd") else "all"
    run = saved(tmp_path / "start", algorithm=algorithm, scope=scope, read=read)
    start = loaded(tmp_path / "start", **{"encoder": None} if read == "no_encoder" else {})
    told = (start.algorithm, start.inner, start.encoding, start.origin["seed"])
    assert told == (algorithm, run.settings.inner, read, 0)
    assert start.origin["data"] == {"TOY0": "abc"}
    torch.testing.assert_close(start.params, run.params, rtol=0, atol=0)
    task = ten(start)
    member = ALGORITHMS[algorithm](SITES.get(read, (PREDICTOR,))[0])
    networks = members(run.params) if algorithm == "ranker" else [run.params]
    with torch.no_grad():
        loop = member.loop(run.settings.inner)
        how = member.model.loss, task.support, loop
        adapted = [member.update(how[0], one, *how[1:]) for one in networks]
    labels = [predict(member.model, one, task.query.tokens).numpy() for one in adapted]
    expected = task.label_scale.to_scores(np.mean(labels, axis=0))
    model = start.adapt(task.support)
    np.testing.assert_allclose(model.predict(task.query), expected, rtol=1e-6)
    if algorithm != "ranker":
        with pytest.raises(DataError, match=f"'{algorithm}' does not know how sure it is"):
            model.deviation(task.query)


@pytest.mark.parametrize("read", SITES)
def test_a_ranker_on_the_disk_is_the_method_that_studies_test(tmp_path, read):
    run = saved(tmp_path / "start", algorithm="ranker", read=read)
    start = loaded(tmp_path / "start", **{"encoder": None} if read == "no_encoder" else {})
    ranker = ALGORITHMS["ranker"](SITES[read][0]).model
    for shots in (0, 10):
        task = ten(start)
        support, scale = task.support.take(np.arange(shots)), task.label_scale.scale
        method = RankerMethod("ranker", ranker, members(run.params))
        state = method.adapt(support, torch.Generator())
        model, close = start.adapt(support), {"rtol": 1e-4, "atol": 1e-5}
        labels = model.label_scale.to_labels(model.predict(task.query))
        np.testing.assert_allclose(labels, method.predict(state, task.query), **close)
        wide = method.deviation(state, task.query) * (scale if shots else 1)
        np.testing.assert_allclose(model.deviation(task.query), wide, **close)


def test_one_pass_of_the_wild_type_serves_all_that_is_asked_of_a_protein(tmp_path, monkeypatch):
    saved(tmp_path / "start", algorithm="ranker", read="wild_type_pass")
    start, asked = loaded(tmp_path / "start"), []
    real = sites.hidden_states
    counted = lambda *given: asked.append(given[1]) or real(*given)  # noqa: E731
    monkeypatch.setattr(sites, "hidden_states", counted)
    first, second = toy_assay(5), toy_assay(6)
    for assay in (first, second, first):
        task = ten(start, assay)
        start.adapt(task.support).predict(assay.variants)
    assert asked == [first.wild_type, second.wild_type]


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
        assert (model.networks[0] is start.params) == (few == 0)


def test_a_support_that_cannot_be_adapted_to_is_refused(start):
    task = ten(start)
    far = replace(start, inner=replace(start.inner, lr=1e30))
    with pytest.raises(DataError, match=r"10 labels of assay TOY5 did not stay finite; lower"):
        far.adapt(task.support)
    with pytest.raises(DataError, match=r"written as 'mutant', .* start learned 'separator'"):
        start.adapt(ten(replace(start, encoding="mutant")).support)


@pytest.mark.parametrize("encoder", [tiny_encoder(seed=3), load_encoder("small")])
def test_an_encoder_of_our_own_is_found_again_by_its_name(tmp_path, encoder):
    saved(tmp_path / "start", Predictor(encoder))
    start = load_start(tmp_path / "start", device="cpu")
    assert start.predictor.encoder.sha256 == encoder.sha256


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
        (tiny_encoder(max_tokens=40), "with width 16, not tiny with 64"),
        (load_encoder(str(folder), max_tokens=39), "with max_tokens 40, not"),
        (replace(encoder, vocabulary=vocabulary), "with separator <eos>, not model with <unk>"),
    ):
        with pytest.raises(DataError, match=told):
            load_start(file, encoder=other)


def test_other_weights_of_the_encoders_shape_are_refused_or_told_with_both_hashes(tmp_path):
    file, own, other = tmp_path / "start", PREDICTOR.encoder, toy_predictor(seed=1).encoder
    saved(file, algorithm="ranker", read="wild_type_pass")
    with pytest.raises(DataError, match=rf"{own.sha256}, not .*{other.sha256}; .* strict=False"):
        loaded(file, encoder=other)
    with pytest.warns(UserWarning, match=rf"{own.sha256}, not .*{other.sha256}; what it was"):
        start = loaded(file, encoder=other, strict=False)
    drawn = ten(start)
    asked, none = drawn.query.variants, drawn.support.take(np.arange(0))
    read = [one.adapt(none).predict(asked) for one in (start, loaded(file))]
    assert 0.5 < np.corrcoef(*read)[0, 1] < 1 - 1e-6, "the other weights were not read"
    with pytest.raises(DataError, match="with width 16, not tiny with 64; give that one"):
        loaded(file, encoder=tiny_encoder(), strict=False)
    saved(file, algorithm="ranker", read="no_encoder")
    with pytest.raises(DataError, match="trained without an encoder; leave encoder out"):
        loaded(file)


def test_what_is_no_start_is_refused_in_one_sentence(tmp_path):
    file, other = tmp_path / "start", tmp_path / "other"
    run = saved(file)
    tensors, meta = store.load(file)
    saved(other, algorithm="ranker", read="no_encoder")
    sites, ranker = store.load(other)
    bare = {name: value for name, value in sites.items() if name != "trunk.scale"}
    odd = sites | {"trunk.location": sites["trunk.location"][1:]}
    half = {name: value for name, value in sites.items() if name != "1/head.0.bias"}
    more = tensors | {"rate.head.0.bias": torch.zeros(16)}
    less = {name: value for name, value in tensors.items() if name != "head.0.weight"}
    narrow = meta["predictor"] | {"hidden": [16, 9]}
    for told, held, about in (
        ("head.0.weight is not that of maml on tiny", less, meta),
        ("rate.head.0.bias is not that", more, meta),
        ("parameter head.[12].* is not", tensors, meta | {"predictor": narrow}),
        ("version of mutmeta does not know protonet", tensors, meta | {"algorithm": "protonet"}),
        ("version of mutmeta does not know maml or emoji", tensors, meta | {"encoding": "emoji"}),
        ("trunk.scale is not that of ranker on no_encoder", bare, ranker),
        ("trunk.location is not that of ranker", odd, ranker),
        ("1/head.0.bias is not that of ranker", half, ranker),
        (r"no meta-trained start \(it does not tell algorithm\)", tensors, {}),
    ):
        store.save(other, held, about)
        with pytest.raises(DataError, match=told) as error:
            loaded(other, **{"encoder": None} if about is ranker else {})
        assert str(other) in str(error.value)
    frozen, _ = freeze(PREDICTOR, toy_encoded(1), None)
    with pytest.raises(DataError, match="over a frozen encoder cannot stand alone"):
        save_start(file, run, frozen, "separator", {})
    with pytest.raises(DataError, match="on 'wild_type_pass' is of no use without its encoder"):
        save_start(file, run, SITES["wild_type_pass"][0], "wild_type_pass", {})
