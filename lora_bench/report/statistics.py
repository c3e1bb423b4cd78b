"""Statistics over a few seeds: location, spread, intervals, and tests of paired differences.

Intervals are bias-corrected and accelerated bootstrap intervals (BCa, Efron 1987), or percentile
intervals where BCa is undefined. Tests are sign-flip permutation tests, exact for up to EXACT_SEEDS
differences and sampled beyond. Several tests at once are corrected by Holm's method (1979).
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .power import seeds_needed

CONFIDENCE = 0.95
RESAMPLES = 10_000  # bounds of BCa intervals then agree to about 2 % of the interval
EXACT_SEEDS = 14  # up to this number, all sign flips are tried; beyond it they are sampled
SAMPLED_FLIPS = 20_000
TIE_DIGITS = 9  # decimal places to which differences or means must agree to count as tied
BLOCK = 500  # samples computed at once, to limit memory
FLIPS_AT_ONCE = 500


@dataclass(frozen=True)
class Summary:
    """Scores of one system over its seeds.

    ``sd`` has n - 1 in its denominator; ``low`` and ``high`` bound the 95 % BCa interval of the
    mean. All three are None for one seed.
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

    ``low`` and ``high`` bound the 95 % BCa interval of the mean; None for one common seed. ``p`` is
    from the two-sided sign-flip test, ``floor`` its smallest possible value with this many seeds.
    ``seeds_needed`` would show a difference of this size; None if that is more than
    ``power.MAX_SEEDS``, or if no spread is known.
    """

    n: int
    difference: float
    low: float | None
    high: float | None
    p: float
    floor: float
    seeds_needed: int | None


def summarize_all(samples: Sequence[Sequence[float]]) -> list[Summary]:
    """Summary of each sample; samples of equal size are bootstrapped together.

    Raises:
        ValueError: a sample has no values.
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
    """95 % BCa intervals of means. The same scores always give the same interval.

    With three seeds, an interval is only a rough indication.

    Args:
        samples: (samples, n), n at least 2.

    Returns:
        Lower and upper bound of each sample.
    """
    bounds = np.repeat(samples[:, :1], 2, axis=1)
    spread = np.flatnonzero(np.ptp(samples, axis=1))  # SciPy returns NaN for equal scores
    for block in np.split(spread, range(BLOCK, len(spread), BLOCK)):
        if len(block):
            bounds[block] = _intervals(samples[block])
    return [(float(low), float(high)) for low, high in bounds]


def _intervals(samples: np.ndarray) -> np.ndarray:
    """Bounds (samples, 2); percentiles if BCa is undefined, as for two values."""
    found = {}
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            interval = stats.bootstrap(
                (samples,),
                np.mean,
                axis=1,
                n_resamples=RESAMPLES,
                confidence_level=CONFIDENCE,
                method=method,
                rng=0,
            ).confidence_interval
        found[method] = np.column_stack([interval.low, interval.high])
    return np.where(np.isnan(found["BCa"]), found["percentile"], found["BCa"])


def compare(first: Mapping[int, float], second: Mapping[int, float]) -> Paired | None:
    """Paired difference over common seeds.

    Args:
        first: scores of the first system, by seed.
        second: scores of the second system, by seed.

    Returns:
        None without a common seed.
    """
    return compare_all([(first, second)])[0]


def compare_all(
    pairs: Sequence[tuple[Mapping[int, float], Mapping[int, float]]],
) -> list[Paired | None]:
    """``compare`` for each pair; pairs with as many common seeds are computed together."""
    by_size: dict[int, list[int]] = {}
    differences = []
    for position, (first, second) in enumerate(pairs):
        seeds = sorted(first.keys() & second.keys())
        own = np.array([first[seed] - second[seed] for seed in seeds], dtype=float)
        differences.append(own.round(TIE_DIGITS))  # float noise is not spread
        by_size.setdefault(len(seeds), []).append(position)
    found: list[Paired | None] = [None] * len(pairs)
    for n, positions in by_size.items():
        if n == 1:
            for position in positions:
                difference = float(differences[position][0])
                found[position] = Paired(1, difference, None, None, 1.0, 1.0, None)
        elif n > 1:
            same_size = np.array([differences[position] for position in positions])
            for position, paired in zip(positions, _compared(same_size), strict=True):
                found[position] = paired
    return found


def _compared(differences: np.ndarray) -> list[Paired]:
    """Paired differences (pairs, n), n at least 2."""
    n = differences.shape[1]
    intervals, p_values = bootstrap(differences), sign_flip(differences)
    return [
        Paired(
            n,
            float(row.mean()),
            low,
            high,
            float(p),
            floor=smallest_p(n),
            seeds_needed=seeds_needed(float(row.mean()), float(row.std(ddof=1))),
        )
        for row, (low, high), p in zip(differences, intervals, p_values, strict=True)
    ]


def won(first: Mapping[int, float], second: Mapping[int, float]) -> float:
    """Number of common seeds in which the first is better; a tie counts as half."""
    return sum(
        0.5 + np.sign(first[seed] - second[seed]) / 2 for seed in first.keys() & second.keys()
    )


def sign_flip(differences: np.ndarray) -> np.ndarray:
    """p-value of the two-sided sign-flip test that paired differences are symmetric about 0.

    All 2^n signs are tried for up to EXACT_SEEDS differences, else SAMPLED_FLIPS random ones.

    Args:
        differences: (samples, n), n at least 2.

    Returns:
        The p-value of each sample, (samples,).
    """
    exact = differences.shape[1] <= EXACT_SEEDS
    found = [
        stats.permutation_test(
            (block,),
            _rounded_mean,
            axis=1,
            permutation_type="samples",
            n_resamples=np.inf if exact else SAMPLED_FLIPS,
            batch=FLIPS_AT_ONCE,
            rng=0,
        ).pvalue
        for block in np.split(differences, range(BLOCK, len(differences), BLOCK))
    ]
    return np.concatenate(found)


def _rounded_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Means, rounded so that ties do not depend on the order of summation."""
    return np.mean(values, axis=axis).round(TIE_DIGITS)


def smallest_p(n: int) -> float:
    """The smallest p-value that ``sign_flip`` can return for n differences."""
    return 2 / 2**n if n <= EXACT_SEEDS else 2 / (SAMPLED_FLIPS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for multiple tests (Holm 1979), in the given order."""
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)
    stepped = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return [float(value) for value in corrected]


def expected_best(scores: Sequence[float]) -> list[float]:
    """Expected best score of k random trials, for k from 1 to all of them.

    The expected maximum of k draws without replacement (Dodge et al. 2019, arXiv 1909.03004,
    section 3, which draws with replacement; without, it is unbiased: Tang et al. 2020,
    arXiv 2004.13705). Of n ascending scores, the i-th is the best in C(i - 1, k - 1) of the C(n, k)
    choices.

    Args:
        scores: scores of all trials.
    """
    ascending, n = sorted(scores), len(scores)
    return [
        sum(math.comb(i, k - 1) * score for i, score in enumerate(ascending)) / math.comb(n, k)
        for k in range(1, n + 1)
    ]


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """p-value of the exact McNemar test (1947) that two systems are right equally often.

    Args:
        first: whether one system is right on each example, (n,) booleans.
        second: whether the other one is right on the same examples.
    """
    only_first = int(np.sum(first & ~second))
    only_second = int(np.sum(~first & second))
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)
