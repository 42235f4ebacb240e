"""Regimes of the third arm: no cluster on two sides, except where that is the question."""

import pytest
from toy import toy_assay

from mutmeta_lib.data.clustering import cluster_proteins
from mutmeta_lib.errors import DataError
from mutmeta_lib.study.transfer_cases import draw_cases

PROPERTIES = ("fitness", "stability", "solubility")
# Twelve proteins, four of them with two assays: 30 residues, so that chance does not join them.
ASSAYS = [
    toy_assay(seed, name=f"P{seed}", length=30, n=25, property=PROPERTIES[seed % 3])
    for seed in range(12)
]
ASSAYS += [
    toy_assay(seed, name=f"P{seed}-again", length=30, n=25, property=PROPERTIES[(seed + 1) % 3])
    for seed in range(4)
]
CLUSTERS = cluster_proteins(ASSAYS)
OF = {assay.id: CLUSTERS[assay.wild_type] for assay in ASSAYS}
PROPERTY = {assay.id: assay.property for assay in ASSAYS}


def cases(regime, **more):
    return draw_cases(ASSAYS, CLUSTERS, regime, n_folds=4, seeds=2, **more)


def clusters(names):
    return {OF[name] for name in names}


@pytest.mark.parametrize("regime", ["proteins", "properties"])
def test_no_cluster_is_on_two_sides(regime):
    for case in cases(regime):
        train, validation, test = (
            clusters(part) for part in (case.split.train, case.split.validation, case.split.test)
        )
        assert min(map(len, (train, validation, test))) > 0
        assert not train & validation
        assert not train & test
        assert not validation & test


def test_every_assay_is_tested_once_per_seed_on_other_proteins():
    tested = [name for case in cases("proteins") if case.seed == 0 for name in case.split.test]
    assert sorted(tested) == sorted(OF)


def test_a_held_out_property_is_in_no_other_part():
    found = cases("properties")
    assert {case.name for case in found} == set(PROPERTIES)
    for case in found:
        assert {PROPERTY[name] for name in case.split.test} == {case.name}
        seen = {*case.split.train, *case.split.validation}
        assert case.name not in {PROPERTY[name] for name in seen}
    assert {case.name for case in cases("properties", held_out=["fitness"])} == {"fitness"}


def test_validation_of_a_held_out_property_follows_the_seed():
    first, second = (case.split for case in cases("properties", held_out=["fitness"]))
    assert first.test == second.test
    assert first.validation != second.validation
    assert cases("properties", held_out=["fitness"])[0].split == first


def test_related_assays_move_to_training_and_nothing_else_changes():
    apart = {(case.name, case.seed): case.split for case in cases("proteins")}
    found = cases("related")
    tested = {name for case in found for name in case.split.test}
    assert tested == {name for name in OF if list(OF.values()).count(OF[name]) > 1}
    for case in found:
        before = apart[case.name, case.seed]
        assert set(case.split.test) < set(before.test)
        moved = set(case.split.train) - set(before.train)
        assert clusters(moved) == clusters(case.split.test)
        assert case.split.validation == before.validation


def test_too_few_other_proteins_are_refused():
    few = [toy_assay(0, name="a"), toy_assay(1, name="b", property="stability")]
    with pytest.raises(DataError, match="holding out fitness leaves 1 clusters"):
        draw_cases(few, cluster_proteins(few), "properties", n_folds=3, seeds=1)


def test_an_unknown_regime_is_refused():
    with pytest.raises(ValueError, match="unknown regime 'families'"):
        cases("families")
