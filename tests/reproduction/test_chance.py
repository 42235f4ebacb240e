"""How often a figure is reported by chance: re-splits, draws, the bill of rows, and the record."""

import re
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from release_copy import named_on_pages, toy_release

from mutmeta_lib.models.encoder import tiny_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.reproduction import chance, protocol
from mutmeta_lib.reproduction import protocol_run as run

ENCODER = tiny_encoder(width=16, layers=1, heads=2)
PREDICTOR = Predictor(ENCODER, "cls", start=None, hidden=(8,))
SOLUBILITY, BINDING = "soluprotmut_solubility", "binding_affinity"
OWN = run.Protocol(sizes=[3, 5], draws=4, seeds=2, initial_epochs=1, finetune_epochs=2,
                   maml_epochs=2, inner_steps=1, max_tokens=64)  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return toy_release(tmp_path_factory.mktemp("given"))


@pytest.fixture(scope="module")
def data(copy):
    parts, *_ = protocol.read_protocol(copy)
    how = {"frozen": True, "cache_dir": None}
    return protocol.encode_protocol(chance.pooled(parts), "separator", ENCODER, **how)


@pytest.fixture(scope="module")
def trial(data):
    sure = replace(PREDICTOR, dropout=0.0)
    return run.Trial(sure, chance.split_anew(data, 7), OWN, 7)


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_a_re_split_has_every_row_once_and_is_the_seeds(data, seed):
    made = chance.split_anew(data, seed)
    assert run.targets(made) == [name for name in data if name != "initial"]
    for name in run.targets(made):
        train, test = (made[f"{name} {part}"].labels.tolist() for part in ("train", "test"))
        assert Counter(train + test) == Counter(data[name].labels.tolist())
        assert len(test) == round(0.2 * len(data[name]))
        assert chance.split_anew(data, seed)[f"{name} test"].labels.tolist() == test
        assert chance.split_anew(data, seed + 1)[f"{name} test"].labels.tolist() != test


def test_the_file_is_whole_and_in_order_so_that_seed_42_is_the_split_of_the_protocol(copy, data):
    parts, *_ = protocol.read_protocol(copy)
    rows, _ = protocol.read_release(copy)
    for name in run.targets(parts):
        expected = rows[rows["name"] == name]["label"].tolist()
        assert chance.pooled(parts)[name]["label"].tolist() == expected
    again = chance.split_anew(data, 42)[f"{SOLUBILITY} test"]
    assert again.labels.tolist() == pytest.approx(parts[f"{SOLUBILITY} test"]["label"].tolist())


@given(st.lists(st.floats(1e-3, 50), min_size=1, max_size=30))
def test_a_higher_figure_is_rarer_and_the_geometric_gain_flatters(ratios):
    found = chance.told(np.array(ratios))
    assert found["over_94"] <= found["over_29"]
    assert found["gain"] >= found["mean"] - 1e-9
    assert found["q2_5"] <= found["q50"] <= found["q97_5"]
    assert found["draws"] == len(ratios)


@pytest.mark.parametrize(
    ("ratios", "over_29", "over_94", "gain"),
    [([0.7, 0.72], 50, 0, 29.0), ([0.05, 0.05], 100, 100, 95), ([2.0, 0.5], 50, 0, 0)],
)
def test_draws_that_reach_a_figure_are_counted(ratios, over_29, over_94, gain):
    found = chance.told(np.array(ratios))
    assert [found["over_29"], found["over_94"]] == [over_29, over_94]
    assert found["gain"] == pytest.approx(gain, abs=0.01)


def test_the_bill_of_rows_is_what_the_phases_read(trial):
    read = Counter()

    def counted(what, params, rows):
        read[what] += len(rows)
        return trial.predictor.loss(params, rows)

    # Fine-tuning drops the rows that do not fill a batch: 48 of 60 remain, and are whole batches.
    train, others = trial.data[f"{SOLUBILITY} train"], trial.others(SOLUBILITY)
    start = trial.initial_fit()
    trial.fine_tune(partial(counted, "finetune"), start, train)
    for arm in chance.ARMS:
        trial.meta_train(arm, partial(counted, arm), start, others, 5)
        settings = {"finetune_epochs": 2, "maml_epochs": 2, "inner_steps": 1, "sets": 2}
        by_rows = chance.time_saved(len(train), 5, **settings)
        assert by_rows == pytest.approx(100 * (1 - read[arm] / read["finetune"]))


