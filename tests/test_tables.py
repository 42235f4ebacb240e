import gzip
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutmeta_lib.errors import DataError
from mutmeta_lib.tables import parse_number, parse_numbers, read_columns


def write(tmp_path, text, name="scores.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def test_only_named_columns_are_read_in_any_order(tmp_path):
    path = write(tmp_path, "score,x,mutant\n1,a,A1G\n2,b,A1C\n")
    assert read_columns(path, ["mutant", "score"], ["note"]) == {
        "mutant": ["A1G", "A1C"],
        "score": ["1", "2"],
    }


@pytest.mark.parametrize(
    "text",
    [
        "mutant,score\r\nA1G,1\r\n",
        "\ufeffmutant,score\nA1G,1\n",
        'mutant,score\n"A1G",1',
        "mutant,score\nA1G,1\n\n\n",
        "mutant,score\nA1G,1\n,\n",
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path, text):
    path = write(tmp_path, text)
    assert read_columns(path, ["mutant", "score"]) == {"mutant": ["A1G"], "score": ["1"]}


def test_gzip(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"mutant\nA1G\n"))
    assert read_columns(path, ["mutant"]) == {"mutant": ["A1G"]}
    path.write_bytes(gzip.compress(b"mutant\n" + b"A1G\n" * 10_000)[:-20])
    with pytest.raises(DataError, match="damaged"):
        read_columns(path, ["mutant"])
    path.write_bytes(b"mutant\nA1G\n")
    with pytest.raises(DataError, match="damaged"):
        read_columns(path, ["mutant"])


@pytest.mark.parametrize(
    ("text", "row", "column", "says"),
    [
        ("", None, None, "the file is empty"),
        ("\n\n", None, None, "the file is empty"),
        ("mutation,score\nA1G,1\n", 1, "mutant", r"missing \(found: mutation, score\)"),
        ("mutant,score,score\nA1G,1,2\n", 1, "score", "'score' twice; keep one"),
        ("mutant;score\nA1G;1\n", None, None, "not separated by commas"),
        ("mutant\tscore\nA1G\t1\n", None, None, "not separated by commas"),
        ("mutant,score\nA1G,1\nA1C\n", 3, None, "1 cells and the header 2"),
        ("mutant,score\nA1G,1,5\n", 2, None, "3 cells and the header 2"),
        ("mutant,score\nA1G,1\n\nA1C,1\n", 3, None, "the row is empty; delete"),
        ('mutant,score\n"A1G,1\n', None, None, "not a csv file"),
    ],
)
def test_bad_files_are_located(tmp_path, text, row, column, says):
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=says) as caught:
        read_columns(path, ["mutant", "score"])
    assert (caught.value.file, caught.value.row, caught.value.column) == (str(path), row, column)


def test_files_that_are_no_text_files(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_columns(tmp_path / "none.csv", ["mutant"])
    with pytest.raises(DataError, match="a folder"):
        read_columns(tmp_path, ["mutant"])
    with pytest.raises(DataError, match="not UTF-8"):
        read_columns(write(tmp_path, "mutant\né\n", encoding="latin-1"), ["mutant"])


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_read_exactly(value):
    assert parse_number(repr(value)) == value


@given(st.text(max_size=8))
def test_any_text_is_a_finite_number_or_refused(text):
    try:
        value = parse_number(text)
    except DataError as error:
        told = bool(error.mend)
    else:
        told = math.isfinite(value) and value == float(text)
    assert told


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("nan", "missing"),
        ("NA", "missing"),
        ("#N/A", "not a number"),
        ("inf", "infinite"),
        ("-Infinity", "infinite"),
        ("1e999", "too large"),
        ("1,5", "decimal comma"),
        (" 1.5", "space"),
        ("1_000", "not a number"),
        ("0x1F", "not a number"),
        ("1.2.3", "not a number"),
        ("high", "not a number"),
        ("٣", "not a number"),
    ],
)
def test_bad_numbers_are_located(text, says):
    with pytest.raises(DataError, match=says) as caught:
        parse_numbers(["1", text], file="a.csv", column="score")
    assert str(caught.value).startswith("a.csv, row 3, column 'score': ")
