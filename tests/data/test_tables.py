"""Tables, numbers and FASTA: what spreadsheets write is read, what is doubtful is located."""

import math
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from on_disk import refused, write

from mutmeta_lib.data.tables import parse_number, parse_numbers, read_columns, read_wild_type
from mutmeta_lib.data.variants import AMINO_ACIDS
from mutmeta_lib.errors import DataError


@pytest.mark.parametrize(
    "text",
    [
        "score,x,mutant\n1,a,A1G\n", "mutant,score\r\nA1G,1\r\n", "mutant,score\rA1G,1\r",
        "\ufeffmutant,score\nA1G,1\n", 'mutant,"score"\n"A1G",1', "mutant,score\nA1G,1\n\n\n",
        "mutant,score\nA1G,1\n,\n", " mutant , score \n A1G\t, 1\n", ",mutant,score\n0,A1G,1\n",
        "mutant;score\nA1G;1\n", "mutant\tscore\nA1G\t1\n", "score|mutant\n1|A1G\n",
        "mutant;score;note, free\nA1G;1;a, b\n",
        'mutant,score,note\nA1G,1,"two\nlines; and, signs"\n',
    ],
)  # fmt: skip
def test_what_spreadsheets_write_is_read(tmp_path, text):
    for name in ("scores.csv", "scores.csv.gz"):
        read = read_columns(write(tmp_path / name, text), ["mutant", "score"], ["absent"])
        assert read == {"mutant": ["A1G"], "score": ["1"]}


@pytest.mark.parametrize(
    ("text", "row", "column", "says"),
    [
        ("\n\n", None, None, "the file is empty"),
        ("mutants,Score\nA1G,1\n", 1, "mutant", "'mutant' and no 'score'.*'mutants'.*'Score'"),
        ("A1G,1\nA1C,2\n", 1, "mutant", "is the header missing"),
        ("\n\nmutant,score\nA1G,1\n", 1, None, "the first row is empty; begin with the header"),
        ("# a comment\nmutant,score\nA1G,1\n", 1, "mutant", "found: # a comment.*Begin the file"),
        ("mutant,score,score\nA1G,1,2\n", 1, "score", "'score' twice; keep one"),
        ("mutant,score\nA1G,0,31\n", 2, None, "decimals with a point, quote .* end on none"),
        ("mutant,score,\nA1G,1,\nA1C,0,31\n", 3, None, "'31' stands in a column without a name"),
        ("mutant,score\nA1G,1\nA1C\n", 3, None, "1 cells and the header 2; fill in"),
        ("mutant,score\nA1G,1\n\nA1C,1\n", 3, None, "the row is empty; delete"),
        ('mutant,score\nA1C,1\nA1G,"1"2\nA1D,2\n', 3, None, "quotation marks"),
        # A pair of stray quotation marks takes in the rows between them.
        ('mutant,score,n\nA1G,1,"x\nA1C,2,y\nA1D,3,z"\n', 2, None, "holds a row, 'A1C,2,y'"),
    ],
)
def test_bad_files_are_located(tmp_path, text, row, column, says):
    path = write(tmp_path / "scores.csv", text)
    with refused(says, path, row, column):
        read_columns(path, ["mutant", "score"])


@pytest.mark.parametrize("sign", [";", "\t", "|"])
@pytest.mark.parametrize(
    ("cells", "read"),
    [
        (["0,31", "-1,5", "2"], [0.31, -1.5, 2]),
        (["\u22120,31", "1,234"], [-0.31, 1.234]),
        (["1.234,5", "2,5"], [1234.5, 2.5]),
        (["0,31", "NA"], (3, "missing")),
        (["0,31", "high", "1,5"], (3, "'high' is not a number")),
        (["1,234", "2"], (2, "write 1234 or 1.234")),
        (["1,234,567", "0,5"], (2, "write 1234567")),
        (["1,5", "1.5"], (3, "'1.5' has a point, and other cells")),
        (["1.234", "1.234,5"], (2, "'1.234' has a point")),
    ],
)
def test_decimal_commas_are_read_where_nothing_else_can_be_meant(tmp_path, sign, cells, read):
    rows = "".join(f"A{i}G{sign}{cell}\n" for i, cell in enumerate(cells, start=1))
    path = write(tmp_path / "scores.csv", f"mutant{sign}score\n{rows}")
    with refused(read[1], path, read[0], "score") if isinstance(read, tuple) else nullcontext():
        texts = read_columns(path, ["mutant", "score"])["score"]
        assert parse_numbers(texts, file=path, column="score").tolist() == read