def test_a_re_split_is_scored_by_hand(trial, monkeypatch):
    starts = trial.initial_fit(), replace(trial, seed=8).initial_fit()
    rows = pd.DataFrame(chance.score_split(trial, starts, [SOLUBILITY], 30))
    methods = ["mean", "finetuned", "finetuned_short", "support_mean", *chance.ARMS]
    assert rows.groupby("size")["method"].apply(list).tolist() == [methods] * 2
    drawn = {name: 4 if name in chance.ARMS else 30 for name in methods}
    assert dict(zip(rows["method"], rows["draws"], strict=True)) == drawn
    free = rows["method"].isin(["mean", "support_mean"])
    assert (rows[free]["saved"] == 100).all()
    assert (rows[free][["over_65", "over_55"]] == 100).all(axis=None)

    train, test = (part.labels.numpy() for part in trial.parts(SOLUBILITY))
    tuned = trial.fine_tune(trial.loss(SOLUBILITY), starts[0], trial.parts(SOLUBILITY)[0])
    reference = (trial.predict(tuned, trial.parts(SOLUBILITY)[1]) - test) ** 2
    row = rows.set_index(["size", "method"]).loc[(3, "mean")]
    asked = [run.draw_rows(len(test), f"{SOLUBILITY} 7", 3, draw)[1] for draw in range(30)]
    error = np.array([np.mean((test[query] - train.mean()) ** 2) for query in asked])
    expected = chance.told(error / reference.mean())
    assert row[list(expected)].to_dict() == pytest.approx(expected, rel=1e-4)
    own = np.array([reference[query].mean() for query in asked])
    assert row["same_rows"] == pytest.approx(chance.told(error / own)["gain"], abs=0.01)
    assert row["error"] == pytest.approx(np.mean((test - train.mean()) ** 2), rel=1e-5)

    # The same fine-tuning twice gains nothing on the same rows, and strays as much as reported.
    monkeypatch.setattr(chance, "TWIN", 0)
    same = pd.DataFrame(chance.score_split(trial, (starts[0],) * 2, [SOLUBILITY], 30))
    same = same[same["method"] == "finetuned"]
    assert same["same_rows"].tolist() == pytest.approx([0, 0], abs=1e-4)
    assert (same["q2_5"] < 0).all()
    assert (same["q97_5"] > 0).all()


def test_the_mean_is_set_against_itself_on_the_released_test_part(copy):
    parts, anew, _ = protocol.read_protocol(copy)
    table = chance.released_table(parts, anew, [30], 5)
    assert table["rows"].tolist() == [60, 60, 60]
    flat = {name: rows.assign(label=[-1.0, 1.0] * (len(rows) // 2)) for name, rows in parts.items()}
    level = chance.released_table(flat, anew, [30], 5)
    assert level[["gain", "mean"]].to_numpy() == pytest.approx(0)


def test_a_record_of_a_copy_and_a_resumed_run(copy, tmp_path, monkeypatch):
    how = {"draws": 6, "checkpoint_dir": str(tmp_path)}
    asked = str(copy), replace(OWN, draws=2)
    record = chance.chance_experiment(*asked, splits=2, **how)
    assert set(record.data) == set(protocol.read_protocol(copy)[2])
    splits, over = record.table("splits"), record.table("chances")
    assert set(splits["target"]) == {SOLUBILITY, BINDING}
    assert set(over["metric"]) == set(chance.METRICS)
    for row in over.query("metric == 'over_29'").itertuples():
        own = splits[(splits["target"] == row.target) & (splits["size"] == row.size)]
        own = own[own["method"] == row.method]["over_29"]
        assert row.mean == pytest.approx(own.mean(), abs=1e-4)
        assert own.min() <= row.low <= row.high <= own.max()
    assert record.numbers["binding_mean_saved_at_3"]["value"] == 100
    monkeypatch.setattr(chance, "score_split", None)  # kept parts are not computed again
    fewer = chance.chance_experiment(*asked, splits=1, **how)
    assert set(fewer.table("splits")["split"]) == {0}
    named = {re.sub(r"_at_(8|16|32)$", "_at_3", name) for name in named_on_pages("chance")}
    assert named <= set(record.numbers)
