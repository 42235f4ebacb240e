"""A process that meta-trains, is killed and then stopped by Ctrl-C, and ends at the same bits."""

import signal
import subprocess
import sys
from pathlib import Path

import torch
import toy_run

from mutmeta_lib.records.store import load


def train(checkpoint: Path, result: Path, stop_at: int = 0, by: int = 0) -> tuple[list[int], int]:
    """The steps that a process reports, and its exit code; ``by``: sent when it has come so far."""
    words = [sys.executable, toy_run.__file__, "train", str(checkpoint), str(result)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    steps = []
    with subprocess.Popen(words, cwd=Path(toy_run.__file__).parent, **pipes) as process:
        for line in process.stdout:
            steps.append(int(line))
            if steps[-1] == stop_at:
                process.send_signal(by)
        told = process.stderr.read()
    if by == signal.SIGINT:
        assert told.startswith(f"stopped after meta-step {steps[-1]} of {toy_run.STEPS}; start")
    return steps, process.returncode


def test_a_run_that_is_killed_and_then_stopped_ends_at_the_same_bits(tmp_path):
    straight, result = tmp_path / "straight.safetensors", tmp_path / "result.safetensors"
    toy_run.train(tmp_path / "alone.safetensors", straight)
    checkpoint = tmp_path / "run.safetensors"
    steps, code = train(checkpoint, result, 8, signal.SIGKILL)
    assert (steps[0], code) == (1, -signal.SIGKILL)
    again, code = train(checkpoint, result, 17, signal.SIGINT)
    # A kill costs no more than the steps since the last save, Ctrl-C none.
    assert (steps[-1] - 3 < again[0] <= steps[-1] + 1, code) == (True, 130)
    last, code = train(checkpoint, result)
    assert (last, code) == ([*range(again[-1] + 1, toy_run.STEPS + 1)], 0)
    (params, state), (expected, expected_state) = load(result), load(straight)
    assert state == expected_state
    torch.testing.assert_close(params, expected, rtol=0, atol=0)
