"""The benchmark compares equals, its bars can be missed, and it writes a record."""

import re
import sys

import cases
import pytest
import rank
import run

from mutmeta_lib.records.record import number, read_record


@pytest.mark.learn2learn
@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("hidden", [(8, 4), (8,), (), "encoder"])
def test_both_sides_of_a_case_compute_the_same(tmp_path, hidden, first_order):
    if hidden == "encoder":
        folder = cases.write_esm(tmp_path / "esm", layers=2, width=16, heads=2)
        case = cases.encoder_case(2, first_order, folder, residues=12)
        assert any(name.startswith("encoder.") for name in case.ours())
        assert case.largest_difference() < 1e-3
        return
    case, other = (cases.head_case(2, o, hidden, width=16) for o in (first_order, True))
    assert case.largest_difference() < 1e-4
    if not first_order:
        object.__setattr__(case, "ours", other.ours)
        assert case.largest_difference() > 1e-3, "a difference must be seen"


@pytest.mark.learn2learn
def test_the_ratio_says_how_many_times_we_are_faster(monkeypatch):
    case = cases.head_case(2, False, (8,), width=16)
    monkeypatch.setattr(run, "seconds", lambda one: 3.0 if one == case.theirs else 0.5)
    row = run.time_case(case, rounds=2, rate=1e9)
    speeds = (row["meta_steps_per_s"], row["learn2learn_meta_steps_per_s"])
    assert speeds == pytest.approx((2, 1 / 3))
    assert (row["ratio_low"], row["ratio"], row["ratio_high"], row["rounds"]) == (6, 6, 6, 2)


def test_bars_are_met_from_the_right_side():
    for name, met, missed in (("whole_second_ratio", 1.2, 1.1), ("tiny_seconds", 2.0, 2.1)):
        for value in (met, missed):
            table = run.bar_table({name: number(value), "other": number(0)})
            assert table["holds"].tolist() == [value == met]


@pytest.mark.learn2learn
def test_a_quick_run_prints_its_tables_and_writes_a_record(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "tiny_latency", lambda rounds: [3.0])
    monkeypatch.setattr(
        run, "head_case", lambda *given, **more: cases.head_case(*given, **more | {"width": 16})
    )
    run.main(["--quick", "--output", str(tmp_path / "b.json")])
    printed = capsys.readouterr()
    assert "learn2learn_meta_steps_per_s" in printed.out
    assert "head_4_second" in printed.err
    record = read_record(tmp_path / "b.json")
    assert set(record.table("cases")["order"]) == {"first", "second"}
    assert record.table("bars")["holds"].tolist() == [False]


def test_what_stops_it_is_one_sentence_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "matmul_rate", lambda: pytest.fail("the work began"))
    monkeypatch.setattr("mutmeta_lib.learn.learn2learn.has_learn2learn", lambda: False)
    monkeypatch.setitem(sys.modules, "learn2learn.algorithms.maml", None)
    (tmp_path / "file").touch()
    for argument, told in (("--quick", "learn2learn"), (f"--output={tmp_path}/file/b", "written")):
        with pytest.raises(SystemExit, match="2"):
            run.main([argument])
        assert re.fullmatch(rf".*{told}.*\n", capsys.readouterr().err)


def test_a_whole_ranking_is_timed_and_one_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(rank, "CASES", {"small": (30, 4, "singles", ())})
    rank.main(["--rounds", "1", "--output", str(tmp_path / "r.json")])
    nothing, row = read_record(tmp_path / "r.json").table("cases").to_dict("records")
    assert nothing["processor_seconds"] < row["processor_seconds"]
    assert 0.5 < row["processor_seconds"] < 60
    assert 100 < row["peak_mb"] < 1500
    monkeypatch.setattr(rank, "CASES", {"wrong": (30, 4, "none.csv", ())})
    with pytest.raises(SystemExit, match=r"none\.csv"):
        rank.measure("", 1)
