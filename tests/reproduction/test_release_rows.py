import pytest
import torch
from release_copy import WILD, backwards, write_table

from mutmeta_lib.data.variants import apply_variant, format_variant, parse_variant
from mutmeta_lib.reproduction.release import read_release_file
from mutmeta_lib.reproduction.release_rows import encode_rows, release_variants
from mutmeta_lib.tasks.encodings import ENCODINGS, encode_variants
from mutmeta_lib.tasks.vocabulary import TINY_VOCABULARY


@pytest.fixture
def file(tmp_path):
    rows = [(*backwards(p, "W"), 0.1 * p, "domain", "deltag_t") for p in (1, 5)]
    rows += [(WILD, ["K2R"], 1.0, "fireprot", "ddG"), (WILD, ["K2K"], 0.0, "fireprot", "ddG")]
    path = write_table(tmp_path, "combined_ddG_test", rows, "ddG")
    return read_release_file(path, "combined_ddG_test")


def test_restoring_turns_only_backwards_rows_round(file):
    restored = release_variants(file, restore=True)
    assert {wild_type for wild_type, _ in restored} == {WILD}
    assert [format_variant(v) for _, v in restored] == ["M1W", "Y5W", "K2R", "WT"]
    stated = release_variants(file, restore=False)
    assert [format_variant(v) for _, v in stated] == ["W1M", "W5Y", "K2R", "WT"]
    assert stated[2:] == restored[2:]
    assert [w for w, _ in stated[:2]] == [apply_variant(v, w) for w, v in restored[:2]]
    assert [apply_variant(v, w) for w, v in stated[:2]] == [WILD, WILD]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_rows_of_one_wild_type_are_encoded_like_an_assay(encoding):
    variants = [parse_variant(text) for text in ("K2R", "WT", "T3G:A4S")]
    ours = encode_rows([(WILD, v) for v in variants], encoding, TINY_VOCABULARY, 40)
    theirs = encode_variants(encoding, WILD, variants, TINY_VOCABULARY, 40)
    for name in ("token_ids", "mask", "sites"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))


def test_wild_types_may_differ_in_length():
    rows = [("MK", parse_variant("K2R")), (WILD, parse_variant("T3G"))]
    batch = encode_rows(rows, "mutant", TINY_VOCABULARY, 40)
    assert batch.mask.sum(dim=1).tolist() == [3, 11]
    assert batch.sites.nonzero().tolist() == [[0, 2], [1, 3]]
    assert len(encode_rows([], "mutant", TINY_VOCABULARY, 40)) == 0
