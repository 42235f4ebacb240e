import json
from dataclasses import asdict

import pytest

from mutmeta_lib.learn.training_settings import MetaTraining


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"algorithm": "protonet"}, r"unknown algorithm 'protonet'.*'reptile'"),
        ({"on_nonfinite": "ignore"}, "unknown on_nonfinite 'ignore'"),
    ],
)
def test_bad_names(wrong, told):
    with pytest.raises(ValueError, match=told):
        MetaTraining(**wrong)


def test_settings_survive_json():
    """A checkpoint is compared with what JSON made of its settings."""
    settings = asdict(MetaTraining())
    assert json.loads(json.dumps(settings)) == settings
