"""The public names: all there, documented, and loaded only when they are asked for."""

import subprocess
import sys

import pytest

import mutmeta_lib as mm

HEAVY = "torch pandas transformers matplotlib papermill"


@pytest.mark.parametrize("name", [name for name in mm.__all__ if name != "__version__"])
def test_a_public_name_is_there_and_says_what_it_is(name):
    found = getattr(mm, name)
    assert name == "METHODS" or found.__doc__
    assert name in dir(mm)


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match="has no attribute 'protonet'"):
        mm.protonet  # noqa: B018


def test_nothing_heavy_is_loaded_before_it_is_asked_for():
    code = f"import sys, mutmeta_lib; print([m for m in {HEAVY.split()!r} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
