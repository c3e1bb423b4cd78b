"""Summaries, intervals and tests, against second implementations and simulations."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from lora_bench.report.aggregates import compare_over_tasks, interquartile_means, mean_ranks
from lora_bench.report.power import MIN_SEEDS, SIGNIFICANCE, _power, min_seeds, seeds_needed
from lora_bench.report.statistics import (
    EXACT_SEEDS,
    bootstrap,
    compare,
    compare_all,
    expected_best,
    holm,
    mcnemar,
    sign_flip,
    smallest_p,
    summarize_all,
)


def bca(values: np.ndarray, resamples: int = 100_000) -> tuple[float, float]:
    """The BCa interval of a mean as in Efron (1987)."""
    drawn = np.random.default_rng(1).choice(values, (resamples, len(values))).mean(axis=1)
    below = (np.mean(drawn < values.mean()) + np.mean(drawn <= values.mean())) / 2
    bias = stats.norm.ppf(below)
    left_out = np.array([np.delete(values, i).mean() for i in range(len(values))])
    away = left_out.mean() - left_out
    acceleration = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    z = bias + stats.norm.ppf([0.025, 0.975])
    shares = stats.norm.cdf(bias + z / (1 - acceleration * z))
    low, high = np.quantile(drawn, shares)
    return low, high


def test_summaries_agree_with_numpy_and_a_second_bootstrap():
    rng = np.random.default_rng(0)
    for n in (5, 10, 30):
        values = rng.gamma(2.0, 2.0, n)  # skewed: percentiles would give another interval
        found = summarize_all([values])[0]
        assert (found.n, found.mean, found.median) == (
            n,
            pytest.approx(np.mean(values)),
            pytest.approx(np.median(values)),
        )
        assert found.sd == pytest.approx(np.sqrt(((values - values.mean()) ** 2).sum() / (n - 1)))
        low, high = bca(values)
        error = 0.25 * found.sd / math.sqrt(n)
        assert found.low == pytest.approx(low, abs=error)
        assert found.high == pytest.approx(high, abs=error)
        assert bootstrap(values[None]) == bootstrap(values[None]) == [(found.low, found.high)]
    one, two = summarize_all([[3.0], [2.0, 2.0]])
    assert one.sd is None and two.low == 2.0
    with pytest.raises(ValueError, match="no values"):
        summarize_all([[]])


@pytest.mark.parametrize("n", [2, 3])
def test_few_seeds_have_an_interval_inside_of_their_range(n):
    values = np.random.default_rng(n).normal(size=(20, n))
    for row, (low, high) in zip(values, bootstrap(values), strict=True):
        assert row.min() - 1e-12 <= low < high <= row.max() + 1e-12


def test_a_paired_difference_uses_common_seeds_only():
    a, b = {0: 3.0, 1: 5.0, 2: 9.0, 7: 100.0}, {0: 1.0, 1: 4.0, 2: 5.0, 8: -100.0}
    found = compare(a, b)
    assert (found.n, found.difference) == (3, pytest.approx(7 / 3))
    assert [(found.low, found.high)] == bootstrap(np.array([[2.0, 1.0, 4.0]]))
    assert (found.p, found.floor) == (0.25, 0.25)  # all of one sign: the least that 3 can give
    assert compare({0: 1.0}, {1: 1.0}) is None
    one = compare({0: 2.0}, {0: 1.0})
    assert (one.difference, one.low, one.p, one.floor) == (1.0, None, 1.0, 1.0)
    equal = compare({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0})
    assert (equal.low, equal.high, equal.seeds_needed) == (1.0, 1.0, None)


def test_pairs_compared_together_are_those_compared_alone():
    rng = np.random.default_rng(3)
    sizes = (1, 5, 0, 3, 5, 12)
    pairs = [
        ({i: float(rng.normal()) for i in range(n)}, {i: float(rng.normal()) for i in range(20)})
        for n in sizes
    ]
    together = compare_all(pairs)
    assert together == [compare(*pair) for pair in pairs]
    assert [paired and paired.n for paired in together] == [1, 5, None, 3, 5, 12]


@pytest.mark.parametrize("n", [2, 5, 8])
def test_the_sign_flip_test_counts_every_choice_of_signs(n):
    differences = np.random.default_rng(n).normal(0.4, 1, n)
    means = [
        np.mean(np.multiply(signs, differences)) for signs in itertools.product((1, -1), repeat=n)
    ]
    larger = np.abs(means) >= abs(differences.mean()) - 1e-12
    assert sign_flip(differences[None])[0] == pytest.approx(larger.mean())
    assert sign_flip(np.abs(differences)[None])[0] == pytest.approx(2 / 2**n)  # the floor
    assert sign_flip(np.zeros((1, n)))[0] == 1.0


@pytest.mark.parametrize(("n", "low", "high"), [(3, 0.68, 0.82), (10, 0.87, 0.93)])
def test_intervals_over_few_seeds_are_too_narrow_by_as_much_as_the_documentation_says(n, low, high):
    samples = np.random.default_rng(0).normal(0, 1, (600, n))
    covered = np.mean([a <= 0 <= b for a, b in bootstrap(samples)])
    assert low < covered < high


@pytest.mark.parametrize("seed", range(20))
def test_flips_with_equal_means_count_whatever_their_rounding_error(seed):
    """Accuracies are multiples of 1 / examples, so many choices of signs have equal means."""
    right = np.random.default_rng(seed).integers(680, 700, size=(2, 8))
    counts = [int(count) for count in right[0] - right[1]]
    sums = [
        sum(sign * count for sign, count in zip(signs, counts, strict=True))
        for signs in itertools.product((1, -1), repeat=8)
    ]
    exact = np.mean([abs(total) >= abs(sum(counts)) for total in sums])
    scores = 100 * (right / 872)
    assert sign_flip((scores[0] - scores[1])[None])[0] == exact


def test_the_smallest_p_is_that_of_differences_of_one_sign():
    for n in (2, EXACT_SEEDS, EXACT_SEEDS + 7):
        differences = np.linspace(1, 2, n)
        assert compare(dict(enumerate(differences)), dict.fromkeys(range(n), 0.0)).p == (
            pytest.approx(smallest_p(n))
        )


def test_many_seeds_are_tested_with_a_sample_of_signs():
    differences = np.random.default_rng(0).normal(0.5, 1, (1, EXACT_SEEDS + 6))
    expected = stats.ttest_1samp(differences[0], 0).pvalue  # near it for normal differences
    assert sign_flip(differences)[0] == pytest.approx(expected, abs=0.02)


def test_holms_correction_keeps_the_rate_of_false_claims():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
    draws = np.random.default_rng(0).uniform(size=(4000, 5))  # five true null hypotheses
    claims = np.mean([min(holm(row)) < 0.05 for row in draws])
    assert claims == pytest.approx(0.05, abs=0.015)


def test_the_interquartile_mean_ignores_the_outer_quarters():
    plain, wild = [1.0, 2.0, 3.0, 4.0], [-1e6, 2.0, 3.0, 4.0]
    tasks = [np.array([plain, wild]), np.array([[5.0, 6.0, 7.0, 8.0], [5.0, 6.0, 7.0, 1e6]])]
    (mean, low, high), (of_wild, _, _) = interquartile_means(tasks)
    assert mean == pytest.approx(4.5) and low < mean < high
    assert of_wild == pytest.approx(4.5)
    # Resampled within tasks: constant tasks have no spread, however far apart they are.
    assert interquartile_means([np.ones((1, 4)), np.full((1, 4), 9.0)]) == [(5.0, 5.0, 5.0)]


def test_mean_ranks_are_those_of_each_task_and_their_interval_is_a_bootstrap_of_seeds():
    rng = np.random.default_rng(0)
    tasks = [rng.normal([[0.0], [0.3], [0.6]], 1, (3, n)) for n in (4, 6)]
    found = mean_ranks(tasks)
    drawn = np.zeros((2000, 3))  # a second implementation: seed by seed, ranks by counting
    for own in tasks:
        for draw in drawn:
            mean = own[:, rng.integers(own.shape[1], size=own.shape[1])].mean(axis=1)
            draw += [(1 + sum(mean > mine)) / len(tasks) for mine in mean]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    for i, (mean, *bounds) in enumerate(found):
        ranks = [1 + sum(own.mean(axis=1) > own[i].mean()) for own in tasks]
        assert mean == np.mean(ranks) and bounds[0] <= mean <= bounds[1]
        assert bounds == pytest.approx([low[i], high[i]], abs=0.5)  # a step of the mean of two


def test_equal_systems_share_their_rank_whatever_the_order_of_their_scores():
    shuffled = np.array([[0.1, 0.2, 0.3, 0.7], [0.7, 0.3, 0.2, 0.1], [0.0, 0.0, 0.0, 0.0]])
    assert [rank for rank, *_ in mean_ranks([shuffled, shuffled * 3])] == [1.5, 1.5, 3.0]
    assert mean_ranks([np.array([[2.0], [1.0]])]) == [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0)]


def test_systems_are_compared_over_all_blocks_and_tasks_count_alike():
    """Two tasks with one and four seeds: the one difference has the same weight as the four."""
    first = [
        np.array([[4.0], [0.0], [4.0]]),
        np.array([[0.0] * 4, [1.0, 1.2, 0.8, 0.9], [0.0] * 4]),
    ]
    found = compare_over_tasks(first)
    differences = np.array([4.0, *(-np.array([1.0, 1.2, 0.8, 0.9]) / 4)])
    means = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=5)]
    p = np.mean([mean >= abs(differences.sum()) - 1e-12 for mean in means])
    assert found[0, 1] == pytest.approx(min(1, 3 * p))  # the least of three pairs
    assert found[0, 2] == 1.0 and (found == found.T).all() and (np.diag(found) == 1).all()


def test_the_expected_best_is_the_mean_over_every_choice_of_trials():
    scores = [0.5, 0.9, 0.1, 0.9, 0.7]
    expected = [
        np.mean([max(chosen) for chosen in itertools.combinations(scores, k)]) for k in range(1, 6)
    ]
    assert expected_best(scores) == pytest.approx(expected)
    assert expected_best([0.4]) == [0.4] and expected_best([]) == []


def test_mcnemar_counts_the_examples_on_which_two_systems_differ():
    first = np.array([True] * 10 + [False] * 2 + [True] * 50)
    second = np.array([False] * 10 + [True] * 2 + [True] * 50)
    tail = sum(math.comb(12, k) for k in (0, 1, 2)) / 2**12
    assert mcnemar(first, second) == pytest.approx(2 * tail)
    assert mcnemar(first, first) == 1.0


@pytest.mark.parametrize("tests", [1, 2, 5])
def test_with_the_least_seeds_equal_signs_in_one_test_of_several_are_significant(tests):
    n = min_seeds(tests)
    for seeds, shown in ((n, True), (n - 1, False)):
        (p,) = sign_flip(np.ones((1, seeds)))
        assert (holm([p] + [1.0] * (tests - 1))[0] <= SIGNIFICANCE) == shown


def test_seeds_needed_give_the_promised_power():
    """Half a standard deviation takes 34 pairs (Cohen 1988); and by simulation."""
    assert seeds_needed(0.5, 1.0) == 34
    assert seeds_needed(0.0, 1.0) is None and seeds_needed(0.01, 1.0) is None
    assert seeds_needed(30.0, 1.0) == MIN_SEEDS  # no sign-flip test shows it with fewer
    n = seeds_needed(1.0, 1.0)
    draws = np.random.default_rng(0).normal(1.0, 1.0, (4000, n))
    seen = (stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05).mean()
    assert seen == pytest.approx(float(_power(1.0, np.array([n]))[0]), abs=0.03) and seen >= 0.78
