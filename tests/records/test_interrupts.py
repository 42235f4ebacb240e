import signal
import threading

import pytest

from mutmeta_lib.records.interrupts import held_interrupt


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


def block(presses, then=lambda: None, **more):
    """Press Ctrl-C so often in a held block; return what the block got to do."""
    done = []
    with held_interrupt(**more) as interrupted:
        done.append(interrupted())
        for _ in range(presses):
            ctrl_c()
            done.append(interrupted())
        then()
    return done


@pytest.fixture(autouse=True)
def handler_is_restored():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_one_nothing_happens():
    assert block(0) == [False]


def test_the_first_is_held_until_the_end_of_the_block():
    end = []
    with pytest.raises(KeyboardInterrupt):
        block(1, lambda: end.append("met"))
    assert end == ["met"]


def test_the_block_is_told():
    def ask():
        with held_interrupt() as interrupted:
            ctrl_c()
            if interrupted():
                raise KeyboardInterrupt("saved at step 3")

    with pytest.raises(KeyboardInterrupt, match="saved at step 3"):
        ask()


@pytest.mark.parametrize(("presses", "more"), [(2, {}), (1, {"enabled": False})])
def test_the_second_and_one_that_is_not_held_stop_at_once(presses, more):
    with pytest.raises(KeyboardInterrupt):
        block(presses, lambda: pytest.fail("the block went on"), **more)


def test_an_error_in_the_block_comes_first():
    with pytest.raises(ZeroDivisionError):
        block(1, lambda: 1 / 0)


def test_another_handler_is_left_in_place():
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        assert block(1) == [False, False]
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]


def test_another_thread_has_no_signals_to_hold():
    told = []
    thread = threading.Thread(target=lambda: told.extend(block(0)))
    thread.start()
    thread.join()
    assert told == [False]
