"""Studies: who is trained on, who chooses, who is tested; and what a study refuses."""

from dataclasses import replace

import pytest
from toy import toy_assay

from mutmeta_lib.data.folders import read_data_dir
from mutmeta_lib.data.proteins import cluster_proteins
from mutmeta_lib.errors import DataError
from mutmeta_lib.study.study import Study, describe_assays, draw_cases, grid, read_assays

PROPERTIES = ("fitness", "stability", "solubility")
# Twelve proteins, four of them with two assays: 30 residues, so that chance does not join them.
ASSAYS = [
    toy_assay(n % 12, name=f"P{n}", length=30, n=25, property=PROPERTIES[(n + n // 12) % 3])
    for n in range(16)
]
CLUSTERS = cluster_proteins(ASSAYS)
OF = {assay.id: CLUSTERS[assay.wild_type] for assay in ASSAYS}
PROPERTY = {assay.id: assay.property for assay in ASSAYS}


def cases(regime, **more):
    return draw_cases(Study(regime=regime, n_folds=4, seeds=2, **more), ASSAYS)


@pytest.mark.parametrize(
    ("regime", "more"),
    [
        ("proteins", {}),
        ("rotations", {}),
        ("properties", {}),
        ("around", {"test_ids": ["P0", "P5"]}),
    ],
)
def test_no_cluster_is_on_two_sides(regime, more):
    found = cases(regime, **more)
    assert found
    for case in found:
        split = case.split
        sides = [{OF[name] for name in s} for s in (split.train, split.validation, split.test)]
        assert min(map(len, sides)) > 0
        assert sum(map(len, sides)) == len(set.union(*sides))


def test_every_assay_is_tested_once_per_seed():
    found = cases("proteins", seed=7)
    for seed in (7, 8):
        tested = [name for case in found if case.seed == seed for name in case.split.test]
        assert sorted(tested) == sorted(OF)
    assert {case.name for case in cases("proteins", folds=[1, 3])} == {"fold 2", "fold 4"}


def test_rotations_test_what_proteins_tests_and_train_on_more():
    for rotation, fold in zip(cases("rotations", share=0.1), cases("proteins"), strict=True):
        assert rotation.split.test == fold.split.test
        assert len(rotation.split.train) > len(fold.split.train)


def test_with_a_share_of_0_all_assays_that_are_not_tested_train():
    for case, other in zip(cases("rotations", share=0), cases("rotations"), strict=True):
        assert case.split.test == other.split.test
        assert not case.split.validation
        assert set(case.split.train) == {*other.split.train, *other.split.validation}


def test_fewer_assays_to_train_on_are_a_nested_draw_and_change_nothing_else():
    whole, *some = (cases("proteins", train_most=most) for most in (0, 4, 2))
    for case, four, two in zip(whole, *some, strict=True):
        drawn = [set(one.split.train) for one in (two, four, case)]
        assert [*map(len, drawn[:2])] == [2, 4]
        assert drawn[0] < drawn[1] < drawn[2]
        assert four == replace(case, split=replace(case.split, train=four.split.train))


def test_a_held_out_property_is_in_no_other_part():
    found = cases("properties")
    assert {case.name for case in found} == set(PROPERTIES)
    for case in found:
        assert {PROPERTY[name] for name in case.split.test} == {case.name}
        seen = {*case.split.train, *case.split.validation}
        assert case.name not in {PROPERTY[name] for name in seen}


@pytest.mark.parametrize(
    ("regime", "more"),
    [("properties", {"properties": ["fitness"]}), ("around", {"test_ids": ["P0"]})],
)
def test_who_chooses_follows_the_seed_and_who_is_tested_does_not(regime, more):
    first, second = (case.split for case in cases(regime, **more))
    assert first.test == second.test
    assert first.validation != second.validation
    assert cases(regime, **more)[0].split == first


def test_related_assays_move_to_training_and_nothing_else_changes():
    apart = {(case.name, case.seed): case.split for case in cases("proteins")}
    found = cases("related")
    tested = {name for case in found for name in case.split.test}
    assert tested == {name for name in OF if list(OF.values()).count(OF[name]) > 1}
    for case in found:
        before = apart[case.name, case.seed]
        assert set(case.split.test) < set(before.test)
        moved = set(case.split.train) - set(before.train)
        assert {OF[name] for name in moved} == {OF[name] for name in case.split.test}
        assert case.split.validation == before.validation


@pytest.mark.parametrize(
    ("asked", "n_assays", "said"),
    [
        ({"regime": "families"}, 16, "unknown regime 'families'"),
        ({"methods": ["maml", "protonet"]}, 16, r"unknown methods \['protonet'\]"),
        ({"reads": []}, 16, "reads nothing"),
        ({"decided_at": []}, 16, "nothing to choose rates by"),
        (
            {"regime": "rotations", "share": 0, "outer_rates": [[0.1, 1e-3], [0.1, 2e-3]]},
            16,
            "a share of 0 leaves nothing to choose between 2 pairs by",
        ),
        ({"adapt_steps": []}, 16, "nothing to choose rates by"),
        ({"regime": "around"}, 16, "tests no assay"),
        ({"regime": "properties"}, 2, "1 assays leaves 1 protein clusters"),
        ({"regime": "properties", "properties": ["taste"]}, 16, "testing 0 assays"),
        ({"regime": "around", "test_ids": ["P0"]}, 2, "1 assays leaves 1 protein clusters"),
    ],
)
def test_what_cannot_be_a_study_or_has_too_few_other_proteins_is_refused(asked, n_assays, said):
    with pytest.raises(ValueError, match=said):
        draw_cases(Study(n_folds=3, seeds=1, **asked), ASSAYS[:n_assays])


def test_assays_are_chosen_by_the_study():
    chosen, roles = read_assays(Study(per_protein=1, cap=30, longest=60))
    short = {(a.protein, a.property) for a in read_data_dir() if len(a.wild_type) <= 60}
    assert sorted((a.protein, a.property) for a in chosen) == sorted(short)
    assert roles == {a.id: a.property for a in chosen}
    assert describe_assays(chosen, roles)["variants"].tolist() == [30] * len(chosen)
    with pytest.raises(DataError, match="no assay is left"):
        read_assays(Study(per_protein=1, longest=5))
    with pytest.raises(DataError, match="there is no assay 'GB9' to test"):
        read_assays(Study(per_protein=1, regime="around", test_ids=["GB9"]))


def test_a_grid_is_every_combination_and_lists_are_tuples():
    reads = grid(encoding=["separator", "mutant"], pooling=["sites", "cls"], depth="all")
    assert len(set(reads)) == len(reads) == 4
    assert {read.depth for read in reads} == {"all"}
    listed = Study(shots=[0, 5], outer_rates=[[0.1, 0.2]])
    assert listed == Study(shots=(0, 5), outer_rates=((0.1, 0.2),))
