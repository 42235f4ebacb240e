import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutmeta_lib.errors import DataError
from mutmeta_lib.fasta import read_fasta
from mutmeta_lib.mutations import AMINO_ACIDS

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
        ("MKT\n", "begin each record"),
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


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_fasta(tmp_path / "none.fasta")
