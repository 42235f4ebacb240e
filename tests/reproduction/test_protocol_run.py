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
from mutmeta_lib.reproduction.released import read_release
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


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return toy_release(tmp_path_factory.mktemp("given"))


@pytest.fixture(scope="module")
def trial(copy):
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
    capped, again = protocol.cap_rows(parts, 20), protocol.cap_rows(parts, 20)
    for name, part in capped.items():  # a cap touches what is trained on and nothing else
        assert len(part) == (len(parts[name]) if name.endswith(" test") else 20)
        assert part.equals(again[name])


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
    frozen, trained = (
        protocol.encode_protocol(parts, encoding, ENCODER, frozen=frozen, cache_dir=str(tmp_path))
        for frozen in (True, False)
    )
    assert max(run_texts) <= 30
    for name, rows in frozen.items():
        direct = embed(ENCODER, trained[name].tokens, "cls")
        np.testing.assert_allclose(rows.tokens.hidden, direct, atol=1e-5)
        assert rows.labels.tolist() == pytest.approx(parts[name]["label"])
    if encoding == "unknown_text":  # where all variants of a protein are one text
        assert sum(run_texts) < 5


@given(n=st.integers(2, 60), draw=st.integers(0, 99), data=st.data())
def test_support_rows_are_never_query_rows(n, draw, data):
    size = data.draw(st.integers(1, n // 2))
    support, query = run.draw_rows(n, "a", size, draw)
    assert len({*support, *query}) == 2 * size
    assert {*support, *query} <= set(range(n))
    others = [run.draw_rows(1000, *at)[0][0] for at in (("a", 1, 0), ("a", 1, 1), ("b", 1, 0))]
    assert len(set(others)) == 3
    with pytest.raises(DataError, match=f"{n} rows do not hold {n} support"):
        run.draw_rows(n, "a", n, draw)


def test_rows_are_picked_by_their_number_in_all_parts(trial):
    parts = trial.others(DTM)[0]
    labels = torch.cat([part.labels for part in parts])
    order = np.array([len(labels) - 1, 3, len(parts[0]), 0])
    assert sorted(run.pick(parts, order).labels.tolist()) == sorted(labels[order].tolist())
    held, others = trial.parts(DTM), [part for parts in trial.others(DTM) for part in parts]
    assert not {id(part) for part in held} & {id(part) for part in others}


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


def test_one_cycle_learns_drops_rows_out_and_leaves_its_start_alone(trial):
    rows = trial.data["binding_affinity train"]
    rows, before = run.Rows(rows.tokens, rows.labels + 2), flat(START).clone()

    def fit(seed, fit="initial", steps=2, loss=PREDICTOR.loss):
        return run.one_cycle(fit, loss, START, rows, np.random.default_rng(seed), steps)

    dropped = flat(fit(0, loss=trial.loss("x")))
    assert torch.equal(dropped, flat(fit(0, loss=trial.loss("x"))))
    assert not torch.equal(dropped, flat(fit(0)))
    assert not torch.equal(flat(fit(1)), flat(fit(0))), "the order of the rows is drawn"
    assert PREDICTOR.loss(fit(0, steps=60), rows) < 0.5 * PREDICTOR.loss(START, rows)
    assert torch.equal(flat(START), before)
    # 60 rows hold three whole batches of 16.
    tuned = replace(trial, protocol=replace(SMALL, finetune_epochs=2))
    steps = [flat(tuned.fine_tune(PREDICTOR.loss, START, rows, steps=n)) for n in (0, 6, 5)]
    assert torch.equal(steps[0], steps[1])
    assert not torch.equal(steps[0], steps[2])
    with pytest.raises(DataError, match="5 rows do not fill a batch of 16"):
        trial.fine_tune(PREDICTOR.loss, START, rows.take(np.arange(5)))


def test_a_seed_scores_every_method_on_the_same_draws(trial):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    sure = replace(trial, predictor=replace(PREDICTOR, dropout=0.0))  # no chance in adaptation
    found, other, exact = map(run.run_seed, (trial, replace(trial, seed=1), sure))
    assert torch.equal(before, torch.get_rng_state()), "torch's randomness is left alone"

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
    assert errors(found, "released") != errors(other, "released")
    start = sure.initial_fit()
    for method, steps in (("initial", 0), ("initial_adapted", SMALL.inner_steps)):
        expected, loop = [], replace(sure.inner, steps=steps)
        for support, query in drawn:
            moved = inner_update(PREDICTOR.loss, start, test.take(support), loop)
            expected.append(np.mean((labels[query] - sure.predict(moved, test)[query]) ** 2))
        assert errors(exact, method) == pytest.approx(expected, rel=1e-4)
    assert errors(exact, "initial_adapted") != errors(exact, "initial")
    phases = {row["phase"] for row in found["seconds"] if row["seconds"] > 0}
    fits = {"initial", "finetuned", "finetuned_slow", "adapt_3"}
    assert phases == fits | {f"{arm}_3" for arm in run.ARMS}


def test_equal_steps_are_as_many_gradients_as_meta_training_takes(trial):
    taken = {(row["rows"], row["method"]): row["gradients"] for row in run.run_times(trial)}
    assert taken[20, "steps"] == taken[20, "meta"] == taken[40, "meta"] == 1 * 2 * 2
    assert taken[40, "epochs"] == 2 * taken[20, "epochs"] == 2
