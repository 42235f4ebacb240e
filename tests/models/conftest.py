"""One encoder of each kind, small: our own, three that are layered by Hugging Face, and another."""

import pytest
from hf_directories import write_distilbert, write_esm, write_protbert

from mutmeta_lib.models.encoder import load_encoder, tiny_encoder

WRITERS = {
    "esm": write_esm,
    "esm1b": lambda directory: write_esm(directory, kind="absolute"),
    "protbert": write_protbert,
    "distilbert": write_distilbert,
}
LAYERED = ["tiny", "esm", "esm1b", "protbert"]
KINDS = [*LAYERED, "distilbert"]


@pytest.fixture(scope="session")
def directories(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    return {name: write(folder / name) for name, write in WRITERS.items()}


@pytest.fixture(scope="session")
def encoders(directories):
    loaded = {name: load_encoder(str(folder)) for name, folder in directories.items()}
    return {"tiny": tiny_encoder(width=16, heads=4, max_tokens=48), **loaded}


@pytest.fixture(params=KINDS)
def encoder(encoders, request):
    return encoders[request.param]


@pytest.fixture(params=LAYERED)
def layered(encoders, request):
    return encoders[request.param]
