import numpy as np
import pytest
from sklearn.linear_model import Ridge as PlainRidge
from toy import toy_encoded, toy_predictor

from mutmeta_lib.data.variants import AMINO_ACIDS, apply_variant
from mutmeta_lib.learn.baselines import (
    RIDGE_PENALTIES,
    Ridge,
    _standardise,
    embedding_features,
    onehot_features,
    substitution_score,
)
from mutmeta_lib.tasks.tasks import draw_task, task_generator

ASSAY = toy_encoded(1)[0]
TASK = draw_task(ASSAY, 12, task_generator(0, "b"), pool=12, max_query=20)


def test_onehot_spells_the_mutated_sequence():
    features = onehot_features(TASK.query).reshape(20, -1, 20)
    wild_type = ASSAY.assay.wild_type
    for row, variant in zip(features, TASK.query.variants, strict=True):
        spelled = "".join(AMINO_ACIDS[column] for column in row.argmax(axis=1))
        assert spelled == apply_variant(variant, wild_type)
        assert (row.sum(axis=1) == 1).all()


def test_embedding_features_are_standardised_per_assay_and_looked_up_by_row():
    features = embedding_features(toy_predictor().encoder, "separator", "sites")
    everything = draw_task(ASSAY, 0, task_generator(0, "b"), pool=0).query
    table = features(everything)
    np.testing.assert_allclose(table.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(table.std(axis=0), 1, atol=1e-4)
    place = {row: index for index, row in enumerate(everything.rows)}
    picked = [place[row] for row in TASK.query.rows]
    np.testing.assert_array_equal(features(TASK.query), table[picked])


def test_embeddings_come_back_from_the_cache(tmp_path):
    encoder = toy_predictor().encoder
    plain = embedding_features(encoder, "separator", "sites")(TASK.query)
    for _ in range(2):
        kept = embedding_features(encoder, "separator", "sites", cache_dir=str(tmp_path))(
            TASK.query
        )
        np.testing.assert_array_equal(plain, kept)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_ridge_is_ridge_with_the_penalty_of_least_leave_one_out_error():
    features = embedding_features(toy_predictor().encoder, "separator", "sites")
    x, y = features(TASK.support), TASK.support.labels.numpy()

    def leave_one_out(penalty):
        rows = np.arange(len(y))
        errors = [
            PlainRidge(penalty).fit(x[rows != i], y[rows != i]).predict(x[[i]])[0] - y[i]
            for i in rows
        ]
        return np.mean(np.square(errors))

    best = min(RIDGE_PENALTIES, key=leave_one_out)
    expected = PlainRidge(best).fit(x, y).predict(features(TASK.query))
    method = Ridge("ridge", features)
    np.testing.assert_allclose(
        method.predict(method.adapt(TASK.support, None), TASK.query), expected, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(
    ("swap", "score"), [(("L", "I"), 2), (("L", "M"), 2), (("W", "G"), -2), (("D", "E"), 2)]
)
def test_substitution_scores_are_blosum62(swap, score):
    from mutmeta_lib.data.assays import Assay
    from mutmeta_lib.data.variants import Substitution
    from mutmeta_lib.tasks.tasks import encode_assay

    wild_type, mutant = swap
    encoder = toy_predictor().encoder
    variants = ((Substitution(1, wild_type, mutant),), (Substitution(1, wild_type, "P"),), ())
    assay = Assay("s", "s", "fitness", f"{wild_type}A", variants, np.arange(3.0), "", "", "")
    encoded = encode_assay(assay, "mutant", encoder.vocabulary, 16)
    query = draw_task(encoded, 0, task_generator(0, "s"), pool=0).query
    found = dict(zip(query.variants, substitution_score(query), strict=True))
    assert found[variants[0]] == score
    assert found[()] == 0


def test_columns_that_are_constant_up_to_rounding_say_nothing():
    table = np.full((5, 3), 7.0, dtype=np.float32)
    table[:, 1] += np.array([0, 1, 0, -1, 0], dtype=np.float32) * 4e-7
    table[:, 2] += np.arange(5) * 1e-3
    made = _standardise(table)
    assert (made[:, :2] == 0).all()
    np.testing.assert_allclose(made[:, 2].std(), 1, rtol=1e-2)
