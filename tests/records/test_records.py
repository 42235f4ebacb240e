"""Records: what is written is what is read, changes are noticed, questions have stable names."""

import json
import re
from dataclasses import FrozenInstanceError, replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutmeta_lib.errors import DataError
from mutmeta_lib.records import record as module
from mutmeta_lib.records.record import (
    Record,
    describe,
    name_record,
    number,
    read_record,
    recorded_parameters,
    result,
    write_record,
)

BASE = {
    "experiment": "few_shot",
    "profile": "quick",
    "parameters": {"shots": (0, 1, 5), "seeds": 2, "device": "cpu"},
    "data": {"GB1": "ab" * 32},
    "encoder": {"name": "tiny", "sha256": "cd" * 32},
    "environment": {"device": "CPU, some processor", "threads": 2},
    "seconds": {"adapt": 1.5},
    "peak_memory_mb": 312.5,
    "created": "2026-11-23T10:00:00+00:00",
    "numbers": {"maml_5_spearman": number(0.1 + 0.2, 0.2, 0.4, 24)},
    "tables": {"results": pd.DataFrame({"method": ["maml", "mean"], "mse": [np.nan, 1 / 3]})},
}


def make(**changes) -> Record:
    return Record(**{**BASE, **changes})


def test_round_trip_is_exact(tmp_path):
    record = make()
    write_record(record, tmp_path / "new" / "r.json")
    found = read_record(tmp_path / "new" / "r.json")
    assert found == record
    assert found.hash == record.hash
    assert found.numbers["maml_5_spearman"]["value"] == 0.1 + 0.2


def test_table_comes_back_as_a_frame(tmp_path):
    frame = pd.DataFrame(
        {"method": ["maml", "mean"], "shots": [0, 5], "mse": [np.nan, 1 / 3], "low": [np.nan] * 2}
    )
    write_record(make(tables={"results": frame}), tmp_path / "r.json")
    found = read_record(tmp_path / "r.json").table("results")
    pd.testing.assert_frame_equal(found, frame)
    with pytest.raises(KeyError, match="results"):
        make().table("resluts")


def test_no_nan_is_written(tmp_path):
    write_record(make(peak_memory_mb=float("nan")), tmp_path / "r.json")
    text = (tmp_path / "r.json").read_text()
    json.loads(text, parse_constant=pytest.fail)
    assert '"peak_memory_mb": null' in text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.30000000000000004", "0.9"),
        ('"n": 24', '"n": 240'),
        ("0.3333333333333333", "0.5"),
        ("2026-11-23", "2026-11-24"),
        ("some processor", "a faster processor"),
        ('"seeds": 2', '"seeds": 20'),
        ('"profile": "quick"', '"profile": "full"'),
        ("ab" * 32, "ba" * 32),
    ],
)
def test_a_changed_file_is_noticed(tmp_path, old, new):
    path = tmp_path / "r.json"
    write_record(make(), path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=r"r\.json: the content was changed"):
        read_record(path)


