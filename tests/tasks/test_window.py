from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mutmeta_lib.tasks.window import cost, pieces_around, window


@st.composite
def cases(draw):
    length = draw(st.integers(1, 200))
    sites = sorted(draw(st.sets(st.integers(0, length - 1), max_size=6)))
    return length, sites, draw(st.integers(0, 220))


@given(cases())
def test_a_window_holds_all_sites_in_disjoint_ranges_within_the_budget(case):
    length, sites, budget = case
    pieces = window(length, sites, budget)
    if not pieces:
        assert budget < max(1, cost(pieces_around(length, sites, 0)))
        return
    assert cost(pieces) <= budget
    assert all(any(site in piece for piece in pieces) for site in sites)
    assert all(left.stop < right.start for left, right in pairwise(pieces))
    assert pieces[0].start >= 0
    assert pieces[-1].stop <= length


@given(cases())
def test_no_larger_radius_would_fit(case):
    length, sites, budget = case
    pieces = window(length, sites, budget)
    if not sites or not pieces or pieces == [range(length)]:
        return
    radius = next(r for r in range(length) if pieces_around(length, sites, r) == pieces)
    wider = next(
        around
        for r in range(radius, length + 1)
        if (around := pieces_around(length, sites, r)) != pieces
    )
    assert cost(wider) > budget


@given(cases())
def test_the_cost_never_falls_as_the_radius_grows(case):
    length, sites, _ = case
    costs = [cost(pieces_around(length, sites, radius)) for radius in range(length)]
    assert not sites or costs == sorted(costs)


@given(cases())
def test_what_fits_is_kept_entire(case):
    length, sites, _ = case
    assert window(length, sites, length) == [range(length)]
