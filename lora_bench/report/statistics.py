"""What a few seeds tell: location, spread, a bootstrap interval, and the paired difference of two systems."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
POWER = 0.8  # of the test that ``seeds_needed`` plans for
RESAMPLES = 1000
MOST_SEEDS = 1000  # beyond this, "how many seeds" has no useful answer
SEEDS = np.unique(
    np.r_[2:101, np.geomspace(101, MOST_SEEDS, 120).astype(int)]
)  # tried: exact up to 100, then 2 % apart


@dataclass(frozen=True)
class Summary:
    """Scores of one system over its seeds. ``sd`` (n - 1), ``low`` and ``high`` are None for one seed."""

    n: int
    mean: float
    median: float
    sd: float | None
    low: (
        float | None
    )  # of the 95 % bootstrap interval of the mean (percentile method, Efron 1979), seeded
    high: float | None


@dataclass(frozen=True)
class Paired:
    """Difference ``first - second`` over the seeds that both ran."""

    n: int
    difference: float
    low: float | None  # of the 95 % interval (paired Student t); None for one common seed
    high: float | None
    seeds_needed: (
        int | None
    )  # to see a difference of this size; None: over MOST_SEEDS, or no spread to plan with


def summarize(values: Sequence[float]) -> Summary:
    """Raises: ValueError: no values."""
    if not len(values):
        raise ValueError("no values to summarize")
    scores = np.asarray(values, dtype=float)
    low = high = sd = None
    if len(scores) > 1:
        sd = float(scores.std(ddof=1))
        low, high = bootstrap(scores)
    return Summary(len(scores), float(scores.mean()), float(np.median(scores)), sd, low, high)


def bootstrap(scores: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean. The same scores always give the same interval. With three seeds it is a hint, no more."""
    if np.ptp(scores) == 0:  # SciPy warns about a degenerate distribution, and answers NaN
        return float(scores[0]), float(scores[0])
    found = stats.bootstrap(
        (scores,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=0,
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def compare(first: Mapping[int, float], second: Mapping[int, float]) -> Paired | None:
    """Paired difference over common seeds; None where there is none. Args: score by seed of each system."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    a, b = (np.array([scores[seed] for seed in seeds], dtype=float) for scores in (first, second))
    difference = float((a - b).mean())
    if len(seeds) == 1:
        return Paired(1, difference, None, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # equal differences: an interval of no width
        interval = stats.ttest_rel(a, b).confidence_interval(CONFIDENCE)
    spread = float((a - b).std(ddof=1))
    low, high = (
        (difference, difference) if spread == 0 else (float(interval.low), float(interval.high))
    )
    return Paired(len(seeds), difference, low, high, seeds_needed(difference, spread))


def seeds_needed(difference: float, spread: float) -> int | None:
    """Fewest common seeds with which a paired t-test (two-sided, 5 %) sees such a difference in 80 % of cases.

    Args: spread: standard deviation of the paired differences. None: more than MOST_SEEDS, or spread is 0.
    """
    if spread == 0 or difference == 0:
        return None
    enough = SEEDS[_power(abs(difference) / spread, SEEDS) >= POWER]
    return int(enough[0]) if len(enough) else None


def _power(effect: float, n: np.ndarray) -> np.ndarray:
    """Chance that a two-sided paired t-test over n pairs rejects: the noncentral t beyond both critical values."""
    critical = stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)
    shift = effect * np.sqrt(n)
    power = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    return np.nan_to_num(
        power, nan=1.0
    )  # SciPy answers NaN where the shift is so large that nothing is left to doubt
