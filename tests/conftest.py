"""Settings for all tests."""

import os
import signal

# Before torch is imported: on several threads, models as small as those of the tests take ten times
# as long, all the more where several processes test beside each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# A shell starts background jobs with Ctrl-C ignored, and processes pass that on; the tests of
# Ctrl-C need it to mean something, here and in the processes they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# On a busy machine any example may take long; that says nothing about the code.
settings.register_profile("mutmeta", deadline=None)
settings.load_profile("mutmeta")


def pytest_configure(config):
    config.addinivalue_line("markers", "learn2learn: compares with the package learn2learn")


def pytest_runtest_setup(item):
    """Skip a test marked learn2learn where the package is missing, or fail where it is required."""
    if item.get_closest_marker("learn2learn") is None:
        return
    from mutmeta_lib.learn.learn2learn import has_learn2learn

    if has_learn2learn():
        return
    if os.environ.get("MUTMETA_REQUIRE_LEARN2LEARN") == "1":
        pytest.fail("MUTMETA_REQUIRE_LEARN2LEARN=1, but learn2learn is not installed")
    pytest.skip("learn2learn is not installed (make learn2learn)")


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, for the book and for reports."""
    from browsing import chromium

    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory):
    """The tokenizers of ProtBERT and ESM-2, one that writes small letters, and one of words."""
    from cases import ESM_TOKENS
    from hf_directories import PROTBERT_TOKENS
    from transformers import BertTokenizer, EsmTokenizer

    uncased = [t if t.startswith("[") else t.lower() for t in PROTBERT_TOKENS]
    files = {"protbert": PROTBERT_TOKENS, "esm": ESM_TOKENS, "uncased": uncased}
    files["words"] = [*PROTBERT_TOKENS[:5], "protein"]
    made = {}
    for name, tokens in files.items():
        file = tmp_path_factory.mktemp("vocabularies") / "vocab.txt"
        file.write_text("\n".join(tokens) + "\n")
        lower = {} if name == "esm" else {"do_lower_case": name == "uncased"}
        made[name] = (EsmTokenizer if name == "esm" else BertTokenizer)(str(file), **lower)
    return made
