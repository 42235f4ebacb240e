"""Bars on a terminal, lines in a file, nothing in a notebook."""

import io
import re

import pytest

from mutmeta_lib.records.progress import shown_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


Notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})


def shown(stream, reports, every=0.0):
    with shown_progress(stream, every=every) as report:
        for given in reports:
            report(*given)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_a_terminal_gets_a_bar_with_steps_and_the_time_left():
    told = shown(Terminal(), [("maml", 1, 9), ("maml", 5, 9)])
    assert re.search(r"maml: .*5/9 \[\d\d:\d\d<\d\d:\d\d", told)
    assert "\n" not in told, "a single bar stays on its line"


def test_many_things_at_once_each_go_when_they_are_done():
    stream = Terminal()
    with shown_progress(stream, every=0.0) as report:
        report("a", 1, 2)
        report("b", 0, 2)
        report("a", 2, 2)
        assert stream.getvalue().endswith("\r"), "its line is wiped"
        report("b", 1, 2)
        assert "1/2" in stream.getvalue().rpartition("b: ")[2]
        report("a", 2, 3)  # what is done may begin again, as another run's stage of the same name
    assert "2/3" in stream.getvalue()


def test_elsewhere_every_state_is_a_plain_line():
    reports = [("runs", 0, 2), ("maml", 1, 9), ("maml", 5, 9), ("maml", 9, 9)]
    told = shown(io.StringIO(), reports)
    assert "\r" not in told
    first, *_, last = dict.fromkeys(line for line in told.splitlines() if "maml" in line)
    assert first.startswith("maml: 1 of 9")
    assert re.fullmatch(r"maml: 9 of 9, \d\d:\d\d left", last)


@pytest.mark.parametrize(
    ("stream", "every"), [(io.StringIO(), 1e9), (Notebook(), 0.0)], ids=["soon done", "notebook"]
)
def test_nothing_is_said(stream, every, capsys):
    assert shown(stream, [("maml", step, 9) for step in range(10)], every) == ""
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("every", [10.0, 30.0])
def test_lines_come_now_and_then_with_the_time_left(monkeypatch, every):
    """A resumed run begins in the middle; what was done before says nothing about its speed."""
    now, stream = [0.0], io.StringIO()
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with shown_progress(stream, every=every) as report:
        for step in range(100):
            now[0] = float(step)
            report("maml", 1000 + step, 1240)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 99 // every
    last = 99 // every * every
    assert lines[-1] == f"maml: {1000 + last:.0f} of 1240, {left(240 - last)} left"


def left(seconds):
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
