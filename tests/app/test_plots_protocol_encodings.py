import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mutmeta_lib.app import plots
from mutmeta_lib.app.plots import protocol_encodings
from mutmeta_lib.reproduction.protocol_contrast import LEARNERS, PARTS
from mutmeta_lib.reproduction.protocol_steps import ARMS

TARGETS = ("binding_affinity", "fireprot_dTm", "soluprotmut_solubility")
INTERVAL = {"gain": 2.0, "low": 1.0, "high": 5.0}
RANKS = {"spearman": 0.1, "spearman_low": 0.0, "spearman_high": 0.3}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_every_method_and_share_of_the_experiment_has_a_name():
    assert set(protocol_encodings.LEARNERS) == set(LEARNERS)
    assert set(protocol_encodings.PARTS) == set(PARTS)
    assert set(protocol_encodings.ARMS) == set(ARMS)


def test_encoding_gains_draws_error_and_rank_beside_each_other():
    rows = [{"target": t, "method": m, **INTERVAL, **RANKS} for t in TARGETS for m in LEARNERS]
    figure = plots.encoding_gains(pd.DataFrame(rows))
    assert figure.get_figwidth() == pytest.approx(5.5)
    assert len(figure.axes) == 2 * len(TARGETS)
    figure.canvas.draw()
    for axis, expected in zip(figure.axes[:2], ([1, 5], [0, 0.3]), strict=True):
        _, _, (bars,) = axis.containers[0].lines
        assert bars.get_segments()[0][:, 0].tolist() == pytest.approx(expected)
    assert len(figure.axes[0].get_yticklabels()) == len(LEARNERS)


def test_gain_shares_has_a_row_per_share_and_a_marker_per_arm():
    rows = [
        {"target": t, "method": arm, "part": part, **INTERVAL}
        for t in TARGETS
        for arm in ARMS
        for part in PARTS
    ]
    figure = plots.gain_shares(pd.DataFrame(rows))
    assert len(figure.axes) == len(TARGETS)
    figure.canvas.draw()
    assert len(figure.axes[0].containers) == len(ARMS)
    _, _, (bars,) = figure.axes[0].containers[0].lines
    assert len(bars.get_segments()) == len(PARTS)
    assert bars.get_segments()[0][:, 0].tolist() == [1, 5]
