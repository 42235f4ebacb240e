"""The public repository's files as one table, and the text that its code makes of a row."""

import gzip
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from release_copy import WILD, backwards, write_table

from mutmeta_lib.data.variants import AMINO_ACIDS, apply_variant, format_variant
from mutmeta_lib.errors import DataError
from mutmeta_lib.reproduction import released
from mutmeta_lib.reproduction.released import Written, as_stated, read_release, release_text
from mutmeta_lib.tasks.encodings import encode
from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY

ROWS = [(WILD, ["K2R"], 0.5, "fireprot", "dTm"), (WILD, ["T3G", "R10S"], -1.25, "fireprot", "dTm")]


def words(*texts):
    return tuple(Written(t[0], int(t[1:-1]), t[-1]) for t in texts)


@pytest.mark.parametrize("id", ["fireprot_dTm_test", "fireprot_dTm_raw"])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_every_layout_reads_the_same(tmp_path, id, flat, packed):
    path = write_table(tmp_path, id, ROWS, flat=flat, packed=packed)
    assert released.find_table(tmp_path, id) == path
    rows, hashes = read_release(tmp_path)
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    assert hashes == {id: hashlib.sha256(content).hexdigest()}
    assert rows["label"].tolist() == [0.5, -1.25]
    assert rows["mutations"].tolist() == [words("K2R"), words("T3G", "R10S")]
    about = rows[["table", "name", "part", "source", "feature"]].iloc[-1].tolist()
    assert about == [id, "fireprot_dTm", id.rpartition("_")[2], "fireprot", "dTm"]


def test_what_is_asked_for_must_be_there(tmp_path):
    with pytest.raises(DataError, match="give a copy of the public repository"):
        read_release(tmp_path)
    write_table(tmp_path, "fireprot_dTm_test", ROWS)
    with pytest.raises(DataError, match="no table 'fireprot_dTm_train'"):
        read_release(tmp_path, ["fireprot_dTm_test", "fireprot_dTm_train"])


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (("", ["K2R"], 1), "row 3, column 'sequence'"),
        ((WILD, [], 1), "row 3, column 'mutation1'"),
        ((WILD, ["2R"], 1), "'2R' is not a letter, a position of the sequence and a letter"),
        ((WILD, ["K2R", "K0R"], 1), "row 3, column 'mutation2'"),
        (
            (WILD, ["K11R"], 1),
            "'K11R' is not a letter, a position of the sequence and a letter; count from 1 to 10",
        ),
        ((WILD, ["K2R"], "high"), "row 3, column 'dTm'"),
        ((WILD, ["K2R"], ""), "the value is empty"),
        (None, "column 'dTm'"),  # another label's column is not taken
    ],
)
def test_a_row_that_cannot_be_read_is_named_not_dropped(tmp_path, row, told):
    rows, label = ([ROWS[0], (*row, "s", "f")], None) if row else (ROWS, "ddG")
    write_table(tmp_path, "fireprot_dTm_test", rows, label)
    with pytest.raises(DataError, match=re.escape(told)):
        read_release(tmp_path)


def test_a_row_taken_at_its_word_or_undone():
    sequence, mutations = backwards(2, "W")
    assert released.undo(sequence, words(*mutations)) == WILD
    assert apply_variant(as_stated(words(*mutations)), sequence) == WILD
    assert format_variant(as_stated(words("T3G", "K2K"))) == "T3G", "K2K changes nothing"
    with pytest.raises(DataError, match="not an amino acid"):
        as_stated(words("K2X"))


@given(st.text(AMINO_ACIDS, min_size=2, max_size=40), st.data())
def test_the_marked_text_is_the_separator_encoding(sequence, data):
    position = data.draw(st.integers(1, len(sequence)))
    old = sequence[position - 1]
    new = data.draw(st.sampled_from([a for a in AMINO_ACIDS if a != old]))
    mutation = (Written(old, position, new),)
    spaced, joined = (release_text(sequence, mutation, spaced=form) for form in (True, False))
    assert spaced.fates == joined.fates == ("in place",)
    assert spaced.text.replace(" ", "") == joined.text.replace(" ", "")
    ours = encode("separator", sequence, as_stated(mutation), TINY_VOCABULARY, 256)
    assert ["[CLS]", *spaced.text.split()] == TINY_VOCABULARY.show(ours.token_ids)


@pytest.mark.parametrize(
    ("sequence", "mutations", "fates"),
    [
        (WILD, ["K2R", "Q9L"], ["in place", "skipped"]),  # looked up in the lengthened text
        (WILD, ["Q9L", "K2R"], ["in place", "in place"]),
        (WILD, ["Q9L", "K2R", "M1L"], ["in place", "in place", "not read"]),
        # Character 6 of "M  [SEP] K [SEP] R ..." is the P of the first mark.
        ("MKAPAAAA", ["K2R", "P4L"], ["in place", "astray"]),
        (WILD, ["A2R"], ["skipped"]),
        (WILD, ["K2X"], ["skipped"]),
        (WILD, ["K2R", "A300G"], ["in place", "skipped"]),
    ],
)
def test_what_becomes_of_each_mutation(sequence, mutations, fates):
    written = release_text(sequence, words(*mutations))
    assert list(written.fates) == fates
    marked = fates.count("in place") + fates.count("astray")
    assert written.text.count("[SEP]") == 3 * marked - fates.count("astray"), "one breaks another"


@pytest.mark.parametrize(("spaced", "last"), [(True, 477), (False, 952)])
def test_texts_above_the_limit_become_words(spaced, last):
    """2n + 20 characters spaced, n + 22 joined, against 974."""
    first = words("A1G", "A2G")
    kept = release_text("A" * last, first[:1], spaced=spaced)
    assert (kept.fates, len(kept.text)) == (("in place",), 974)
    longer = release_text("A" * (last + 1), (*first, *words("A3G")), spaced=spaced)
    assert longer.fates == ("as words", "as words", "not read")
    assert longer.text.endswith("A [SEP] A1G A2G")
    assert release_text("A" * 2000, first[:1], spaced=spaced).text.count("A") == 924 + 1
