"""The protocol of the public code: one seed's data, phases and draws; its estimates; its record."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from release_copy import OTHER, WILD, named_on_pages, toy_release

from mutmeta_lib.data.variants import parse_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop, inner_update, meta_gradient
from mutmeta_lib.models.embed import embed
from mutmeta_lib.models.encoder import tiny_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.reproduction import protocol
from mutmeta_lib.reproduction import protocol_estimates as estimates
from mutmeta_lib.reproduction import protocol_run as run
from mutmeta_lib.reproduction.released import read_release
from mutmeta_lib.tasks.encodings import encode

ENCODER = tiny_encoder(width=16, layers=1, heads=2)
PREDICTOR = Predictor(ENCODER, "cls", hidden=(8,))
START = PREDICTOR.init(torch.Generator().manual_seed(0))
LOOP = InnerLoop(lr=0.3, steps=3)
SMALL = run.Protocol(
    frozen=False, finetune_epochs=1, maml_epochs=1, inner_steps=1, seeds=2, time_seeds=1, sizes=[3],
    draws=2, initial_epochs=1, time_rows=[20, 40],
)  # fmt: skip
ARMS, TARGETS = run.ARMS, protocol.TARGETS
_, DTM, SOLUBILITY = TARGETS
FACTORS = {"initial": 1, "finetuned": 1, "initial_adapted": 2, "mean": 4, "finetuned_slow": 3}


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
    assert tuple(run.targets(parts)) == TARGETS
    assert told == [[SOLUBILITY], hashes]
    assert found["initial"] == labels["combined_ddG_train"] + labels["combined_ddG_test"]
    assert found[f"{DTM} test"] == labels[f"{DTM}_test"]
    split = [found[f"{SOLUBILITY} {part}"] for part in ("train", "test")]
    assert [len(part) for part in split] == [48, 12]
    assert sorted(split[0] + split[1]) == sorted(labels[f"{SOLUBILITY}_test"])
    # A cap touches what is trained on and nothing else.
    for name, part in protocol.cap_rows(parts, 20).items():
        assert len(part) == (len(parts[name]) if name.endswith(" test") else 20)
        assert part.equals(protocol.cap_rows(parts, 20)[name])


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
    parts, *_ = protocol.read_protocol(copy)
    frozen, trained = (
        protocol.encode_protocol(parts, encoding, ENCODER, frozen=frozen, cache_dir=str(tmp_path))
        for frozen in (True, False)
    )
    for name, rows in frozen.items():
        direct = embed(ENCODER, trained[name].tokens, "cls")
        np.testing.assert_allclose(rows.tokens.hidden, direct, atol=1e-5)
        assert rows.labels.tolist() == pytest.approx(parts[name]["label"])


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
    found = {arm: flat(run.meta_step(arm, PREDICTOR.loss, START, *pair, LOOP)) for arm in ARMS}
    joint = replace(LOOP, steps=0)  # as released: joint training on the query rows
    for arm, loop in zip(ARMS, (joint, replace(LOOP, first_order=True), LOOP), strict=True):
        expected = flat(meta_gradient(PREDICTOR.loss, START, [pair], loop)[1])
        torch.testing.assert_close(found[arm], expected)
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
    sure = replace(trial, predictor=replace(PREDICTOR, dropout=0.0))  # no chance in adaptation
    found, other, exact = map(run.run_seed, (trial, replace(trial, seed=1), sure))

    def errors(made, method, size=3):
        table = pd.DataFrame(made["scores"]).query("target == @DTM and size == @size")
        return table[table["method"] == method]["mse"].tolist()

    fixed = {"initial", "finetuned", "finetuned_slow", "mean"}
    methods = {row["method"] for row in found["scores"]}
    assert methods == fixed | {"initial_adapted", *ARMS}
    assert {m for m in methods if errors(found, m, size=0)} == fixed
    test = trial.data[f"{DTM} test"]
    labels = test.labels.numpy()
    drawn = [run.draw_rows(len(test), DTM, 3, draw) for draw in range(SMALL.draws)]
    mean = [np.mean((labels[query] - labels[support].mean()) ** 2) for support, query in drawn]
    assert errors(found, "mean") == errors(other, "mean") == pytest.approx(mean, rel=1e-5)
    assert errors(found, "released") != errors(other, "released")
    start = sure.initial_fit()
    for method, steps in (("initial", 0), ("initial_adapted", SMALL.inner_steps)):
        loop = replace(sure.inner, steps=steps)
        for (support, query), error in zip(drawn, errors(exact, method), strict=True):
            moved = inner_update(PREDICTOR.loss, start, test.take(support), loop)
            expected = np.mean((labels[query] - sure.predict(moved, test)[query]) ** 2)
            assert error == pytest.approx(expected, rel=1e-4)
    phases = {row["phase"] for row in found["seconds"] if row["seconds"] > 0}
    assert phases == fixed - {"mean"} | {"adapt_3", *(f"{arm}_3" for arm in ARMS)}


def test_equal_steps_are_as_many_gradients_as_meta_training_takes(trial):
    taken = {(row["rows"], row["method"]): row["gradients"] for row in run.run_times(trial)}
    assert taken[20, "steps"] == taken[20, "meta"] == taken[40, "meta"] == 1 * 2 * 2
    assert taken[40, "epochs"] == 2 * taken[20, "epochs"] == 2


def scores(encodings=("separator", "unknown_text"), sizes=(16,), draws=30):
    """Errors that halve with the separator, halve with any arm, and fall by a fifth with both."""
    rows = []
    for encoding, seed, size in product(encodings, range(3), (0, *sizes)):
        separator, rng = encoding == "separator", np.random.default_rng((seed, size))
        factors = FACTORS | dict.fromkeys(ARMS, 0.4 if separator else 0.5)
        base = rng.lognormal(size=draws) if size else [10.0]
        rows += [
            {"encoder": "tiny", "encoding": encoding, "target": "fireprot_dTm", "seed": seed,
             "size": size, "draw": draw, "method": method,
             "mse": factor * (0.5 if separator else 1) * error,
             "spearman": (0.4 if separator else 0.1) / factor}
            for method, factor in factors.items() for draw, error in enumerate(base)
        ]  # fmt: skip
    return pd.DataFrame(rows)


def test_gains_average_errors_over_seeds_and_ratios_geometrically_over_draws():
    values, other = np.array([[1.0, 8.0], [3.0, 8.0]]), np.ones((2, 1))
    found = estimates.gain([(1, values), (-1, other)])
    assert found["gain"] == pytest.approx(100 * (1 - np.sqrt(2.0 * 8.0)))
    a, b = np.random.default_rng(0).lognormal(size=(2, 5, 40))
    ratio = [(1, 0.6 * a), (-1, a), (-1, 0.8 * b), (1, b)]
    for terms, exact in (([(1, 0.71 * a), (-1, a)], 29), (ratio, 25)):
        assert list(estimates.gain(terms).values()) == pytest.approx([exact] * 3)
    undefined = np.array([[0.5, np.nan], [0.5, 0.9]])
    assert list(estimates.rank_difference(undefined).values()) == pytest.approx([0.5] * 3)


def test_each_comparison_takes_its_own_method_and_rows():
    table = scores(["unknown_text"], sizes=(8, 16))
    made = estimates.gain_tables(table)
    gains = made["gains"].query("method == 'released' and size == 16").set_index("against")
    expected = {"same_rows": 50, "same_labels": 75, "mean": 87.5, "same_rows_slow": 100 * 5 / 6}
    for against, gain in expected.items():
        assert gains.loc[against, "gain"] == pytest.approx(gain)
        assert gains.loc[against, ["over_0", "over_29", "over_94"]].tolist() == [100, 100, 0]
    assert gains.loc["same_rows", "spearman"] == pytest.approx(0.1 / 0.5 - 0.1)
    drawn = table.query("method == 'released' and size == 16")
    single = drawn.pivot(index="seed", columns="draw", values="mse").to_numpy() / 10
    reported = gains.loc["reported", ["first", "over_94", "q50", "seeds", "draws"]].tolist()
    first, median = (100 * (1 - x) for x in (single[0, 0], np.median(single)))
    assert reported == pytest.approx([first, 100 * np.mean(single <= 0.06), median, 3, 30])


def test_the_first_encoding_is_set_against_the_other():
    made = estimates.contrast_tables(scores())
    encodings = made["encodings"].set_index("method")
    assert set(encodings.index) == set(estimates.LEARNERS)
    assert encodings["gain"][["finetuned", "released"]].tolist() == pytest.approx([50, 60])
    assert encodings["spearman"]["initial"] == pytest.approx(0.3)
    shares = made["shares"].query("base == 'finetuned'")
    shares = shares.pivot(index="method", columns="part", values="gain")
    parts = {"encoding": 50, "meta": 50, "interaction": 20, "both": 80}
    assert shares.loc["second_order"].to_dict() == pytest.approx(parts)
    assert all(table.empty for table in estimates.contrast_tables(scores(["mutant"])).values())


def test_means_are_over_draws_and_seeds_and_every_number_of_the_pages_is_there():
    asked = [("esm2", scores(sizes=(8, 16, 32), draws=3)), ("tiny", scores(["separator"], draws=3))]
    parts = [made.assign(encoder=e, target=target) for target in TARGETS for e, made in asked]
    table = pd.concat(parts, ignore_index=True)
    table.loc[table["size"] == 0, "mse"] += table["seed"]
    spent = [("finetuned", 4.0), *((f"{arm}_16", 1.0) for arm in ARMS)]
    seconds = [{"phase": p, "seconds": s + seed, "seed": seed} for p, s in spent for seed in (0, 1)]
    places = table[estimates.WHERE].drop_duplicates()
    tables = estimates.mean_tables(table, places.merge(pd.DataFrame(seconds), how="cross"))
    one = "encoder == 'tiny' and target == @DTM and method == 'finetuned'"
    errors, own = tables["errors"].query(one), table.query(one + " and size == 16")["mse"]
    assert errors[["mse", "median_mse"]].to_numpy().tolist() == [[own.mean(), own.median()]]
    whole = tables["whole"].query(one)[["mse", "least", "most"]]
    assert whole.to_numpy().tolist() == [[6.0, 5.0, 7.0]]
    assert tables["seconds"].iloc[0][["seconds", "least", "most"]].tolist() == [4.5, 4.0, 5.0]
    tables |= estimates.gain_tables(table) | estimates.contrast_tables(table)
    made = estimates.protocol_numbers(tables | {"texts": places.assign(texts=1, rows=2)})
    assert named_on_pages("protocol") <= set(made)
    saved = made["tiny_separator_dTm_released_time"]["value"]
    assert saved == pytest.approx(100 * (1 - 1.5 / 4.5))


def test_a_record_of_both_encoders_and_a_resumed_run(copy, tmp_path, monkeypatch):
    weights, run_seed = set(), protocol.run_seed

    def watched(trial):
        weights.add((trial.protocol.name, trial.predictor.encoder.sha256))
        return run_seed(trial)

    monkeypatch.setattr(protocol, "run_seed", watched)
    how = {"cache_dir": str(tmp_path / "cache"), "checkpoint_dir": str(tmp_path / "kept")}
    both = replace(SMALL, time_rows=[20], frozen=True, encodings=["separator", "unknown_text"])
    tiny = replace(SMALL, time_rows=[20], sizes=[4], most_rows=40, max_tokens=32)
    record = protocol.protocol_experiment(str(copy), both, tiny, **how)
    assert sum(name == "tiny" for name, _ in weights) == 2, "weights are the seed's"
    assert set(record.data) == set(protocol.read_protocol(copy)[2])
    ran = record.table("gains").groupby(["encoder", "encoding"])["target"].nunique()
    expected = [("frozen_tiny", written) for written in ("separator", "unknown_text")]
    assert ran.to_dict() == dict.fromkeys([*expected, ("tiny", "separator")], 3)
    rows = record.table("rows").set_index("part")
    assert rows[rows["resplit"]].index.str.split().str[0].unique().tolist() == [SOLUBILITY]
    assert rows.loc["initial", ["rows", "frozen_tiny", "tiny"]].tolist() == [120, 120, 40]
    texts = record.table("texts").set_index(["encoder", "target", "encoding"])["texts"]
    assert texts["frozen_tiny", DTM, "unknown_text"] == 1
    assert texts["tiny", DTM, "separator"] > 10
    # Kept parts are not computed again.
    for computed in ("run_seed", "encode_protocol"):
        monkeypatch.setattr(protocol, computed, None)
    one = replace(both, encodings=["unknown_text"], seeds=1)
    fewer = protocol.protocol_experiment(str(copy), one, **how)
    assert set(fewer.table("gains")["seeds"]) == {1}
