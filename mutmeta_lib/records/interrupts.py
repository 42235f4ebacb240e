"""Ctrl-C that waits for a good moment: work that is half-done is not worth saving."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def held_interrupt(enabled: bool = True) -> Iterator[Callable[[], bool]]:
    """Hold the first Ctrl-C (SIGINT) back, so that the block can finish what it is at and save.

    The block gets a function that tells whether Ctrl-C was pressed, and raises
    ``KeyboardInterrupt`` itself when it is ready, or has it raised at its end. A second Ctrl-C
    stops at once. Where Python's own handler is not in place (another one was installed, or this
    is not the main thread) nothing is held.
    """
    pending: list[int] = []

    def hold(number: int, frame: object) -> None:
        pending.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    main = threading.current_thread() is threading.main_thread()
    held = enabled and main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if held:
        signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: bool(pending)
    finally:
        if held:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if pending:
        raise KeyboardInterrupt
