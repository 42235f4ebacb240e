import signal
import threading

import pytest

from mutmeta_lib.records.interrupts import held_interrupt


@pytest.fixture(autouse=True)
def handler_is_restored():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def block(presses, then=lambda told: None, **more):
    """Press Ctrl-C so often in a held block; return what the block was told."""
    with held_interrupt(**more) as interrupted:
        told = [interrupted()]
        for _ in range(presses):
            signal.raise_signal(signal.SIGINT)
            told.append(interrupted())
        then(told)
    return told


def test_the_first_is_held_and_told_until_the_end_of_the_block():
    assert block(0) == [False]
    end = []
    with pytest.raises(KeyboardInterrupt):
        block(1, end.extend)
    assert end == [False, True]


@pytest.mark.parametrize(("presses", "more"), [(2, {}), (1, {"enabled": False})])
def test_the_second_and_one_that_is_not_held_stop_at_once(presses, more):
    with pytest.raises(KeyboardInterrupt):
        block(presses, lambda told: pytest.fail("the block went on"), **more)


@pytest.mark.parametrize("error", [KeyboardInterrupt("saved at step 3"), ZeroDivisionError("own")])
def test_what_the_block_raises_comes_first(error):
    def stop(told):
        raise error

    with pytest.raises(type(error), match=str(error)):
        block(1, stop)


def test_another_handler_is_left_in_place_and_another_thread_has_none():
    seen, told = [], []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        assert block(1) == [False, False]
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]
    thread = threading.Thread(target=lambda: told.extend(block(0)))
    thread.start()
    thread.join()
    assert told == [False]