def test_files_that_are_no_text_files(tmp_path):
    cut = write(tmp_path / "cut.csv.gz", "mutant\n" + "A1G\n" * 10_000)
    cut.write_bytes(cut.read_bytes()[:-20])
    book = tmp_path / "scores.xlsx"
    book.write_bytes(b"PK\x03\x04\x14\x00\x08\x08\x98")  # how an Excel file begins
    for path, says in [
        (tmp_path / "none.csv", "does not exist"), (tmp_path, "a folder"),
        (write(tmp_path / "2.csv", "mutant\nA1G\n", encoding="utf-16"), "not UTF-8"),
        (book, "not UTF-8 text; save it .an Excel sheet, too. as"), (cut, "damaged"),
        (book / "mutant.csv", "cannot be read"), (tmp_path / ("long" * 100), "cannot be read"),
        (write(tmp_path / "3.csv", "mutant\n").rename(tmp_path / "3.csv.gz"), "damaged"),
    ]:  # fmt: skip
        for read in (lambda path: read_columns(path, ["mutant"]), read_wild_type):
            with refused(says, path):
                read(path)


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from("-\u2212\u2010\u2013"))
def test_numbers_are_read_exactly_with_any_minus(value, minus):
    assert parse_number(f" {value!r}\u00a0".replace("-", minus)) == value


@given(st.text("+-.,eE_ 0159\u2212\u0663", max_size=8))
def test_any_text_is_a_finite_number_or_refused(text):
    try:
        value = parse_number(text)
    except DataError as error:
        assert error.mend  # noqa: PT017
    else:
        assert math.isfinite(value)
        assert value == float(text.strip().replace("\u2212", "-"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("  ", "empty"), ("nan", "missing"), ("#N/A", "missing"), ("-", "missing"),
        ("-Infinity", "infinite"), ("1e999", "infinite"), ("0,312", "write 0.312$"),
        ("1.234,5", "write 1234.5$"), ("1_000", "not a number"), ("٣", "not a number"),
    ],
)  # fmt: skip
def test_bad_numbers_are_located(text, says):
    with refused(says, "a.csv", 3, "score"):
        parse_numbers(["1", text], file="a.csv", column="score")


names = st.text(alphabet="abcXYZ019_|.-", min_size=1, max_size=12)
proteins = st.text(alphabet=AMINO_ACIDS, min_size=1, max_size=200).filter(
    lambda text: len(text) < 20 or set(text) - set("ACGT")
)


@given(
    st.dictionaries(names, proteins, min_size=1, max_size=5),
    st.integers(1, 80),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
)
def test_a_fasta_file_gives_each_record_back(tmp_path_factory, records, width, end):
    lines = []
    for name, sequence in records.items():
        lines += [f">{name} and a description"]
        lines += [sequence[i : i + width] for i in range(0, len(sequence), width)]
    path = write(tmp_path_factory.mktemp("fasta") / "a.fasta", end.join(lines), "utf-8-sig")
    assert {name: read_wild_type(path, name) for name in records} == records
    assert len(records) > 1 or read_wild_type(path) == sequence  # one needs no name


@pytest.mark.parametrize(
    ("text", "record", "says"),
    [
        ("", None, "the file is empty"), (">a\nMKUT\n", None, "'U' at position 3; write C; use AC"),
        ("MKT\n", None, "the sequence has no name; write a line '>name'"),
        (">a\n>b\nMKT\n", None, "the wild type 'a' is empty"),
        (">a\nMKT\n>a b\nMKT\n", None, "'a' occurs twice"),
        (">a x\nMKT\n>b\nMRT\n", None, "2 sequences; choose one with --record: a, b"),
        (">a x\nMKT\n>b\nMRT\n", "c", "no record 'c'; use one of a, b"),
    ],
)  # fmt: skip
def test_bad_fasta_is_refused_with_a_mend(tmp_path, text, record, says):
    path = write(tmp_path / "bad.fasta", text)
    with refused(says, path):
        read_wild_type(path, record)
