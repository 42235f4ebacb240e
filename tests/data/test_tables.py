import gzip
import math
import re
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutmeta_lib.data.tables import parse_number, parse_numbers, read_columns
from mutmeta_lib.errors import DataError


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
        "mutant,score\rA1G,1\r",
        " mutant , score \n A1G\t, 1\n",
        ",mutant,score\n0,A1G,1\n",
        "mutant;score\nA1G;1\n",
        "mutant\tscore\nA1G\t1\n",
        "score|mutant\n1|A1G\n",
        "mutant;score;note, free\nA1G;1;a, b\n",
        'mutant,score,note\nA1G,1,"two\nlines; and, signs"\n',
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
        ("change,score\nA1G,1\n", 1, "mutant", r"no column 'mutant' \(found: change, score\); add"),
        ("Mutant,score\nA1G,1\n", 1, "mutant", "did you mean 'Mutant'"),
        ("mutants,Score\nA1G,1\n", 1, "mutant", "'mutant' and no 'score'.*'mutants'.*'Score'"),
        ("A1G,1\nA1C,2\n", 1, "mutant", "is the header missing"),
        ("\n\nmutant,score\nA1G,1\n", 1, None, "the first row is empty; begin with the header"),
        ("mutant score\nA1G 1\n", 1, "mutant", "separated by blanks; separate them by commas"),
        (">p\nMKT\n", 1, "mutant", "this is FASTA, not a table"),
        ("# a comment\nmutant,score\nA1G,1\n", 1, "mutant", "delete the lines with '#'"),
        ("mutant,score,score\nA1G,1,2\n", 1, "score", "'score' twice; keep one"),
        ("mutant;score;score\nA1G;1;2\n", 1, "score", "'score' twice; keep one"),
        ("mutant,score\nA1G,1,\nA1C,2,\n", 2, None, "delete the separator left over at its end"),
        ("mutant,score\nA1G,0,31\n", 2, None, "3 cells and .*decimals with a point"),
        ("mutant,score,\nA1G,1,\nA1C,0,31\n", 3, None, "'31' stands in a column without a name"),
        ("mutant,score\nA1G,1\nA1C\n", 3, None, "1 cells and the header 2"),
        ("mutant,score\nA1G,1,5\n", 2, None, "3 cells and the header 2"),
        ("mutant,score\nA1G,1\n\nA1C,1\n", 3, None, "the row is empty; delete"),
        ('mutant,score\n"A1G,1\n', 2, None, "quotation mark is opened and not closed"),
        ('mutant,score\nA1C,1\nA1G,"1"2\nA1D,2\n', 3, None, "quotation marks"),
        (f"mutant,score\nA1C,1\nA1G,{'1' * 200_000}\n", 3, None, "field limit.*shorten the cell"),
    ],
)
def test_bad_files_are_located(tmp_path, text, row, column, says):
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=says) as caught:
        read_columns(path, ["mutant", "score"])
    assert (caught.value.file, caught.value.row, caught.value.column) == (str(path), row, column)


def test_a_column_may_stand_in_for_another(tmp_path):
    path = write(tmp_path, "sequence,score\nMK,1\n")
    instead = {"mutant": ["sequence"]}
    read = read_columns(path, ["mutant", "score"], instead=instead)
    assert read == {"sequence": ["MK"], "score": ["1"]}
    with pytest.raises(DataError, match="no column 'score'"):
        read_columns(write(tmp_path, "sequence\nMK\n"), ["mutant", "score"], instead=instead)


@pytest.mark.parametrize("sign", [";", "\t", "|"])
@pytest.mark.parametrize(
    ("cells", "read"),
    [
        (["0,31", "-1,5", "2"], [0.31, -1.5, 2]),
        (["\u22120,31", "1,234"], [-0.31, 1.234]),
        (["0,31", "NA"], None),
        (["1,234", "2"], None),
        (["1,234,567", "0,5"], None),
        (["1,5", "1.5"], None),
    ],
)
def test_decimal_commas_are_read_where_nothing_else_can_be_meant(tmp_path, sign, cells, read):
    rows = "".join(f"A{i}G{sign}{cell}\n" for i, cell in enumerate(cells, start=1))
    path = write(tmp_path, f"mutant{sign}score\n{rows}")
    texts = read_columns(path, ["mutant", "score"])["score"]
    if read is not None:
        assert parse_numbers(texts, file=path, column="score").tolist() == read
        return
    with pytest.raises(DataError):
        parse_numbers(texts, file=path, column="score")


def test_between_commas_a_decimal_comma_is_refused(tmp_path):
    path = write(tmp_path, 'mutant,score\nA1G,"0,31"\n')
    texts = read_columns(path, ["mutant", "score"])["score"]
    with pytest.raises(DataError, match=r"row 2, column .score.: .*decimal comma; write 0\.31"):
        parse_numbers(texts, file=path, column="score")


def test_files_that_are_no_text_files(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_columns(tmp_path / "none.csv", ["mutant"])
    with pytest.raises(DataError, match="a folder"):
        read_columns(tmp_path, ["mutant"])
    with pytest.raises(DataError, match="not UTF-8"):
        read_columns(write(tmp_path, "mutant\né\n", encoding="latin-1"), ["mutant"])
    with pytest.raises(DataError, match="not UTF-8"):
        read_columns(write(tmp_path, "mutant\nA1G\n", encoding="utf-16"), ["mutant"])
    book = tmp_path / "scores.xlsx"
    with zipfile.ZipFile(book, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(DataError, match="Excel file; save the sheet as csv"):
        read_columns(book, ["mutant"])
    with pytest.raises(DataError, match="cannot be read"):
        read_columns(book / "mutant.csv", ["mutant"])


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
        told = math.isfinite(value) and value == float(re.sub("[‐‑‒–−﹣－]", "-", text))
    assert told


@pytest.mark.parametrize(
    ("text", "value"),
    [(" 1.5 ", 1.5), ("\u22121.5", -1.5), ("–1e\u22123", -0.001), ("1.5\u00a0", 1.5)],
)
def test_what_word_processors_make_of_numbers_is_read(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("nan", "missing"),
        ("NA", "missing"),
        ("#N/A", "missing"),
        ("-", "missing"),
        ("inf", "infinite"),
        ("-Infinity", "infinite"),
        ("1e999", "too large"),
        ("1,5", "decimal comma; write 1.5"),
        ("0,312", "decimal comma; write 0.312"),
        ("1,234", "thousands separator or decimal comma; write 1234 or 1.234"),
        ("1,234,567", "thousands separator.*write 1234567"),
        ("1.234,5", "thousands separators and a decimal comma; write 1234.5"),
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
