"""One seed of the protocol: its data, its phases, its draws."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from release_copy import OTHER, WILD, toy_release

from mutmeta_lib.data.variants import parse_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop, inner_update, meta_gradient
from mutmeta_lib.models.embed import embed
from mutmeta_lib.models.encoder import tiny_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.reproduction import protocol
from mutmeta_lib.reproduction import protocol_run as run
from mutmeta_lib.reproduction.released import find_table, read_release
from mutmeta_lib.tasks.encodings import encode

ENCODER = tiny_encoder(width=16, layers=1, heads=2)
PREDICTOR = Predictor(ENCODER, "cls", hidden=(8,))
START = PREDICTOR.init(torch.Generator().manual_seed(0))
LOOP = InnerLoop(lr=0.3, steps=3)
SMALL = run.Protocol(
    name="x", encoder="tiny", frozen=False, encodings=["separator"], max_tokens=256, most_rows=0,
    sizes=[3], draws=2, initial_epochs=1, finetune_epochs=1, maml_epochs=1, inner_steps=1, seeds=2,
    time_rows=[20, 40], time_seeds=1,
)  # fmt: skip
DTM, SOLUBILITY = protocol.TARGETS[1:]


@pytest.fixture
def copy(tmp_path):
    return toy_release(tmp_path / "copy")


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    copy = toy_release(tmp_path_factory.mktemp("given") / "copy")
    parts, *_ = protocol.read_protocol(copy)
    data = protocol.encode_protocol(parts, "separator", ENCODER, frozen=False, cache_dir=None)
    return run.Trial(PREDICTOR, data, SMALL, 0)


def flat(params):
    return torch.cat([value.flatten() for value in params.values()])


def test_files_are_read_as_they_are_split_and_a_missing_part_is_made(copy):
    parts, *told = protocol.read_protocol(copy)
    rows, hashes = read_release(copy)
    labels = rows.groupby("table")["label"].apply(list)
    found = {name: part["label"].tolist() for name, part in parts.items()}
    assert tuple(run.targets(parts)) == protocol.TARGETS
    assert told == [[SOLUBILITY], hashes]
    assert found["initial"] == labels["combined_ddG_train"] + labels["combined_ddG_test"]
    assert found[f"{DTM} test"] == labels[f"{DTM}_test"]
    split = [found[f"{SOLUBILITY} {part}"] for part in ("train", "test")]
    assert [len(part) for part in split] == [48, 12]
    assert sorted(split[0] + split[1]) == sorted(labels[f"{SOLUBILITY}_test"])
    find_table(copy, f"{DTM}_test").unlink()
    with pytest.raises(DataError, match="no table 'fireprot_dTm_test'"):
        protocol.read_protocol(copy)


def test_caps_touch_what_is_trained_on_and_nothing_else(copy):
    parts, *_ = protocol.read_protocol(copy)
    capped, again = protocol.cap_rows(parts, 20), protocol.cap_rows(parts, 20)
    for name, part in capped.items():
        assert len(part) == (len(parts[name]) if name.endswith(" test") else 20)
        assert set(part["label"]) <= set(parts[name]["label"])
        assert part.equals(again[name])
    assert protocol.cap_rows(parts, 0) == parts


def test_the_miniature_is_scaled_per_assay_before_the_split():
    parts, resplit, _ = protocol.read_protocol("demo")
    assert resplit == run.targets(parts) == ["Abeta42", "GB1", "TDP"]
    for target in resplit:
        both = pd.concat([parts[f"{target} {part}"] for part in ("train", "test")])
        assert (both["label"].mean(), both["label"].std(ddof=0)) == pytest.approx((0, 1))


def test_rows_of_many_wild_types_are_written_in_their_order():
    texts = [(WILD, "K2R"), (OTHER, "S2A"), (WILD, "WT"), (OTHER, "T3G")]
    rows = pd.DataFrame([(w, parse_variant(v)) for w, v in texts], columns=["wild_type", "variant"])
    batch = protocol.encode_rows(rows, "separator", ENCODER)
    for place, row in enumerate(rows.itertuples()):
        alone = encode("separator", row.wild_type, row.variant, ENCODER.vocabulary, 256)
        assert batch.token_ids[place][batch.mask[place]].tolist() == list(alone.token_ids)


@pytest.mark.parametrize("encoding", ["separator", "unknown_text"])
def test_frozen_vectors_are_those_of_every_row(copy, encoding, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "CHUNK", 30)
    (parts, *_), run_texts = protocol.read_protocol(copy), []

    def counted(encoder, tokens, *how, **more):
        run_texts.append(len(tokens))
        return embed(encoder, tokens, *how, **more)

    monkeypatch.setattr(protocol, "embed", counted)
    how = {"cache_dir": str(tmp_path / "cache")}
    frozen = protocol.encode_protocol(parts, encoding, ENCODER, frozen=True, **how)
    trained = protocol.encode_protocol(parts, encoding, ENCODER, frozen=False, **how)
    assert max(run_texts) <= 30
    for name, rows in frozen.items():
        direct = embed(ENCODER, trained[name].tokens, "cls")
        np.testing.assert_allclose(rows.tokens.hidden, direct, atol=1e-5)
        assert rows.labels.tolist() == pytest.approx(parts[name]["label"])
        some = rows.take(np.array([3, 0]))
        assert some.tokens.hidden.equal(rows.tokens.hidden[[3, 0]])
        assert some.labels.equal(rows.labels[[3, 0]])
    if encoding == "unknown_text":  # where all variants of a protein are one text
        assert sum(run_texts) < 5


@given(n=st.integers(2, 60), draw=st.integers(0, 99), data=st.data())
def test_support_rows_are_never_query_rows(n, draw, data):
    size = data.draw(st.integers(1, n // 2))
    support, query = run.draw_rows(n, "a", size, draw)
    assert len({*support, *query}) == 2 * size
    assert {*support, *query} <= set(range(n))
    np.testing.assert_array_equal(support, run.draw_rows(n, "a", size, draw)[0])
    others = [run.draw_rows(1000, *at)[0][0] for at in (("a", 1, 0), ("a", 1, 1), ("b", 1, 0))]
    assert len(set(others)) == 3
    with pytest.raises(DataError, match=f"{n} rows do not hold {n} support"):
        run.draw_rows(n, "a", n, draw)


def test_rows_are_picked_by_their_number_in_all_parts(trial):
    parts = trial.others(DTM)[0]
    labels = torch.cat([part.labels for part in parts])
    order = np.array([len(labels) - 1, 3, len(parts[0]), 0])
    assert sorted(run.pick(parts, order).labels.tolist()) == sorted(labels[order].tolist())
    assert len(run.pick(parts, order).tokens) == 4
    held = {id(trial.data[f"{DTM} {part}"]) for part in ("train", "test")}
    assert not held & {id(part) for parts in trial.others(DTM) for part in parts}


def test_each_arm_has_its_own_gradient(trial):
    rows, other = trial.data[f"{DTM} train"], trial.data["binding_affinity test"]
    pair = rows.take(np.arange(8)), rows.take(np.arange(8, 20))
    found = {arm: flat(run.meta_step(arm, PREDICTOR.loss, START, *pair, LOOP)) for arm in run.ARMS}
    loops = {
        "released": InnerLoop(0.3, steps=0),  # joint training on the query rows
        "first_order": InnerLoop(0.3, 3, first_order=True),
        "second_order": InnerLoop(0.3, 3),
    }
    for arm, loop in loops.items():
        torch.testing.assert_close(
            found[arm], flat(meta_gradient(PREDICTOR.loss, START, [pair], loop)[1])
        )
        task = other.take(np.arange(8)), pair[1]
        moved = flat(run.meta_step(arm, PREDICTOR.loss, START, *task, LOOP)) - found[arm]
        assert (moved.norm() < 1e-6) == (arm == "released"), "who feels the support rows"
    gap = (found["first_order"] - found["second_order"]).norm()
    assert gap > 1e-3 * found["first_order"].norm()


@pytest.mark.parametrize("arm", run.ARMS)
def test_a_first_meta_step_moves_by_adams_rate_against_the_gradient(trial, arm):
    rows = trial.data[f"{DTM} train"]
    trained = trial.meta_train(arm, PREDICTOR.loss, START, [[rows]], 8)
    rng = trial.rng("meta-training", 8)
    rng.permutation(1)
    drawn = [rows.take(index) for index in run.draw_support_query(len(rows), 8, rng)]
    gradient = flat(run.meta_step(arm, PREDICTOR.loss, START, *drawn, trial.inner))
    moved, large = flat(trained) - flat(START), gradient.abs() > 1e-4
    expected = -run.META_LR * gradient[large].sign()
    torch.testing.assert_close(moved[large], expected, rtol=1e-2, atol=0)


def test_one_cycle_learns_drops_rows_out_and_leaves_its_start_alone(trial):
    rows = trial.data["binding_affinity train"]
    rows, before = run.Rows(rows.tokens, rows.labels + 2), flat(START).clone()

    def fit(seed, fit="initial", steps=2, loss=None):
        loss = loss or replace(trial, seed=seed).loss("x")
        rng = np.random.default_rng(seed)
        return flat(run.one_cycle(fit, loss, START, rows, rng, steps))

    assert torch.equal(fit(0), fit(0))
    assert not torch.equal(fit(0), fit(1))
    assert not torch.equal(fit(0), fit(0, loss=PREDICTOR.loss)), "dropout"
    orders = [fit(seed, loss=PREDICTOR.loss) for seed in (0, 1)]
    assert not torch.equal(*orders), "the order of the rows is drawn"
    fast, slow = ((fit(0, name) - before).norm() for name in ("finetuned", "finetuned_slow"))
    assert fast > 10 * slow
    rng = np.random.default_rng(0)
    fitted = run.one_cycle("initial", PREDICTOR.loss, START, rows, rng, 60)
    assert PREDICTOR.loss(fitted, rows) < 0.5 * PREDICTOR.loss(START, rows)
    assert torch.equal(flat(START), before)
    # 60 rows hold three whole batches of 16.
    tuned = replace(trial, protocol=replace(SMALL, finetune_epochs=2))
    found = [flat(tuned.fine_tune(trial.loss("x"), START, rows, steps=n)) for n in (0, 6, 5)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    with pytest.raises(DataError, match="5 rows do not fill a batch of 16"):
        trial.fine_tune(PREDICTOR.loss, START, rows.take(np.arange(5)))


def test_a_seed_scores_every_method_on_the_same_draws(trial):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    found, again, other = (run.run_seed(replace(trial, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state()), "torch's randomness is left alone"
    assert found["scores"] == again["scores"]

    def errors(made, method, size=3):
        table = pd.DataFrame(made["scores"]).query("target == @DTM and size == @size")
        return table[table["method"] == method]["mse"].tolist()

    methods = {row["method"] for row in found["scores"]}
    fixed = {"initial", "finetuned", "finetuned_slow", "mean"}
    assert methods == fixed | {"initial_adapted", *run.ARMS}
    assert {m for m in methods if errors(found, m, size=0)} == fixed
    test = trial.data[f"{DTM} test"]
    labels = test.labels.numpy()
    drawn = [run.draw_rows(len(test), DTM, 3, draw) for draw in range(SMALL.draws)]
    mean = [np.mean((labels[query] - labels[support].mean()) ** 2) for support, query in drawn]
    assert errors(found, "mean") == errors(other, "mean") == pytest.approx(mean, rel=1e-5)
    sure = replace(trial, predictor=replace(PREDICTOR, dropout=0.0))  # no chance in adaptation
    start, exact = sure.initial_fit(), run.run_seed(sure)
    for method, steps in (("initial", 0), ("initial_adapted", SMALL.inner_steps)):
        expected, loop = [], replace(sure.inner, steps=steps)
        for support, query in drawn:
            moved = inner_update(PREDICTOR.loss, start, test.take(support), loop)
            expected.append(np.mean((labels[query] - sure.predict(moved, test)[query]) ** 2))
        assert errors(exact, method) == pytest.approx(expected, rel=1e-4)
    assert errors(found, "released") != errors(other, "released")
    assert errors(found, "initial_adapted") != errors(found, "initial")
    phases = {row["phase"]: row["seconds"] for row in found["seconds"]}
    fits = {"initial", "finetuned", "finetuned_slow", "adapt_3"}
    assert set(phases) == fits | {f"{arm}_3" for arm in run.ARMS}
    assert all(value > 0 for value in phases.values())


def test_equal_steps_are_as_many_gradients_as_meta_training_takes(trial):
    rows = run.run_times(trial)
    taken = {(row["rows"], row["method"]): row["gradients"] for row in rows}
    assert taken[20, "steps"] == taken[20, "meta"] == taken[40, "meta"] == 1 * 2 * 2
    assert taken[40, "epochs"] == 2 * taken[20, "epochs"] == 2
    assert all(row["seconds"] > 0 and row["mse"] > 0 for row in rows)
