"""Systems over several tasks: interquartile means, mean ranks, and pairwise tests."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from .statistics import CONFIDENCE, RESAMPLES, TIE_DIGITS, holm, sign_flip

INTERVAL = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]  # quantiles


def interquartile_means(scores: Sequence[np.ndarray]) -> list[tuple[float, float, float]]:
    """Mean of the middle half of all scores, with its 95 % stratified bootstrap interval.

    Seeds are resampled within each task, the same ones for all systems (Agarwal et al. 2021,
    arXiv 2108.13264).

    Args:
        scores: scores of each task, (systems, seeds), at least one seed; all tasks on one scale.

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
        low, high = np.quantile(middle, INTERVAL)
        mean = stats.trim_mean(np.concatenate(systems), 0.25)
        found.append((float(mean), float(low), float(high)))
    return found


def mean_ranks(scores: Sequence[np.ndarray]) -> list[tuple[float, float, float]]:
    """Mean over tasks of the rank of each system, with its 95 % stratified bootstrap interval.

    Within a task, systems are ranked by their mean over seeds: 1 is the best, and tied systems get
    the mean of their ranks (Demšar 2006, section 3.2.2). Seeds are resampled within each task, the
    same ones for all systems; tasks are not resampled.

    Args:
        scores: scores of each task, (systems, seeds).

    Returns:
        Mean rank, lower and upper bound of each system.
    """
    rng = np.random.default_rng(0)
    found, drawn = [], []
    for own in scores:
        n = own.shape[1]
        times = rng.multinomial(
            n, np.full(n, 1 / n), size=RESAMPLES
        )  # how often each seed is drawn
        found.append(_ranks(own.mean(axis=1, keepdims=True)))
        drawn.append(_ranks(own @ times.T / n))
    low, high = np.quantile(np.mean(drawn, axis=0), INTERVAL, axis=1)
    means = np.mean(found, axis=0)[:, 0]
    return [(float(m), float(a), float(b)) for m, a, b in zip(means, low, high, strict=True)]


def _ranks(means: np.ndarray) -> np.ndarray:
    """Ranks in each column; means are rounded, so that ties do not depend on summation order."""
    return stats.rankdata(-means.round(TIE_DIGITS), axis=0)


def compare_over_tasks(scores: Sequence[np.ndarray]) -> np.ndarray:
    """p-values of all pairs of systems over all blocks of task and seed, Holm-corrected over pairs.

    The sign-flip test of the difference of their means over tasks: if neither is better on any
    task, each difference in a block could as well have the opposite sign.

    Args:
        scores: scores of each task, (systems, seeds); at least two blocks in all.

    Returns:
        (systems, systems), 1 on the diagonal.
    """
    # divided, so that a task with more seeds does not have more weight
    weighted = np.concatenate([own / own.shape[1] for own in scores], axis=1)
    size = len(weighted)
    found = np.ones((size, size))
    first, second = np.triu_indices(size, 1)
    corrected = holm(sign_flip(weighted[first] - weighted[second]).tolist())
    found[first, second] = found[second, first] = corrected
    return found
