"""Sums, intervals, probabilities and verdicts, by hand."""

from math import erf, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.estimate import (
    Capacity,
    Demand,
    DeviceEstimate,
    Estimate,
    between,
    combined,
    exact,
    probability_of_fitting,
    verdict_of,
)

NO_HOST = DeviceEstimate("host", 0, None, ())
SIZES = st.integers(0, 2**44)


def device(limit, *terms, interval=None):
    return DeviceEstimate("GPU", 0, limit, tuple(terms), interval)


def estimate(*devices, host=NO_HOST, demands=(), refusal=""):
    return Estimate("m", "e", "1", "serve", tuple(devices), host, demands=tuple(demands), refusal=refusal)


def test_independent_errors_add_in_quadrature_on_each_side():
    # below: sqrt(3^2 + 4^2) = 5; above: sqrt(5^2 + 12^2) = 13; the exact term adds nothing.
    terms = (between("a", 100, 97, 105), between("b", 200, 196, 212), exact("c", 50))
    assert combined(terms) == (350, 345, 363)
    assert combined(()) == (0, 0, 0)


def test_an_interval_always_holds_its_estimate():
    term = between("a", 100, 120, 90)
    assert (term.low_bytes, term.bytes, term.high_bytes) == (100, 100, 100)


@pytest.mark.parametrize(
    ("limit", "verdict"),
    [(363, "fits"), (362, "tight"), (345, "tight"), (344, "does_not_fit"), (None, "unknown")],
)
def test_the_verdict_compares_the_interval_with_the_limit(limit, verdict):
    terms = (between("a", 100, 97, 105), between("b", 200, 196, 212), exact("c", 50))  # 345 to 363
    assert device(limit, *terms).verdict == verdict


def test_an_interval_of_its_own_replaces_the_terms():
    place = device(100, between("a", 90, 10, 200), interval=(88, 92))
    assert place.interval_bytes == (88, 92)
    assert place.verdict == "fits"
    assert place.peak_bytes == 90


def test_the_probability_is_five_percent_at_either_end_of_the_interval():
    # A 90 % interval leaves 5 % on each side, whatever the two sides' widths.
    assert probability_of_fitting(100, 80, 110, 110) == pytest.approx(0.95)
    assert probability_of_fitting(100, 80, 110, 80) == pytest.approx(0.05)
    assert probability_of_fitting(100, 80, 110, 100) == 0.5
    # One standard deviation above: 10 / 1.6449 = 6.08, of which 5 are 0.8224 deviations.
    assert probability_of_fitting(100, 80, 110, 105) == pytest.approx(0.5 + erf(0.822427 / sqrt(2)) / 2)


def test_an_exact_size_fits_or_does_not():
    assert probability_of_fitting(100, 100, 100, 100) == 1.0
    assert probability_of_fitting(100, 100, 100, 99) == 0.0


def test_a_demand_is_judged_against_the_pools_interval():
    # The pool holds 80 to 110, 100 most likely: it certainly holds 80, and certainly not 111.
    pool = (100, 80, 110)
    assert [Demand("d", need, *pool).verdict for need in (80, 81, 110, 111)] == [
        "fits",
        "tight",
        "tight",
        "does_not_fit",
    ]
    assert Demand("d", 80, *pool).probability == pytest.approx(0.95)
    assert Demand("d", 100, *pool).probability == 0.5
    assert Demand("d", 110, *pool).probability == pytest.approx(0.05)


def test_the_worst_place_decides():
    fits, tight, bursts = (device(limit, between("a", 100, 90, 110)) for limit in (120, 105, 80))
    assert estimate(fits, tight).verdict == "tight"
    assert estimate(fits, tight, bursts).verdict == "does_not_fit"
    assert estimate(fits, tight, bursts).probability == bursts.probability
    assert estimate(fits, host=DeviceEstimate("host", 0, 50, (exact("swap", 51),))).verdict == "does_not_fit"
    assert estimate(fits, demands=[Demand("d", 90, 100, 80, 110)]).verdict == "tight"


def test_what_is_not_known_neither_passes_nor_hides_a_failure():
    blind, bursts = device(None, exact("a", 1)), device(80, exact("a", 100))
    assert (estimate(blind).verdict, estimate(blind).probability) == ("unknown", None)
    assert estimate(device(200, exact("a", 100)), blind).verdict == "unknown"
    assert estimate(blind, bursts).verdict == "does_not_fit"
    # A host of unknown size is no reason to doubt a device that is known.
    assert estimate(device(200, exact("a", 100))).verdict == "fits"


def test_a_refusal_overrides_memory():
    refused = estimate(device(200, exact("a", 100)), refusal="heads")
    assert (refused.verdict, refused.probability) == ("does_not_fit", 0.0)
    assert refused.as_json()["refusal"] == "heads"
    assert "refusal" not in estimate(device(200, exact("a", 100))).as_json()


def test_json_has_the_sums():
    printed = estimate(device(400, between("a", 100, 97, 105), between("b", 200, 196, 212))).as_json()
    assert printed["devices"][0]["peak_bytes"] == 300
    assert (printed["devices"][0]["low_bytes"], printed["devices"][0]["high_bytes"]) == (295, 313)
    assert printed["capacity"] is None
    assert Capacity(10, 20, 1 / 3).as_json()["max_concurrency"] == 0.3333


@given(SIZES, SIZES, SIZES, SIZES, SIZES)
def test_probability_and_verdict_agree_and_grow_with_the_limit(size, below, above, limit, more):
    low, high = max(0, size - below), size + above
    chance = probability_of_fitting(size, low, high, limit)
    assert 0 <= chance <= probability_of_fitting(size, low, high, limit + more) <= 1
    verdict = verdict_of(low, high, limit)
    assert (verdict == "fits") == (high <= limit)
    if verdict == "fits":
        assert chance >= 0.95 - 1e-9
    if verdict == "does_not_fit":
        assert chance <= 0.05 + 1e-9


@given(st.lists(st.tuples(SIZES, SIZES, SIZES), max_size=6))
def test_a_sum_is_no_less_certain_than_its_parts_together(sizes):
    terms = [between(f"t{at}", *size) for at, size in enumerate(sizes)]
    total, low, high = combined(terms)
    assert total == sum(term.bytes for term in terms)
    assert sum(term.low_bytes for term in terms) - 1 <= low <= total
    assert total <= high <= sum(term.high_bytes for term in terms) + 1
