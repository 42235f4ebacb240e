"""From one assay of a protein to another."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from release_copy import named_on_pages
from toy import toy_assay

from mutmeta_lib.data.folders import demo_dir, read_data_dir
from mutmeta_lib.errors import DataError
from mutmeta_lib.models.embed import read_with
from mutmeta_lib.models.encoder import load_encoder
from mutmeta_lib.models.predictor import Predictor
from mutmeta_lib.reproduction import pair_transfer, pairs
from mutmeta_lib.reproduction.pair_transfer import pair_methods, pair_numbers, pair_tables
from mutmeta_lib.reproduction.pairs import load_pairs, make_pair
from mutmeta_lib.study.study import Study, split_around
from mutmeta_lib.tasks.tasks import make_task

SMALL = {"meta_steps": 2, "tasks_per_step": 2, "support": 4, "query": 4, "inner_steps": 1}
SMALL |= {"adapt_steps": 2, "seeds": 1, "share": 0.25}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 50), st.sampled_from(["", "M", "MGSSH"]), st.integers(5, 80))
def test_shared_variants_are_found_whatever_the_numbering(seed, prefix, cap):
    a = toy_assay(seed, length=30)
    moved = [[replace(s, position=s.position + len(prefix)) for s in v] for v in a.variants[::-1]]
    longer = {"id": "B", "wild_type": prefix + a.wild_type, "variants": tuple(map(tuple, moved))}
    pair = make_pair("kind", a, replace(a, **longer, scores=a.scores[::-1]), cap)
    assert len(pair.shared) == min(cap, len(a))
    for row, other in pair.shared.items():
        assert pair.a.scores[row] == pair.b.scores[other]
    back = pair.turned()
    assert back.a is pair.b
    assert {value: key for key, value in back.shared.items()} == pair.shared
    again = make_pair("kind", a, replace(a, **longer, scores=-a.scores), cap)
    assert again.a.sha256 == pair.a.sha256, "the cap is by the ids"


def test_shared_variants_come_first_and_others_fill_up():
    a = toy_assay(1, length=30, n=60)
    half = replace(a, id="HALF", variants=a.variants[:20], scores=a.scores[:20])
    pair = make_pair("kind", a, half, 40)
    assert (len(pair.a), len(pair.b), len(pair.shared)) == (40, 20, 20)
    with pytest.raises(DataError, match="different proteins"):
        make_pair("kind", toy_assay(0, length=40), toy_assay(1, length=40), 10)


def test_listed_pairs_are_read_from_a_data_directory(tmp_path, monkeypatch):
    listed = pd.read_csv(pairs.LISTED)
    assert not listed[["a", "b"]].duplicated().any()
    assert (listed["a"] != listed["b"]).all()
    assert {"dTm and ddG", "activity and abundance"} <= set(listed["kind"])
    names = ("GB1_OLSON2014_on_Q2H", "GB1_NISTHAL2019_on_WT")
    (tmp_path / "pairs.csv").write_text(f"kind,a,b\nbinding and ddG,{','.join(names)}\n")
    monkeypatch.setattr(pairs, "LISTED", tmp_path / "pairs.csv")
    (pair,) = load_pairs(str(demo_dir()), 50)
    assert (pair.kind, pair.a.id, pair.b.id) == ("binding and ddG", *names)
    assert len(pair.shared) > 0


@pytest.fixture(scope="module")
def record():
    study = Study(per_protein=4, shots=(0, 5, 10), **SMALL)
    return pair_transfer.pair_transfer(study, pair_cap=40, source_steps=3)


def test_no_protein_of_a_pair_is_learned_from(record, monkeypatch):
    found = []

    def seen(assays, test, **how):
        found.append((split_around(assays, test, **how), {a.id for a in test}))
        raise InterruptedError

    monkeypatch.setattr(pair_transfer, "split_around", seen)
    with pytest.raises(InterruptedError):
        pair_transfer.pair_transfer(Study(per_protein=4, shots=(0,), **SMALL), pair_cap=40)
    [(split, test)] = found
    assert test == {*record.table("pairs")["a"], *record.table("pairs")["b"]}
    tested, learned = (
        {id.split("_")[0] for id in ids} for ids in (test, split.train + split.validation)
    )
    assert not tested & learned


def test_pairs_are_taken_both_ways_and_what_a_says_needs_no_label_of_b(record):
    listed, results = record.table("pairs"), record.table("results")
    both = set(zip(listed["a"], listed["b"], strict=True))
    assert set(zip(results["a"], results["assay"], strict=True)) == both | {(b, a) for a, b in both}
    groups = results.groupby(["a", "assay", "shots"])
    assert (groups["n_query"].nunique() == 1).all()
    assert (groups.size() == 7).all(), "every method predicts the same rows"
    ways = results.pivot(index=["a", "assay"], columns=["method", "shots"], values="spearman")
    assert record.numbers["maml_5"]["value"] == pytest.approx(ways["maml", 5].mean(), abs=1e-4)
    for k in (5, 10):
        np.testing.assert_array_equal(ways["scores_a", k], ways["scores_a", 0])
    np.testing.assert_array_equal(ways["ridge_a", 0], ways["scores_a", 0])
    assert (ways["ridge_a", 10] != ways["scores_a", 10]).any()
    np.testing.assert_array_equal(ways["ridge", 0], 0)
    assert (ways["maml", 0] != ways["maml_a", 0]).all(), "the scores of A were learned"


def test_a_s_word_is_what_it_measured_else_what_ridge_says():
    """Two assays of 40 variants, 20 of them shared, in other rows of B."""
    (assay,) = read_data_dir(demo_dir(), ids=["GB1_NISTHAL2019_on_WT"])
    parts = [np.arange(40), np.arange(59, 19, -1)]
    a, b = (
        replace(assay, id=id, scores=assay.scores[rows],
                variants=tuple(assay.variants[row] for row in rows))
        for id, rows in zip("AB", parts, strict=True)
    )  # fmt: skip
    pair = make_pair("halves", a, b, 40)
    predictor = Predictor(load_encoder("tiny"), "sites")
    frozen = read_with(predictor, [a, b], "separator", labels="measured")
    methods = pair_methods(pair, frozen, frozen.predictor, {}, 1, 1)
    query = make_task(frozen.assays["B"], np.arange(0), np.arange(40)).query
    said = methods["scores_a"].predict(None, query)
    known = np.isin(np.arange(40), list(pair.shared.values()))
    assert known.sum() == 20
    scaled = (b.scores[known] - a.scores.mean()) / a.scores.std(ddof=1)
    np.testing.assert_allclose(said[known], scaled, atol=1e-4)
    assert np.corrcoef(said[~known], b.scores[~known])[0, 1] < 0.999
    np.testing.assert_array_equal(methods["ridge_a"].predict(None, query), said)
    vectors = methods["ridge_a"].features(query)
    np.testing.assert_allclose(vectors[:, -1], said * frozen.features(query).shape[1] ** 0.5)


def test_differences_are_paired_and_labels_that_a_is_worth_are_counted():
    level = {"maml": 0.1, "finetune": 0.0, "maml_a": 0.4, "finetune_a": 0.3, "ridge": 0.04}
    level |= {"ridge_a": 0.5, "scores_a": 0.45}
    results = pd.DataFrame(
        {"kind": f"k{i % 2}", "a": f"A{i}", "assay": "B", "cluster": i, "seed": seed, "shots": k,
         "n_query": 20, "diverged": 1, "method": method,
         "spearman": value + (0.01 * k if method in ("maml", "ridge") else 0) + 0.001 * seed}
        for i in range(3) for seed in (0, 1) for k in (0, 10, 40) for method, value in level.items()
    )  # fmt: skip
    known = pd.DataFrame({"kind": ["k0"], "a": ["A0"], "b": ["B"], "cluster": [0]})
    tables = pair_tables(results, known)
    numbers = pair_numbers(results, tables)
    assert numbers["scores_a_minus_maml_0"]["value"] == pytest.approx(0.35)
    assert numbers["maml_minus_ridge_10"]["value"] == pytest.approx(0.06)
    assert numbers["labels_worth_maml"]["value"] == 40  # 0.1 + 0.4 reaches 0.45
    assert numbers["labels_worth_ridge"]["value"] is None  # 0.04 + 0.4 does not
    assert numbers["diverged"]["value"] == len(results)
    assert named_on_pages("protocols") - set(numbers) == set()
    summary = tables["summary"].set_index(["kind", "method", "shots"])
    assert summary.loc[("all", "maml", 0), ["n_assays", "n_proteins"]].tolist() == [3, 3]
    assert summary.loc[("k0", "maml", 0), "n_proteins"] == 2
