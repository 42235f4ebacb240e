"""Processes that meta-train are killed and started again, and end at the same bits.

The runs of the first test are forked from a server that has torch loaded, as each kill would
otherwise cost an import; the second test starts a command from nothing.
"""

import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_run

from mutmeta_lib.records.store import load, load_newest

CONTEXT = multiprocessing.get_context("forkserver")
# torch imports the last of these when it is first used.
CONTEXT.set_forkserver_preload(
    ["mutmeta_lib.learn.train", "mutmeta_lib.app.console", "torch._dynamo"]
)


def work(checkpoint, result, every, pipe):
    toy_run.train(checkpoint, result, every, pipe.send)
    pipe.close()


def run(checkpoint, result, every=1, kill_after=None, delay=0.0):
    """Run a process; with ``kill_after``, SIGKILL ``delay`` seconds after so many steps.

    Returns the steps that it reported, and whether it came to its end.
    """
    reader, writer = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=work, args=(checkpoint, result, every, writer))
    process.start()
    writer.close()
    steps = []
    try:
        while True:
            steps.append(reader.recv())
            if len(steps) == kill_after:
                time.sleep(delay)
                process.kill()
    except EOFError:
        process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return steps, process.exitcode == 0


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The outcome of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("straight")
    steps, ended = run(folder / "run.safetensors", folder / "result.safetensors")
    assert ended
    assert steps == list(range(1, toy_run.STEPS + 1))
    return load(folder / "result.safetensors")


def assert_same(result, straight):
    (params, state), (expected, expected_state) = load(result), straight
    assert params.keys() == expected.keys()
    for name in params:
        assert torch.equal(params[name], expected[name]), name
    assert state == expected_state


@pytest.mark.parametrize(("every", "seed"), [(1, 0), (3, 3)])
def test_killed_at_random_moments_it_ends_at_the_same_bits(tmp_path, straight, every, seed):
    rng = np.random.default_rng(seed)
    checkpoint, result = tmp_path / "run.safetensors", tmp_path / "result.safetensors"
    kills, last = 0, 0
    while not result.exists():
        after, delay = int(rng.integers(every, every + 5)), float(rng.uniform(0, 0.06))
        steps, ended = run(checkpoint, result, every, after, delay)
        # A kill costs no more than the steps since the last save; a step is reported before that.
        assert not steps or last - every < steps[0] <= last + 1
        assert steps == list(range(steps[0], steps[0] + len(steps))) if steps else ended
        last = steps[-1] if steps else last
        kills += not ended
    assert kills >= 2
    assert_same(result, straight)


def test_ctrl_c_ends_cleanly_and_saves_the_last_state(tmp_path, straight):
    checkpoint, result = tmp_path / "run.safetensors", tmp_path / "result.safetensors"
    command = [sys.executable, toy_run.__file__, "train", str(checkpoint), str(result)]
    process = subprocess.Popen(
        command,
        cwd=Path(toy_run.__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while (step := process.stdout.readline().strip()) != "5":
        assert step, process.communicate()[1]
    process.send_signal(signal.SIGINT)
    steps, told = process.communicate()
    assert process.returncode == 130
    last = int(([step, *steps.split()])[-1])
    assert 5 <= last < toy_run.STEPS
    sentence = f"stopped after meta-step {last} of {toy_run.STEPS}; start again to go on from"
    assert told.split() == [*sentence.split(), str(checkpoint)]
    # It would have saved at the end only, but for Ctrl-C.
    assert load_newest(checkpoint)[1]["history"][-1]["step"] == last
    assert run(checkpoint, result) == (list(range(last + 1, toy_run.STEPS + 1)), True)
    assert_same(result, straight)
