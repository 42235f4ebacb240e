"""The arms on another encoder by one parameter: models shaped like ESM-2 and like ProtBERT."""

import numpy as np
import pytest
from hf_directories import write_esm, write_protbert

from mutmeta_lib.models.encoder import load_encoder
from mutmeta_lib.study.run import recorded
from mutmeta_lib.study.study import Study, grid


@pytest.fixture(scope="module", params=[write_esm, write_protbert])
def directory(request, tmp_path_factory):
    return str(request.param(tmp_path_factory.mktemp("model"), positions=160))


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
    encoder = load_encoder(directory, max_tokens=read.get("max_tokens"))
    assert (record.encoder["name"], record.encoder["sha256"]) == (encoder.name, encoder.sha256)
    assert directory not in str(record)
    results = record.table("results")
    assert set(results["method"]) == set(methods)
    assert np.isfinite(results["spearman"]).all()
    assert np.isfinite(results.query("shots == 4")["relative_mse"]).all()