def test_a_changed_hash_is_noticed(tmp_path):
    path = tmp_path / "r.json"
    write_record(make(), path)
    path.write_text(path.read_text().replace(make().hash, "0" * 12))
    with pytest.raises(DataError, match="stored hash"):
        read_record(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{\n "a": 1,\n', "row 3"),
        (b"[1]", "missing or unknown"),
        (b'{"experiment": "a"}', "parameters"),
        (b"", "row 1"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_what_is_not_a_record_is_refused(tmp_path, content, said):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_record(tmp_path / "r.json")
    assert caught.value.file == str(tmp_path / "r.json")


def test_an_unknown_entry_is_named(tmp_path):
    path = tmp_path / "r.json"
    write_record(make(), path)
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "remark": "hello"}))
    with pytest.raises(DataError, match="remark"):
        read_record(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.json: there is no such record"):
        read_record(tmp_path / "nowhere.json")


def test_a_failed_write_leaves_the_old_record_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    write_record(make(), path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(module.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_record(make(profile="full"), path)
    assert read_record(path) == make()
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]


HASHED = {
    "experiment": "timing",
    "parameters": {"shots": (0, 1, 5), "seeds": 3, "device": "cpu"},
    "data": {"GB1": "ee" * 32},
    "encoder": {"name": "tiny", "sha256": "ff" * 32},
}
NOT_HASHED = {
    "profile": "full",
    "environment": {"device": "another"},
    "seconds": {"adapt": 9.0},
    "peak_memory_mb": 1.0,
    "created": "2027-01-01T00:00:00+00:00",
    "numbers": {},
    "tables": {},
}


@pytest.mark.parametrize("field", HASHED)
def test_hash_depends_on_the_question(field):
    assert make(**{field: HASHED[field]}).hash != make().hash


@pytest.mark.parametrize("field", NOT_HASHED)
def test_hash_does_not_depend_on_machine_time_or_result(field):
    assert make(**{field: NOT_HASHED[field]}).hash == make().hash


def test_every_field_is_either_hashed_or_not():
    assert set(HASHED) | set(NOT_HASHED) == set(BASE)


def test_hash_is_short_hexadecimal_and_known():
    # A literal: a change of the rule would orphan every committed record.
    assert re.fullmatch("[0-9a-f]{12}", make().hash)
    assert make().hash == "7630e283e7cd"


@pytest.mark.parametrize(("field", "value"), [*HASHED.items(), *NOT_HASHED.items()])
def test_the_digest_depends_on_everything(field, value):
    assert make(**{field: value}).digest != make().digest


def test_the_digest_is_the_beginning_of_what_the_file_states(tmp_path):
    record = make()
    write_record(record, tmp_path / "r.json")
    stored = json.loads((tmp_path / "r.json").read_text())
    assert stored["content_sha256"].startswith(record.digest)
    assert re.fullmatch("[0-9a-f]{12}", record.digest)
    assert name_record(read_record(tmp_path / "r.json")) == f"few_shot@quick {record.digest}"


@given(st.permutations(list(BASE["parameters"].items())))
def test_hash_does_not_depend_on_the_order_of_parameters(items):
    assert make(parameters=dict(items)).hash == make().hash


def test_a_record_keeps_its_own_copy():
    shots = [0, 1]
    record = make(parameters={"shots": shots})
    shots.append(5)
    assert record.parameters == {"shots": [0, 1]}
    with pytest.raises(FrozenInstanceError):
        record.profile = "full"


def test_created_must_be_a_date():
    with pytest.raises(DataError, match="yesterday"):
        make(created="yesterday")


def test_an_interval_upside_down_is_refused():
    with pytest.raises(ValueError, match="upside down"):
        number(0.5, 0.6, 0.4)


class Experiment:
    """Counts its runs; a stand-in for the real ones."""

    def __init__(self):
        self.runs = 0

    def __call__(self, *, shots=(0, 1), seeds=2, profile="full", progress=None) -> Record:
        arguments = {name: value for name, value in locals().items() if name != "self"}
        self.runs += 1
        return make(parameters=recorded_parameters(arguments), profile=profile)


def test_result_loads_what_was_asked_before(tmp_path):
    experiment, path = Experiment(), tmp_path / "r.json"
    first, loaded = result(experiment, {"seeds": 3}, path, recompute=False)
    assert not loaded
    again, loaded = result(experiment, {"seeds": 3}, path, recompute=False)
    assert loaded
    assert again == first
    assert experiment.runs == 1


@pytest.mark.parametrize(
    ("asked", "loaded"),
    [
        ({}, True),
        ({"seeds": 2}, True),
        ({"shots": [0, 1]}, True),
        ({"profile": "quick", "progress": print}, True),
        ({"seeds": 3}, False),
        ({"shots": [0, 1, 5]}, False),
    ],
)
def test_result_compares_parameters_completed_with_defaults(tmp_path, asked, loaded):
    experiment, path = Experiment(), tmp_path / "r.json"
    result(experiment, {}, path, recompute=False)
    assert result(experiment, asked, path, recompute=False)[1] is loaded
    assert experiment.runs == (1 if loaded else 2)
    assert read_record(path).parameters["seeds"] == asked.get("seeds", 2)


def test_recorded_parameters_name_no_place_of_one_machine():
    given = {"data_dir": "/home/ada/data/mine", "encoder": "/models/esm2/", "shots": (0, 1)}
    assert recorded_parameters({**given, "progress": print, "workers": 4}) == {
        "data_dir": "mine",
        "encoder": "esm2",
        "shots": [0, 1],
    }


def test_recompute_computes(tmp_path):
    experiment, path = Experiment(), tmp_path / "r.json"
    for _ in range(2):
        assert result(experiment, {}, path, recompute=True)[1] is False
    assert experiment.runs == 2


def test_a_damaged_record_stops_rather_than_being_replaced(tmp_path):
    path = tmp_path / "r.json"
    path.write_text("{}")
    with pytest.raises(DataError):
        result(Experiment(), {}, path, recompute=False)
    assert path.read_text() == "{}"


def test_result_refuses_an_unknown_parameter(tmp_path):
    experiment, path = Experiment(), tmp_path / "r.json"
    result(experiment, {}, path, recompute=False)
    with pytest.raises(TypeError, match="sedes"):
        result(experiment, {"sedes": 3}, path, recompute=False)


def test_describe_is_one_sentence_with_date_device_and_duration():
    assert describe(make(), loaded=True) == (
        f"Record few_shot@quick {make().digest}: loaded; "
        "computed on 2026-11-23 on CPU, some processor (2 threads) in 1.5 s."
    )
    bare = replace(make(), environment={})
    assert describe(bare, loaded=False) == (
        f"Record few_shot@quick {bare.digest}: computed just now on an unknown device in 1.5 s."
    )


def test_result_takes_a_partial_but_no_function_without_a_signature(tmp_path):
    experiment, path = Experiment(), tmp_path / "r.json"
    result(experiment, {"seeds": 3}, path, recompute=False)
    shown = partial(experiment, profile="quick", progress=print)
    assert result(shown, {"seeds": 3}, path, recompute=False)[1] is True
    with pytest.raises(TypeError, match=r"functools\.partial"):
        result(lambda **given: experiment(**given), {"seeds": 3}, path, recompute=True)
