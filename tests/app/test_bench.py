"""The benchmark compares equals, and its bars can be missed."""

import pytest
import torch
from typer.testing import CliRunner

from mutmeta_lib.app.bench import report
from mutmeta_lib.app.bench.cases import SHOTS, encoder_case, head_case, largest_difference
from mutmeta_lib.app.bench.measure import matmul_rate, time_case
from mutmeta_lib.app.bench.report import BARS, Bar, bar_rows, bench
from mutmeta_lib.app.bench.shapes import EsmShape, random_esm
from mutmeta_lib.cli import app
from mutmeta_lib.records.record import number, read_record

SMALL = EsmShape(layers=3, width=32, heads=2)


@pytest.mark.learn2learn
@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("hidden", [(8, 4), (8,), ()])
@pytest.mark.parametrize("backend", ["lowrank", "vmap", "torch.func", "recursion"])
def test_both_sides_of_the_head_case_compute_the_same(backend, hidden, first_order):
    assert largest_difference(head_case(2, first_order, backend, hidden, width=16)) < 1e-4


@pytest.mark.learn2learn
@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("start", [0, 1, 2])
def test_both_sides_of_the_encoder_case_compute_the_same(monkeypatch, start, first_order):
    monkeypatch.setattr("mutmeta_lib.app.bench.cases.EsmShape", lambda: SMALL)
    assert largest_difference(encoder_case(2, first_order, 12, start)) < 1e-3


@pytest.mark.learn2learn
def test_a_case_is_timed_and_its_work_counted():
    timed = time_case(head_case(3, False, hidden=(8,), width=16), rounds=2)
    row = timed.row(rate=1e9)
    assert len(timed.ratios) == 2
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    # Support and query through the first layer, forward and weight gradient, at the least.
    assert timed.flops >= 3 * 2 * 2 * (2 * SHOTS) * 16 * 8
    assert row["matmul_share"] == pytest.approx(timed.flops / timed.ours / 1e9)


def test_bars_are_met_from_the_right_side():
    assert Bar("x", "at least", least=2).holds(2.0)
    assert not Bar("x", "at least", least=2).holds(1.9)
    assert Bar("x", "at most", most=2).holds(2.0)
    assert not Bar("x", "at most", most=2).holds(2.1)
    rows = bar_rows({BARS[0].number: number(BARS[0].least - 1)})
    assert [row["holds"] for row in rows] == [False]


def test_weights_are_the_same_at_every_call_and_leave_torch_alone():
    state = torch.random.get_rng_state()
    one, two = random_esm(SMALL).module, random_esm(SMALL).module
    for first, second in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert matmul_rate(64, 2) > 0


@pytest.mark.learn2learn
def test_the_quick_benchmark_writes_a_record(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "tiny_latency", lambda rounds: [1.0])
    monkeypatch.setattr("mutmeta_lib.app.bench.report.head_case", small_head_case)
    done = CliRunner().invoke(app, ["bench", "--quick", "--output", str(tmp_path / "b.json")])
    assert done.exit_code == 0, done.output
    assert "meta-steps/s" in done.output
    assert "holds" in done.output
    record = read_record(tmp_path / "b.json")
    assert record.numbers["tiny_seconds"]["value"] == 1.0
    assert set(record.table("cases")["order"]) == {"first", "second"}


def small_head_case(*given, **more):
    return head_case(*given, **({"width": 16, "hidden": (8,)} | more))


@pytest.mark.learn2learn
def test_the_library_function_takes_no_argument(monkeypatch):
    monkeypatch.setattr(report, "_cases", lambda quick: [])
    monkeypatch.setattr(report, "_memory", lambda quick: [])
    monkeypatch.setattr(report, "_memory_numbers", lambda rows: {})
    monkeypatch.setattr(report, "tiny_latency", lambda rounds: [3.0])
    record = bench(quick=True)
    assert record.table("bars")["holds"].tolist() == [False]
