"""What a few seeds tell: location, spread, intervals, and tests of paired differences.

Intervals are bias-corrected and accelerated bootstrap intervals (BCa, Efron 1987), tests are exact
sign-flip permutation tests, and several tests at once are corrected by Holm's method (1979).
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
POWER = 0.8  # of the test that ``seeds_needed`` plans for
RESAMPLES = 1000
EXACT_SEEDS = 14  # sign flips are all tried up to here, and sampled beyond
SAMPLED_FLIPS = 20_000
BLOCK = 500  # samples computed at once: bounds the memory
FLIPS_AT_ONCE = 500
TIE_DIGITS = 9  # after the decimal point: means that agree to so many are equal
MOST_SEEDS = 1000  # beyond this, "how many seeds" has no useful answer
# numbers of seeds that are tried: exact up to 100, then 2 % apart
SEEDS = np.unique(np.r_[2:101, np.geomspace(101, MOST_SEEDS, 120).astype(int)])


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
    that of the two-sided sign-flip test, ``floor`` the least that it can be with so many seeds.
    ``seeds_needed`` would show a difference of this size; None where that is more than
    MOST_SEEDS, or where no spread is known.
    """

    n: int
    difference: float
    low: float | None
    high: float | None
    p: float
    floor: float
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
    """95 % BCa intervals of means. The same scores always give the same interval.

    With three seeds it is a hint, no more.

    Args:
        samples: (samples, n), n at least 2.

    Returns:
        Lower and upper bound of each sample.
    """
    bounds = np.repeat(samples[:, :1], 2, axis=1)
    spread = np.flatnonzero(np.ptp(samples, axis=1))  # SciPy answers NaN for equal scores
    for block in np.split(spread, range(BLOCK, len(spread), BLOCK)):
        if len(block):
            bounds[block] = _intervals(samples[block])
    return [(float(low), float(high)) for low, high in bounds]


def _intervals(samples: np.ndarray) -> np.ndarray:
    """Bounds (samples, 2); by percentiles where BCa has no answer, as for two values."""
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
        first: score by seed of one system.
        second: that of the other.

    Returns:
        None where no seed is common.
    """
    return compare_all([(first, second)])[0]


def compare_all(
    pairs: Sequence[tuple[Mapping[int, float], Mapping[int, float]]],
) -> list[Paired | None]:
    """``compare`` of each pair; those with equally many common seeds are computed together."""
    by_size: dict[int, list[int]] = {}
    differences = []
    for position, (first, second) in enumerate(pairs):
        seeds = sorted(first.keys() & second.keys())
        differences.append(np.array([first[seed] - second[seed] for seed in seeds], dtype=float))
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
            floor=2 / 2**n,
            seeds_needed=seeds_needed(float(row.mean()), float(row.std(ddof=1))),
        )
        for row, (low, high), p in zip(differences, intervals, p_values, strict=True)
    ]


def sign_flip(differences: np.ndarray) -> np.ndarray:
    """p of the two-sided sign-flip test that paired differences have no direction.

    All 2^n signs are tried up to EXACT_SEEDS differences, SAMPLED_FLIPS random ones beyond.

    Args:
        differences: (samples, n), n at least 2.

    Returns:
        p of each sample, (samples,).
    """
    exact = differences.shape[1] <= EXACT_SEEDS
    found = [
        stats.permutation_test(
            (block,),
            np.mean,
            axis=1,
            permutation_type="samples",
            n_resamples=np.inf if exact else SAMPLED_FLIPS,
            batch=FLIPS_AT_ONCE,
            rng=0,
        ).pvalue
        for block in np.split(differences, range(BLOCK, len(differences), BLOCK))
    ]
    return np.concatenate(found)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979), in the order given."""
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)
    stepped = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return [float(value) for value in corrected]


