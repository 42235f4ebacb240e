"""Two assays of one protein."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import toy_assay

from mutmeta_lib.data.assays import Assay
from mutmeta_lib.data.variants import Substitution
from mutmeta_lib.errors import DataError
from mutmeta_lib.reproduction.assay_pairs import load_pairs, make_pair, positions, read_pairs


def shifted(assay: Assay, prefix: str) -> Assay:
    """The same variants of a construct with residues in front."""
    n = len(prefix)
    moved = tuple(
        tuple(Substitution(s.position + n, s.wild_type, s.mutant) for s in variant)
        for variant in assay.variants
    )
    return replace(assay, id="SHIFTED", wild_type=prefix + assay.wild_type, variants=moved)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 50), st.sampled_from(["", "M", "MGSSH"]), st.integers(5, 80))
def test_shared_variants_are_found_whatever_the_numbering(seed, prefix, cap):
    a = toy_assay(seed, length=30)
    pair = make_pair("kind", a, shifted(a, prefix), cap)
    assert len(pair.shared) == min(cap, len(a))
    for row, other in pair.shared.items():
        assert pair.a.scores[row] == pair.b.scores[other]
    back = pair.turned()
    assert back.a is pair.b
    assert {value: key for key, value in back.shared.items()} == pair.shared


def test_shared_variants_come_first_and_others_fill_up():
    a = toy_assay(1, length=30, n=60)
    half = replace(a, id="HALF", variants=a.variants[:20], scores=a.scores[:20])
    pair = make_pair("kind", a, half, 40)
    assert (len(pair.a), len(pair.b), len(pair.shared)) == (40, 20, 20)


def test_a_cap_does_not_depend_on_anything_but_the_ids():
    a = toy_assay(1, length=30)
    b = replace(a, id="B", scores=-a.scores)
    first, second = make_pair("kind", a, b, 10), make_pair("kind", a, b, 10)
    assert first.a.sha256 == second.a.sha256


def test_different_proteins_are_no_pair():
    with pytest.raises(DataError, match="different proteins"):
        make_pair("kind", toy_assay(0, length=40), toy_assay(1, length=40), 10)


def test_positions_of_a_construct_without_its_first_residues():
    assert positions("GSMKTAYIAKQ", "MKTAYIAKQ")[3] == 1


def test_the_list_that_comes_with_the_library_names_each_assay_in_two_ways():
    listed = read_pairs()
    assert len(listed) == len({(a, b) for _, a, b in listed})
    assert {"dTm and ddG", "activity and abundance"} <= {kind for kind, _, _ in listed}


def test_a_pair_needs_two_assays(tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text("kind,a,b\nsame,X,X\n")
    with pytest.raises(DataError, match="row 2"):
        read_pairs(file)


def test_pairs_are_read_from_a_data_directory():
    from mutmeta_lib.data.assays import demo_dir

    names = ("GB1_OLSON2014_on_Q2H", "GB1_NISTHAL2019_on_WT")
    (pair,) = load_pairs(str(demo_dir()), [("kind", *names)], 50)
    assert (pair.a.id, pair.b.id) == names
    assert len(pair.shared) > 0
    assert np.isfinite(pair.a.scores).all()
