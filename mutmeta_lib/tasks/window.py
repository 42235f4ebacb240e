"""The window of a long sequence: which residues are kept when not all fit the context."""

from bisect import bisect_right
from collections.abc import Sequence


def pieces_around(length: int, sites: Sequence[int], radius: int) -> list[range]:
    """The union of ``[site - radius, site + radius]`` within ``[0, length)``, as sorted ranges."""
    pieces: list[range] = []
    for site in sites:
        start, stop = max(0, site - radius), min(length, site + radius + 1)
        if pieces and start <= pieces[-1].stop:
            pieces[-1] = range(pieces[-1].start, stop)
        else:
            pieces.append(range(start, stop))
    return pieces


def cost(pieces: Sequence[range]) -> int:
    """Tokens that pieces take: their residues and a separator at every joint."""
    return sum(map(len, pieces)) + len(pieces) - 1


def window(length: int, sites: Sequence[int], budget: int) -> list[range]:
    """The residues to keep of a sequence that may be longer than the context.

    A sequence that fits is kept entire. Otherwise the residues within a radius of any mutated site
    are kept, with the largest radius that fits; each joint between pieces that do not touch costs
    one more token, a separator. Without a site the first residues are kept.

    Args:
        length: Residues in the sequence.
        sites: Indices (from 0) of the mutated residues, ascending.
        budget: Tokens available for residues and joints.

    Returns:
        Ascending, disjoint ranges of residue indices that hold all sites; empty if even the sites
        alone do not fit.

    >>> window(10, [2], 10)
    [range(0, 10)]
    >>> window(100, [2, 60], 9)
    [range(1, 4), range(59, 62)]
    >>> window(100, [], 9)
    [range(0, 9)]
    >>> window(100, [2, 60], 2)
    []

    """
    if length <= budget:
        return [range(length)]
    if not sites:
        return [range(budget)] if budget > 0 else []
    # The cost never falls as the radius grows: a joint vanishes only where residues fill it.
    fitting = bisect_right(
        range(length), budget, key=lambda radius: cost(pieces_around(length, sites, radius))
    )
    return pieces_around(length, sites, fitting - 1) if fitting else []
