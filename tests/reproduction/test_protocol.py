import numpy as np
import pytest
import torch
from toy_protocol import toy_release

from mutmeta_lib.app.experiments import EXPERIMENTS
from mutmeta_lib.errors import DataError
from mutmeta_lib.learn import InnerLoop
from mutmeta_lib.models.encoders import tiny_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.records.record import read_record, write_record
from mutmeta_lib.reproduction.protocol import _short, protocol_experiment
from mutmeta_lib.reproduction.protocol_data import TARGETS, encode_protocol, read_protocol
from mutmeta_lib.reproduction.protocol_run import Setting, draw_rows, run_seed
from mutmeta_lib.reproduction.protocol_time import run_times

SMALL = Setting(
    initial_epochs=1,
    finetune_epochs=1,
    maml_epochs=1,
    inner=InnerLoop(0.01, 1),
    sizes=(3,),
    draws=2,
)
ASKED = {
    "sizes": [3],
    "draws": 2,
    "seeds": 2,
    "initial_epochs": 1,
    "finetune_epochs": 1,
    "maml_epochs": 1,
    "inner_steps": 1,
    "time_rows": [20],
    "time_seeds": 1,
    "tiny_sizes": [3],
    "tiny_draws": 2,
    "tiny_rows": 40,
    "tiny_max_tokens": 32,
    "tiny_initial_epochs": 1,
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return toy_release(tmp_path_factory.mktemp("given") / "copy")


@pytest.fixture(scope="module")
def data(copy):
    encoder = tiny_encoder(width=16, layers=1, heads=2)
    return encode_protocol(read_protocol(copy), "separator", encoder, frozen=False)


def predictor():
    return Predictor(tiny_encoder(width=16, layers=1, heads=2), "cls", hidden=(8,))


def errors(result, target="fireprot_dTm"):
    return result["targets"][target]["draws"]["3"]


def test_the_same_seed_gives_the_same_errors(data):
    first, again, other = (run_seed(predictor(), data, SMALL, seed) for seed in (0, 0, 1))
    assert errors(first) == errors(again)
    assert errors(first)["released"] != errors(other)["released"]
    assert errors(first)["mean"] == errors(other)["mean"], "the draws are those of all seeds"


def test_draws_are_fixed_and_their_support_is_not_queried():
    for draw in range(20):
        support, query = draw_rows(50, "fireprot_dTm", 16, draw)
        assert len(support) == len(query) == 16
        assert not set(support) & set(query)
    assert draw_rows(50, "a", 16, 0)[0].tolist() == draw_rows(50, "a", 16, 0)[0].tolist()
    assert draw_rows(50, "a", 16, 0)[0].tolist() != draw_rows(50, "a", 16, 1)[0].tolist()


def test_the_mean_is_that_of_the_support_labels(data):
    found = errors(run_seed(predictor(), data, SMALL, 0))["mean"]
    test = data.test["fireprot_dTm"]
    labels = test.labels.numpy()
    for draw in range(SMALL.draws):
        support, query = draw_rows(len(test), "fireprot_dTm", 3, draw)
        expected = np.mean((labels[query] - labels[support].mean()) ** 2)
        assert found["mse"][draw] == pytest.approx(expected, rel=1e-5)


def test_fine_tuning_does_not_depend_on_the_draw_and_is_scored_on_its_rows(data):
    whole = Setting(**{**vars(SMALL), "sizes": (6,), "draws": 3})
    result = run_seed(predictor(), data, whole, 0)["targets"]["fireprot_dTm"]
    again = run_seed(predictor(), data, SMALL, 0)["targets"]["fireprot_dTm"]
    assert result["whole"] == again["whole"]
    assert len(set(result["draws"]["6"]["finetuned"]["mse"])) == 3


def test_seconds_are_told_for_every_phase(data):
    seconds = run_seed(predictor(), data, SMALL, 0)["targets"]["fireprot_dTm"]["seconds"]
    phases = {"finetuned", "finetuned_slow", "adapt_3"}
    assert set(seconds) == phases | {
        f"{arm}_3" for arm in ("released", "first_order", "second_order")
    }
    assert all(value > 0 for value in seconds.values())


def test_equal_steps_are_as_many_gradients_as_meta_training_takes(data):
    rows = run_times(predictor(), data, SMALL, 0, target="fireprot_dTm", rows=[20, 40], size=3)
    by_way = {(row["rows"], row["method"]): row["gradients"] for row in rows}
    assert by_way[20, "steps"] == by_way[20, "meta"] == by_way[40, "meta"] == 1 * 2 * 2
    assert by_way[40, "epochs"] == 2 * by_way[20, "epochs"]


def test_a_record_of_both_encoders_and_a_resumed_run(copy, tmp_path, monkeypatch):
    told = []
    asked = ASKED | {"encoder": "tiny", "encodings": ["separator", "unknown_text"]}
    asked |= {"checkpoint_dir": str(tmp_path / "kept"), "cache_dir": str(tmp_path / "cache")}
    record = protocol_experiment(release_dir=str(copy), progress=told.append, **asked)
    assert EXPERIMENTS["protocol"] is protocol_experiment
    assert told
    assert record.parameters["release_dir"] == "copy"
    assert set(record.data) == set(read_protocol(copy).sha256)
    write_record(record, tmp_path / "protocol.json")
    assert read_record(tmp_path / "protocol.json") == record
    gains = record.table("gains")
    assert set(gains["target"]) == set(TARGETS)
    assert set(gains["encoder"]) == {"frozen_tiny", "tiny"}
    assert set(gains["encoding"]) == {"separator", "unknown_text"}
    reported = record.numbers["tiny_separator_solubility_released_reported"]
    assert reported["low"] <= reported["value"] <= reported["high"]
    assert record.numbers["tiny_separator_dTm_released_time"]["unit"] == "%"
    both = record.table("encodings")
    assert set(both["encoder"]) == {"frozen_tiny"}, "tiny ran with one encoding"
    assert set(both["size"]) == {3}
    assert set(record.table("shares")["target"]) == set(TARGETS)
    texts = record.table("texts").set_index(["encoder", "target", "encoding"])["texts"]
    assert texts["frozen_tiny", "fireprot_dTm", "unknown_text"] == 1
    assert texts["tiny", "fireprot_dTm", "separator"] > 1
    assert "frozen_tiny_dTm_released_separator_over_unknown_text" in record.numbers
    assert set(record.table("ratios")["against"]) == {"reported"}
    rows = record.table("rows").set_index("part")
    assert rows.loc["soluprotmut_solubility test", "resplit"]
    assert not rows.loc["fireprot_dTm test", "resplit"]

    def broken(*_):
        raise AssertionError("kept parts are not computed again")

    monkeypatch.setattr("mutmeta_lib.reproduction.protocol_runs.run_seed", broken)
    again = protocol_experiment(release_dir=str(copy), **asked)
    assert again.tables == record.tables


def test_the_miniature_runs_on_bundled_data():
    record = protocol_experiment(release_dir="demo", **(ASKED | {"seeds": 1, "time_rows": []}))
    assert record.parameters["release_dir"] == "demo"
    assert len(set(record.table("gains")["target"])) == 3
    assert not len(record.table("times"))
    assert not len(record.table("encodings"))
    assert "bundled" not in record.numbers


def test_no_encoder_at_all_is_refused(copy):
    with pytest.raises(DataError, match="there is no encoder to run"):
        protocol_experiment(release_dir=str(copy), tiny_encodings=[])


def test_encoders_are_named_by_letters_and_digits():
    assert _short("ESM-2 t6 8M") == "esm2"


def test_torch_randomness_is_left_alone(data):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    run_seed(predictor(), data, SMALL, 0)
    assert torch.equal(before, torch.get_rng_state())
