from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.metrics.distributions import Histogram, Window, ordered_by_label, percentile, summary

values = st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=300)


@given(values, st.floats(0, 100) | st.sampled_from([0, 1, 5, 25, 50, 90, 95, 99, 99.9, 100]))
def test_a_percentile_is_numpys_inverted_cdf(found: list[float], percent: float) -> None:
    """For any values and any percentage, exactly."""
    expected = np.percentile(np.array(found, dtype=np.float64), percent, method="inverted_cdf")
    assert percentile(sorted(found), percent) == expected


@given(values)
def test_a_summary_says_what_numpy_says(found: list[float]) -> None:
    """Minimum, maximum, mean, and the three percentiles."""
    said = summary(sorted(found))
    array = np.array(found, dtype=np.float64)
    assert said["count"] == len(found)
    assert (said["min"], said["max"]) == (array.min(), array.max())
    assert said["mean"] == pytest.approx(array.mean(), rel=1e-9, abs=1e-3)
    for percent in (50, 95, 99):
        assert said[f"p{percent}"] == np.percentile(array, percent, method="inverted_cdf")


def test_a_summary_of_nothing_makes_nothing_up() -> None:
    """None where there is no figure, and the same names as ever."""
    empty = summary([])
    assert empty.keys() == summary([1.0]).keys()
    assert empty.pop("count") == 0
    assert set(empty.values()) == {None}


def test_a_window_is_bounded_in_number_and_in_age() -> None:
    """The oldest go first, for either reason, and a value seen many times takes no more room than there is."""
    window = Window(3)
    for at in range(5):
        window.add(at, "m", at * 10.0)
    assert window.copy() == [(2, "m", 20.0), (3, "m", 30.0), (4, "m", 40.0)]
    window.expire(3)
    assert [value for _, _, value in window.copy()] == [30.0, 40.0]
    window.add(5, "n", 7.0, times=1_000_000)
    assert window.copy() == [(5, "n", 7.0)] * 3


def test_values_are_ordered_within_their_label() -> None:
    """Each label has its own, ascending."""
    assert ordered_by_label([(0, "a", 3.0), (1, "b", 1.0), (2, "a", 2.0)]) == {"a": [2.0, 3.0], "b": [1.0]}


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 5)), max_size=50))
def test_a_histogram_counts_up_to_each_bound(found: list[tuple[float, int]]) -> None:
    """Buckets are cumulative and inclusive, as Prometheus has them; sum and count take in what is beyond the last."""
    histogram = Histogram((1.0, 5.0, 25.0))
    for value, times in found:
        histogram.add(value, times)
    said = histogram.as_dict()
    assert said["le"] == [1.0, 5.0, 25.0]
    assert said["buckets"] == [sum(times for value, times in found if value <= bound) for bound in said["le"]]
    assert said["count"] == sum(times for _, times in found)
    assert said["sum"] == pytest.approx(sum(value * times for value, times in found))
