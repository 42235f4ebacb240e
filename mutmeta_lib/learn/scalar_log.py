"""Curves of a run for TensorBoard, if they are asked for."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mutmeta_lib.errors import DataError

Log = Callable[[int, Mapping[str, float]], None]
"""Called with a step and the scalars of that step by name."""


@contextmanager
def scalar_log(log_dir: str | Path | None, *, first_step: int = 1) -> Iterator[Log]:
    """Write scalars to a folder that TensorBoard reads; without a folder nothing is done.

    A value that is NaN was not taken at that step and is left out.

    Args:
        log_dir: the folder of one run.
        first_step: where this run goes on. What an earlier one, killed after its last save,
            has written of this step and later ones is no longer shown.

    Raises:
        DataError: TensorBoard is not installed, or the folder cannot be written to.

    """
    if log_dir is None:
        yield lambda step, scalars: None
        return
    writer = _writer(log_dir, first_step)

    def log(step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            if not math.isnan(value):
                writer.add_scalar(name, value, step)

    try:
        yield log
    finally:
        writer.close()


def _writer(log_dir: str | Path, first_step: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise DataError(
            "log_dir needs TensorBoard, which is not installed",
            'leave log_dir out or run: pip install "mutmeta[tensorboard]"',
        ) from None
    try:
        return SummaryWriter(str(log_dir), purge_step=first_step if first_step > 1 else None)
    except OSError as error:
        raise DataError(
            f"the folder of logs cannot be written to ({error.strerror})",
            "look at its permissions, or choose another one",
            file=log_dir,
        ) from error
