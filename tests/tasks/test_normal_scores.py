"""Normal scores keep the order of labels and nothing else of them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from toy import toy_assay

from mutmeta_lib.tasks.normal_scores import normal_scores, with_normal_scores

SCORES = st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=2, max_size=30)


@given(SCORES)
def test_order_and_ties_are_kept(values):
    values = np.array(values)
    made = normal_scores(values)
    np.testing.assert_array_equal(
        np.sign(np.subtract.outer(made, made)), np.sign(np.subtract.outer(values, values))
    )
    assert np.isfinite(made).all()


@given(SCORES)
def test_scale_and_sign_of_the_unit_do_not_matter(values):
    values = np.array(values)
    np.testing.assert_array_equal(normal_scores(values), normal_scores(2 * values))
    np.testing.assert_allclose(normal_scores(-values), -normal_scores(values), atol=1e-12)


def test_a_far_tail_is_tamed():
    assay = toy_assay(n=100)
    scores = assay.scores.copy()
    scores[0] = 1e9
    made = normal_scores(scores)
    assert made.max() < 3
    assert abs(made.mean()) < 1e-9


def test_an_assay_keeps_its_variants_and_gets_no_unit():
    assay = toy_assay()
    made = with_normal_scores(assay)
    assert made.variants == assay.variants
    assert made.units == "normal score"
    np.testing.assert_array_equal(np.argsort(made.scores), np.argsort(assay.scores))
