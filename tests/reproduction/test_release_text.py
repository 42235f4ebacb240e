import pytest
from hypothesis import given
from hypothesis import strategies as st
from release_copy import WILD

from mutmeta_lib.data.variants import AMINO_ACIDS
from mutmeta_lib.reproduction.release import Written, as_stated
from mutmeta_lib.reproduction.release_text import release_text
from mutmeta_lib.tasks.encodings import encode
from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY

sequences = st.text(AMINO_ACIDS, min_size=2, max_size=40)


def words(*texts):
    return [Written(t[0], int(t[1:-1]), t[-1]) for t in texts]


def test_one_mutation_is_marked_in_both_forms():
    spaced = release_text(WILD, words("T3G"))
    assert spaced.text == "M K  [SEP] T [SEP] G [SEP] A Y I A K Q R"
    plain = release_text(WILD, words("T3G"), spaced=False)
    assert plain.text == "MK [SEP] T [SEP] G [SEP] AYIAKQR"
    assert spaced.fates == plain.fates == ("in place",)


@given(sequences, st.data())
def test_the_marked_text_is_the_separator_encoding(sequence, data):
    position = data.draw(st.integers(1, len(sequence)))
    old = sequence[position - 1]
    new = data.draw(st.sampled_from([a for a in AMINO_ACIDS if a != old]))
    text = release_text(sequence, [Written(old, position, new)]).text
    variant = as_stated(sequence, [Written(old, position, new)])[1]
    ours = encode("separator", sequence, variant, TINY_VOCABULARY, 256)
    assert ["[CLS]", *text.split()] == TINY_VOCABULARY.show(ours.token_ids)


def test_a_later_second_mutation_is_looked_up_in_the_lengthened_text():
    assert release_text(WILD, words("K2R", "Q9L")).fates == ("in place", "skipped")
    assert release_text(WILD, words("Q9L", "K2R")).fates == ("in place", "in place")


def test_a_second_mutation_can_land_on_a_letter_of_the_first():
    # Character 6 of "M  [SEP] K [SEP] R ..." is the P of the first mark.
    written = release_text("MKAPAAAA", words("K2R", "P4L"))
    assert "M  [SEP] K" in release_text("MKAPAAAA", words("K2R")).text
    assert written.fates == ("in place", "astray")


def test_only_two_mutations_are_read():
    fates = release_text(WILD, words("Q9L", "K2R", "M1L")).fates
    assert fates == ("in place", "in place", "not read")


def test_a_wrong_letter_or_no_amino_acid_is_skipped():
    assert release_text(WILD, words("A2R")).fates == ("skipped",)
    assert release_text(WILD, words("K2X")).text == " ".join(WILD)
    assert release_text(WILD, words("K2R", "A300G")).fates == ("in place", "skipped")


@pytest.mark.parametrize(("spaced", "last"), [(True, 477), (False, 952)])
def test_texts_above_the_limit_become_words(spaced, last):
    """2n + 20 characters spaced, n + 22 plain, against 974."""
    first = words("A1G", "A2G")
    kept = release_text("A" * last, first[:1], spaced=spaced)
    assert (kept.fates, len(kept.text)) == (("in place",), 974)
    longer = release_text("A" * (last + 1), [*first, *words("A3G")], spaced=spaced)
    assert longer.fates == ("as words", "as words", "not read")
    assert longer.text.endswith("A [SEP] A1G A2G")
    cut = release_text("A" * 2000, first[:1], spaced=spaced)
    assert cut.text.count("A") == 924 + 1
