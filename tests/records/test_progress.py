import io
import re

import pytest
from rich.console import Console

from mutmeta_lib.records.progress import lines, shown_progress


def shown(reports, **more):
    stream = io.StringIO()
    with shown_progress(Console(file=stream, **more), every=0.0) as report:
        for given in reports:
            report(*given)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_a_terminal_gets_a_bar_with_steps_and_time_left():
    told = shown([("maml", 1, 9), ("maml", 5, 9)], force_terminal=True, width=100)
    assert "maml" in told
    assert "5/9" in told
    assert "left" in told


def test_many_things_at_once_each_go_when_they_are_done():
    reports = [("runs", 0, 2), ("a", 1, 2), ("b", 1, 2), ("a", 2, 2), ("runs", 1, 2)]
    told = shown([*reports, ("b", 2, 3)], force_terminal=True, width=100)
    assert [line.split()[0] for line in told.splitlines() if "2/3" in line] == ["b"]
    assert [line for line in told.splitlines() if "runs" in line]
    assert "a " not in told.splitlines()[-1]
    # What is done may begin again, as another run's stage of the same name.
    assert "2/3" in shown([("a", 1, 1), ("a", 2, 3)], force_terminal=True, width=100)


def test_elsewhere_there_are_plain_lines():
    told = shown([("maml", 1, 9), ("maml", 5, 9)], force_terminal=False)
    first, second = told.splitlines()
    assert first == "maml: 1 of 9"
    assert re.fullmatch(r"maml: 5 of 9, about .* left", second)


def test_a_notebook_is_left_alone(capsys):
    assert shown([("maml", 5, 9)], force_jupyter=True) == ""
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("every", [10.0, 30.0])
def test_lines_come_now_and_then(every):
    told, clock = [], iter(range(1000))
    report = lines(told.append, every, lambda: next(clock))
    for step in range(100):
        report("maml", step, 1000)
    assert len(told) == 99 // every


def test_the_time_left_is_that_of_the_steps_seen():
    """A resumed run begins in the middle; what was done before says nothing about its speed."""
    told, clock = [], iter([0.0, 100.0])
    report = lines(told.append, 60.0, lambda: next(clock))
    report("maml", 150, 200)
    report("maml", 160, 200)
    assert told == ["maml: 160 of 200, about 7 min left"]
