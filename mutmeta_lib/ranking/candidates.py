"""What is to be ranked: all single variants, pairs of the best of them, or a list."""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

from mutmeta_lib.data.variants import Variant, check_variant, parse_variant, single_variants
from mutmeta_lib.errors import DataError, located
from mutmeta_lib.ranking.tables import read_variants

SINGLES, DOUBLES, MOST = "singles", "doubles-of-top:", 500_000


def read_candidates(
    given: str | Path | Sequence[Variant | str],
    wild_type: str,
    best: Callable[[int], list[Variant]],
) -> list[Variant]:
    """Variants by word, file or list: each once, and each checked against the wild type.

    ``singles`` are all single substitutions, ``doubles-of-top:50`` all pairs of the 50 that
    ``best`` gives, at two positions; else the name of a table with a column of mutations.

    >>> best = lambda n: single_variants("MKT")[: 20 * n : 20]
    >>> [len(read_candidates(one, "MKT", best)) for one in ("singles", "doubles-of-top:3", ["K2A"])]
    [57, 3, 1]
    """
    if given == SINGLES:
        found = single_variants(wild_type)
    elif isinstance(given, str) and given.startswith(DOUBLES):
        text = given.removeprefix(DOUBLES)
        if not text.isdecimal() or not 2 <= int(text[:9]) <= 1000:
            raise DataError(f"'{given}' has no number", "write doubles-of-top:50, from 2 to 1000")
        pairs = combinations(best(int(text)), 2)
        found = [tuple(sorted(a + b)) for a, b in pairs if a[0].position != b[0].position]
    elif isinstance(given, str | Path):
        with located(file=given):
            if not Path(given).exists():
                told = "this is neither a file nor a word for candidates"
                raise DataError(told, "write singles, doubles-of-top:50, or the name of a table")
        found = read_variants(given, wild_type)
    else:
        found = [parse_variant(one) if isinstance(one, str) else one for one in given]
        for variant in found:
            check_variant(variant, wild_type)
    if len(found) > MOST:
        told = f"there are {len(found)} candidates, and at most {MOST} are ranked"
        raise DataError(told, "give fewer")
    return list(dict.fromkeys(found))
