"""The arms on another encoder by one parameter: models shaped like ESM-2 and like ProtBERT."""

import numpy as np
import pytest
from hf_directories import write_esm, write_protbert

from mutmeta_lib.models.encoder import load_encoder
from mutmeta_lib.reproduction.protocol import protocol_experiment
from mutmeta_lib.study.run import recorded
from mutmeta_lib.study.study import Study, grid

WRITERS = {"esm": write_esm, "protbert": write_protbert}


@pytest.fixture(scope="module", params=list(WRITERS))
def directory(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    return str(WRITERS[request.param](folder, positions=160))


def check_encoder(record, directory, **options):
    """The record names the encoder and its hash, and not where it lies."""
    encoder = load_encoder(directory, **options)
    assert (record.encoder["name"], record.encoder["sha256"]) == (encoder.name, encoder.sha256)
    assert encoder.name in WRITERS
    assert directory not in str(record)


@pytest.mark.parametrize(
    ("methods", "read"),
    [
        (("maml", "finetune", "ridge", "r2d2"), {"depth": "head"}),
        (("maml", "multitask", "ridge"), {"depth": "all"}),
        (("maml",), {"depth": "last-1", "max_tokens": 40}),
    ],
)
def test_a_study_runs_on_every_architecture(directory, methods, read):
    """MAML of second order, through every layer where all of the encoder learns."""
    asked = dict(per_protein=1, cap=40, seeds=1, folds=[0], n_folds=3, meta_steps=1, shots=(0, 4))
    asked |= dict(tasks_per_step=1, support=3, query=3, inner_steps=1, adapt_steps=1, max_query=8)
    study = Study(**asked, decided_at=4, methods=methods, reads=grid(encoder=directory, **read))
    record, _ = recorded("few_shot", study)
    if "max_tokens" not in read:
        check_encoder(record, directory)
    results = record.table("results")
    assert set(results["method"]) == set(methods)
    assert np.isfinite(results["spearman"]).all()
    assert np.isfinite(results.query("shots == 4")["relative_mse"]).all()


def test_the_protocol(directory):
    record = protocol_experiment(
        release_dir="demo",
        encoder=directory,
        encodings=("separator", "unknown_text"),
        tiny_encodings=(),
        max_tokens=120,
        sizes=[4],
        draws=2,
        seeds=1,
        initial_epochs=1,
        finetune_epochs=1,
        maml_epochs=1,
        inner_steps=1,
        time_rows=[],
        profile="quick",
    )
    check_encoder(record, directory, max_tokens=120)
    gains = record.table("gains")
    assert set(gains["encoding"]) == {"separator", "unknown_text"}
    assert np.isfinite(gains.select_dtypes(float)).all(axis=None)
    texts = record.table("texts").set_index("encoding")["texts"]
    assert (texts["unknown_text"] == 2).all()  # a set is two assays: one text for each wild type
    assert (texts["separator"] > 10).all()
