"""Bars on a terminal, lines in a file, nothing in a notebook; and a Ctrl-C that waits."""

import io
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from mutmeta_lib.records.progress import held_interrupt, shown_progress

Terminal = type("Terminal", (io.StringIO,), {"isatty": lambda self: True})
Notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})


def test_a_terminal_gets_a_bar_for_each_thing_till_it_is_done():
    stream = Terminal()
    with shown_progress(stream, every=0.0) as report:
        for given in (("a", 0, 2), ("b", 0, 2), ("a", 1, 2)):
            report(*given)
        assert re.search(r"a: .*1/2 \[\d\d:\d\d<\d\d:\d\d", stream.getvalue())
        report("a", 2, 2)
        assert stream.getvalue().endswith("\r"), "its line is wiped"
        report("b", 1, 2)
        assert "1/2" in stream.getvalue().rpartition("b: ")[2]
        report("a", 2, 3)  # what is done may begin again, as another run's stage of the same name
    assert "2/3" in stream.getvalue()


@pytest.mark.parametrize(("stream", "every"), [(io.StringIO(), 1e9), (Notebook(), 0.0)])
def test_nothing_is_said_of_what_is_soon_done_or_in_a_notebook(stream, every, capsys):
    with shown_progress(stream, every=every) as report:
        for step in range(10):
            report("maml", step, 9)
    assert stream.getvalue() == ""
    assert capsys.readouterr() == ("", "")


def test_elsewhere_lines_come_now_and_then_with_the_time_left(monkeypatch):
    """A resumed run begins in the middle; what was done before says nothing about its speed."""
    now, stream = [0.0], io.StringIO()
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with shown_progress(stream, every=30.0) as report:
        for step in range(100):
            now[0] = float(step)
            report("maml", 1000 + step, 1240)
            report("runs", 0, 2)  # others do not disturb
    told = [line for line in stream.getvalue().split("\n") if line.startswith("maml")]
    left = {1030: "03:30", 1060: "03:00", 1090: "02:30"}
    assert told == [f"maml: {n} of 1240, {time} left" for n, time in left.items()]
    assert "\r" not in stream.getvalue()


@pytest.fixture(autouse=True)
def own_handler():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def block(presses, then=lambda told: None, enabled=True):
    """Press Ctrl-C so often in a held block; return what the block was told."""
    with held_interrupt(enabled) as interrupted:
        told = [interrupted()]
        for _ in range(presses):
            signal.raise_signal(signal.SIGINT)
            told.append(interrupted())
        then(told)
    return told


def test_the_first_is_held_and_told_until_the_end_of_the_block():
    end = []
    with pytest.raises(KeyboardInterrupt):
        block(1, end.extend)
    assert end == [False, True]
    with pytest.raises(ZeroDivisionError):  # what the block raises comes first
        block(1, lambda told: 1 / 0)


@pytest.mark.parametrize(("presses", "enabled"), [(2, True), (1, False)])
def test_the_second_and_one_that_is_not_held_stop_at_once(presses, enabled):
    with pytest.raises(KeyboardInterrupt):
        block(presses, lambda told: pytest.fail("the block went on"), enabled)


def test_another_handler_is_left_in_place_and_another_thread_has_none():
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        assert block(1) == [False, False]
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(block, 0).result() == [False]
