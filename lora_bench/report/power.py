"""How many seeds a paired t-test needs to show a difference."""

import math
from functools import cache

import numpy as np
from scipy import stats

SIGNIFICANCE = 0.05  # level of every test of this project, two-sided


def min_seeds(tests: int = 1) -> int:
    """Seeds with which one sign-flip test can be significant, whatever the other tests show.

    With n seeds, p is at least 2 / 2^n, and Holm's method multiplies the smallest of several.

    Args:
        tests: number of tests that are corrected together.
    """
    return math.ceil(1 - math.log2(SIGNIFICANCE / tests))


MIN_SEEDS = min_seeds()
POWER = 0.8  # share of cases in which the test should show the difference
MAX_SEEDS = 1000  # beyond this, "how many seeds" has no useful answer
# numbers of seeds to try: all up to 100, then 2 % apart
SEEDS = np.unique(np.r_[MIN_SEEDS:101, np.geomspace(101, MAX_SEEDS, 120).astype(int)])


def seeds_needed(difference: float, spread: float) -> int | None:
    """Number of seeds with which a paired t-test would show a difference, at least MIN_SEEDS.

    Two-sided at the level SIGNIFICANCE, in a share POWER of cases.

    Args:
        difference: difference to detect.
        spread: standard deviation of the paired differences.

    Returns:
        None if it is more than MAX_SEEDS, or if difference or spread is 0.
    """
    if spread == 0 or difference == 0:
        return None
    enough = SEEDS[_least_effects() <= abs(difference) / spread]
    return int(enough[0]) if len(enough) else None


@cache
def _least_effects() -> np.ndarray:
    """For each number in SEEDS, the smallest detectable difference in standard deviations."""
    low, high = np.zeros(len(SEEDS)), np.full(len(SEEDS), 100.0)
    for _ in range(50):  # bisection: power grows with the effect
        middle = (low + high) / 2
        shown = _power(middle, SEEDS) >= POWER
        low, high = np.where(shown, low, middle), np.where(shown, middle, high)
    return high


def _power(effect: np.ndarray | float, n: np.ndarray) -> np.ndarray:
    """Probability that a two-sided paired t-test over n pairs rejects.

    The probability of the noncentral t beyond both critical values.

    Args:
        effect: difference in standard deviations.
        n: numbers of pairs.
    """
    critical = stats.t.ppf(1 - SIGNIFICANCE / 2, n - 1)
    shift = effect * np.sqrt(n)
    power = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    return np.nan_to_num(power, nan=1.0)  # SciPy returns NaN where the power is 1 to all digits
