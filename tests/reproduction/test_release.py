import gzip
import hashlib
import re

import pytest
from release_copy import WILD, write_table

from mutmeta_lib.data.variants import apply_variant, format_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.reproduction.release import (
    LISTED,
    Written,
    as_restored,
    as_stated,
    find_file,
    read_release,
    read_release_file,
    undo,
)

ROWS = [
    (WILD, ["K2R"], 0.5, "fireprot", "dTm"),
    (WILD, ["T3G", "A4S"], -1.25, "fireprot", "dTm"),
]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_both_layouts_read_the_same(tmp_path, flat, packed):
    path = write_table(tmp_path, "fireprot_dTm_test", ROWS, "dTm", flat=flat, packed=packed)
    assert find_file(tmp_path, "fireprot_dTm_test") == path
    files = read_release(tmp_path)
    assert list(files) == ["fireprot_dTm_test"]
    file = files["fireprot_dTm_test"]
    assert (file.id, len(file)) == ("fireprot_dTm_test", 2)
    assert file.labels.tolist() == [0.5, -1.25]
    assert file.mutations == ((Written("K", 2, "R"),), (Written("T", 3, "G"), Written("A", 4, "S")))
    assert set(file.sources) == {"fireprot"}
    assert set(file.features) == {"dTm"}
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    with pytest.raises(ValueError, match="read-only"):
        file.labels[0] = 1


def test_the_raw_table_lies_in_its_own_folder(tmp_path):
    path = write_table(tmp_path, "fireprot_dTm_raw", ROWS, "dTm")
    assert path.parent.name == "raw_dataset"
    assert list(read_release(tmp_path)) == ["fireprot_dTm_raw"]


def test_tables_asked_for_must_be_there(tmp_path):
    write_table(tmp_path, "fireprot_dTm_test", ROWS, "dTm")
    with pytest.raises(DataError, match="no table 'fireprot_dTm_train'"):
        read_release(tmp_path, ["fireprot_dTm_test", "fireprot_dTm_train"])
    with pytest.raises(DataError, match="there is no table 'melting_test'"):
        read_release(tmp_path, ["melting_test"])


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(DataError, match="give a copy of the public repository"):
        read_release(tmp_path)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (("", ["K2R"], 1, "s", "f"), "row 2, column 'sequence'"),
        ((WILD, [], 1, "s", "f"), "row 2, column 'mutation1'"),
        ((WILD, ["2R"], 1, "s", "f"), "'2R' is not a letter, a position and a letter"),
        ((WILD, ["K2R", "K0R"], 1, "s", "f"), "row 2, column 'mutation2'"),
        ((WILD, ["K11R"], 1, "s", "f"), "position 11 lies outside the sequence (10 residues)"),
        ((WILD, ["K2R"], "high", "s", "f"), "row 2, column 'dTm'"),
        ((WILD, ["K2R"], "", "s", "f"), "the value is empty"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_not_dropped(tmp_path, row, told):
    path = write_table(tmp_path, "fireprot_dTm_test", [row], "dTm")
    with pytest.raises(DataError, match=re.escape(told)):
        read_release_file(path, "fireprot_dTm_test")


def test_another_label_column_is_not_taken(tmp_path):
    path = write_table(tmp_path, "fireprot_dTm_test", ROWS, "ddG")
    with pytest.raises(DataError, match="column 'dTm'"):
        read_release_file(path, "fireprot_dTm_test")


def test_functional_fitness_has_a_raw_table_only():
    assert "functional_fitness_raw" in LISTED
    assert "functional_fitness_test" not in LISTED


def test_restoring_a_backwards_row_gives_wild_type_and_variant():
    mutant = apply_variant(as_stated(WILD, [Written("K", 2, "R")])[1], WILD)
    wild_type, variant = as_restored(mutant, [Written("R", 2, "K")])
    assert wild_type == WILD
    assert format_variant(variant) == "K2R"
    assert apply_variant(variant, wild_type) == mutant
    assert undo(mutant, [Written("R", 2, "K")]) == WILD


def test_a_row_taken_at_its_word_leaves_synonymous_changes_out():
    stated = as_stated(WILD, [Written("T", 3, "G"), Written("K", 2, "K")])
    assert stated == (WILD, as_stated(WILD, [Written("T", 3, "G")])[1])
    assert format_variant(stated[1]) == "T3G"
    with pytest.raises(DataError, match="not an amino acid"):
        as_stated(WILD, [Written("K", 2, "X")])
