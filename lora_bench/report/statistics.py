"""What a few seeds tell: location, spread, intervals, and the paired difference of two systems."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
POWER = 0.8  # of the test that ``seeds_needed`` plans for
RESAMPLES = 1000
BLOCK = 500  # samples bootstrapped at once: bounds the memory
MOST_SEEDS = 1000  # beyond this, "how many seeds" has no useful answer
# numbers of seeds that are tried: exact up to 100, then 2 % apart
SEEDS = np.unique(np.r_[2:101, np.geomspace(101, MOST_SEEDS, 120).astype(int)])


@dataclass(frozen=True)
class Summary:
    """Scores of one system over its seeds.

    ``sd`` has n - 1 in its denominator; ``low`` and ``high`` bound the 95 % bootstrap interval of
    the mean (percentile method, Efron 1979). All three are None for one seed.
    """

    n: int
    mean: float
    median: float
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Paired:
    """Difference ``first - second`` over the seeds that both ran.

    ``low`` and ``high`` bound the 95 % interval (paired Student t); None for one common seed.
    ``seeds_needed`` would show a difference of this size; None where that is more than
    MOST_SEEDS, or where no spread is known.
    """

    n: int
    difference: float
    low: float | None
    high: float | None
    seeds_needed: int | None


def summarize(values: Sequence[float]) -> Summary:
    """Summary of one sample.

    Raises:
        ValueError: no values.
    """
    return summarize_all([values])[0]


def summarize_all(samples: Sequence[Sequence[float]]) -> list[Summary]:
    """Summary of each sample; those of equal size are bootstrapped together.

    Raises:
        ValueError: a sample without values.
    """
    by_size: dict[int, list[int]] = {}
    for position, values in enumerate(samples):
        by_size.setdefault(len(values), []).append(position)
    if 0 in by_size:
        raise ValueError("no values to summarize")
    found: dict[int, Summary] = {}
    for n, positions in by_size.items():
        scores = np.array([samples[position] for position in positions], dtype=float)
        intervals = bootstrap(scores) if n > 1 else [(None, None)] * len(scores)
        for position, row, (low, high) in zip(positions, scores, intervals, strict=True):
            sd = float(row.std(ddof=1)) if n > 1 else None
            found[position] = Summary(n, float(row.mean()), float(np.median(row)), sd, low, high)
    return [found[position] for position in range(len(samples))]


def bootstrap(samples: np.ndarray) -> list[tuple[float, float]]:
    """95 % intervals of means. The same scores always give the same interval.

    With three seeds it is a hint, no more.

    Args:
        samples: (samples, n), n at least 2.

    Returns:
        Lower and upper bound of each sample.
    """
    bounds = np.repeat(samples[:, :1], 2, axis=1)
    spread = np.flatnonzero(np.ptp(samples, axis=1))  # SciPy answers NaN for equal scores
    for block in np.split(spread, range(BLOCK, len(spread), BLOCK)):
        if not len(block):
            continue
        interval = stats.bootstrap(
            (samples[block],),
            np.mean,
            axis=1,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=0,
        ).confidence_interval
        bounds[block] = np.column_stack([interval.low, interval.high])
    return [(float(low), float(high)) for low, high in bounds]


def compare(first: Mapping[int, float], second: Mapping[int, float]) -> Paired | None:
    """Paired difference over common seeds.

    Args:
        first: score by seed of one system.
        second: that of the other.

    Returns:
        None where no seed is common.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    a, b = (np.array([scores[seed] for seed in seeds], dtype=float) for scores in (first, second))
    difference = float((a - b).mean())
    if len(seeds) == 1:
        return Paired(1, difference, None, None, None)
    spread = float((a - b).std(ddof=1))
    if spread == 0:
        return Paired(len(seeds), difference, difference, difference, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nearly equal differences
        interval = stats.ttest_rel(a, b).confidence_interval(CONFIDENCE)
    low, high = float(interval.low), float(interval.high)
    return Paired(len(seeds), difference, low, high, seeds_needed(difference, spread))


def seeds_needed(difference: float, spread: float) -> int | None:
    """Number of seeds with which a paired t-test would show a difference.

    Two-sided at 5 %, in 80 % of cases.

    Args:
        difference: to be shown.
        spread: standard deviation of the paired differences.

    Returns:
        None where it is more than MOST_SEEDS, or where difference or spread is 0.
    """
    if spread == 0 or difference == 0:
        return None
    enough = SEEDS[_power(abs(difference) / spread, SEEDS) >= POWER]
    return int(enough[0]) if len(enough) else None


def _power(effect: float, n: np.ndarray) -> np.ndarray:
    """Chance that a two-sided paired t-test over n pairs rejects.

    The noncentral t beyond both critical values.
    """
    critical = stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)
    shift = effect * np.sqrt(n)
    power = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    return np.nan_to_num(power, nan=1.0)  # SciPy answers NaN where the power is 1 to all digits
