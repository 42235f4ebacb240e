import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutmeta_lib.data.fasta import read_fasta, read_wild_type
from mutmeta_lib.data.variants import AMINO_ACIDS
from mutmeta_lib.errors import DataError

names = st.text(alphabet="abcXYZ019_|.-", min_size=1, max_size=12)
sequences = st.text(alphabet=AMINO_ACIDS, min_size=1, max_size=200)


@given(records=st.dictionaries(names, sequences, min_size=1, max_size=5), width=st.integers(1, 80))
def test_what_is_written_is_read(tmp_path_factory, records, width):
    path = tmp_path_factory.mktemp("fasta") / "a.fasta"
    lines = []
    for name, sequence in records.items():
        lines += [f">{name} and a description"]
        lines += [sequence[i : i + width] for i in range(0, len(sequence), width)]
    path.write_text("\n".join(lines) + "\n")
    assert read_fasta(path) == records


def test_windows_line_ends_and_blank_lines_are_read(tmp_path):
    path = tmp_path / "a.fasta"
    path.write_bytes(b"\xef\xbb\xbf>a x\r\nMKT\r\nAYI\r\n\r\n>b\r\nMKX\r\n")
    assert read_fasta(path) == {"a": "MKTAYI", "b": "MKX"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty|not FASTA"),
        ("MKT\n", "the sequence has no name; write a line '>name'"),
        ("mutant,score\nK2R,1\n", "this is a table, not FASTA"),
        ("mutant\tscore\nK2R\t1\n", "this is a table, not FASTA"),
        (">a\nMKUT\n", "'U' at position 3; write C or X"),
        (">a\nATGGCGAAATTTCCCGGGATT\n", "DNA"),
        (">a\nmkt\n", "in 'a', the wild type has lower-case letters; write it in capitals"),
        (">a\nMKT*\n", "leave the final"),
        (">a\nM-T\n", "'-' at position 2"),
        (">a\n>b\nMKT\n", "in 'a', the wild type is empty"),
        (">\nMKT\n", "no name"),
        (">a\nMKT\n>a b\nMKT\n", "'a' occurs twice"),
    ],
)
def test_bad_files_are_refused_with_a_mend(tmp_path, text, says):
    path = tmp_path / "bad.fasta"
    path.write_text(text)
    with pytest.raises(DataError, match=says) as caught:
        read_fasta(path)
    assert str(caught.value).startswith(str(path))


def test_what_is_no_file(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_fasta(tmp_path / "none.fasta")
    with pytest.raises(DataError, match="this is a folder"):
        read_fasta(tmp_path)


def test_one_of_several_sequences_is_chosen_by_name(tmp_path):
    path = tmp_path / "a.fasta"
    path.write_text(">a x\nMKT\n>b\nMRT\n")
    assert [read_wild_type(path, name) for name in "ab"] == ["MKT", "MRT"]
    with pytest.raises(DataError, match=r"2 sequences; .*--record \(one of a, b\)"):
        read_wild_type(path)
    with pytest.raises(DataError, match="no record 'c'; use one of a, b"):
        read_wild_type(path, "c")
    path.write_text(">a x\nMKT\n")
    assert read_wild_type(path) == "MKT"