def interquartile_means(scores: Sequence[np.ndarray]) -> list[tuple[float, float, float]]:
    """Mean of the middle half of all scores, with its 95 % stratified bootstrap interval.

    Seeds are resampled within each task, the same ones for all systems (Agarwal et al. 2021,
    arXiv 2108.13264).

    Args:
        scores: of each task, (systems, seeds), at least one seed; tasks on one scale.

    Returns:
        Mean, lower and upper bound of each system.
    """
    rng = np.random.default_rng(0)
    sizes = [own.shape[1] for own in scores]
    seeds = [rng.integers(size, size=(RESAMPLES, size)) for size in sizes]
    found = []
    for systems in zip(*scores, strict=True):
        drawn = [own[at] for own, at in zip(systems, seeds, strict=True)]  # (resamples, seeds)
        middle = stats.trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1)
        low, high = np.quantile(middle, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        mean = stats.trim_mean(np.concatenate(systems), 0.25)
        found.append((float(mean), float(low), float(high)))
    return found


def mean_ranks(scores: Sequence[np.ndarray]) -> list[tuple[float, float, float]]:
    """Mean over tasks of the rank of each system, with its 95 % stratified bootstrap interval.

    Within a task, systems are ranked by their mean over seeds: 1 is the best, and equal ones share
    the mean of their ranks (Demšar 2006, section 3.2.2). Seeds are resampled within each task, the
    same ones for all systems; tasks are not resampled.

    Args:
        scores: of each task, (systems, seeds).

    Returns:
        Mean rank, lower and upper bound of each system.
    """
    rng = np.random.default_rng(0)
    found, drawn = [], []
    for own in scores:
        n = own.shape[1]
        times = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)  # that each seed is drawn
        found.append(_ranks(own.mean(axis=1, keepdims=True)))
        drawn.append(_ranks(own @ times.T / n))
    bounds = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(np.mean(drawn, axis=0), bounds, axis=1)
    means = np.mean(found, axis=0)[:, 0]
    return [(float(m), float(a), float(b)) for m, a, b in zip(means, low, high, strict=True)]


def _ranks(means: np.ndarray) -> np.ndarray:
    """Ranks in each column; rounded, so that equal means are equal however they were summed."""
    return stats.rankdata(-means.round(TIE_DIGITS), axis=0)


def compare_over_tasks(scores: Sequence[np.ndarray]) -> np.ndarray:
    """p of every two systems over all blocks of task and seed, after Holm over the pairs.

    The sign-flip test of the difference of their means of task means: if neither is better on any
    task, each difference in a block could as well have the other sign.

    Args:
        scores: of each task, (systems, seeds); at least two blocks in all.

    Returns:
        (systems, systems), 1 on the diagonal.
    """
    # divided, so that a task with more seeds does not count more than another
    weighted = np.concatenate([own / own.shape[1] for own in scores], axis=1)
    size = len(weighted)
    found = np.ones((size, size))
    first, second = np.triu_indices(size, 1)
    corrected = holm(sign_flip(weighted[first] - weighted[second]).tolist())
    found[first, second] = found[second, first] = corrected
    return found


def expected_best(scores: Sequence[float]) -> list[float]:
    """Expected best score of k random trials, for k from 1 to all of them.

    The expected maximum of k draws without replacement (Dodge et al. 2019, arXiv 1909.03004,
    section 3, which draws with replacement; without, it is unbiased: Tang et al. 2020,
    arXiv 2004.13705). Of n ascending scores, the i-th is the best in C(i - 1, k - 1) of the C(n, k)
    choices.

    Args:
        scores: of all trials.
    """
    ascending, n = sorted(scores), len(scores)
    return [
        sum(math.comb(i, k - 1) * score for i, score in enumerate(ascending)) / math.comb(n, k)
        for k in range(1, n + 1)
    ]


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """p of the exact McNemar test (1947) that two systems are right equally often.

    Args:
        first: whether one system is right on each example, (n,) booleans.
        second: whether the other is, on the same examples.
    """
    only_first = int(np.sum(first & ~second))
    only_second = int(np.sum(~first & second))
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


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
    enough = SEEDS[_least_effects() <= abs(difference) / spread]
    return int(enough[0]) if len(enough) else None


@cache
def _least_effects() -> np.ndarray:
    """For each number in SEEDS the least difference, in standard deviations, that is shown."""
    low, high = np.zeros(len(SEEDS)), np.full(len(SEEDS), 100.0)
    for _ in range(50):  # bisection: power grows with the effect
        middle = (low + high) / 2
        shown = _power(middle, SEEDS) >= POWER
        low, high = np.where(shown, low, middle), np.where(shown, middle, high)
    return high


def _power(effect: np.ndarray | float, n: np.ndarray) -> np.ndarray:
    """Chance that a two-sided paired t-test over n pairs rejects.

    The noncentral t beyond both critical values.

    Args:
        effect: difference in standard deviations.
        n: numbers of pairs.
    """
    critical = stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)
    shift = effect * np.sqrt(n)
    power = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    return np.nan_to_num(power, nan=1.0)  # SciPy answers NaN where the power is 1 to all digits
