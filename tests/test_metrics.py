"""Metrics against independent computations, and the loss shapes that the article got wrong."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lora_bench.compose import compose
from lora_bench.model.packing import Batch
from lora_bench.tasks import make_task
from lora_bench.tasks.metrics import accuracy, f1, matthews, pearson, spearman

from .helpers import random_batch


@pytest.mark.parametrize("seed", range(5))
def test_classification_metrics_agree_with_counting(seed):
    rng = np.random.default_rng(seed)
    p, r = rng.integers(0, 2, 60), rng.integers(0, 2, 60)
    tp, tn = int(((p == 1) & (r == 1)).sum()), int(((p == 0) & (r == 0)).sum())
    fp, fn = int(((p == 1) & (r == 0)).sum()), int(((p == 0) & (r == 1)).sum())
    assert accuracy(p, r) == pytest.approx((tp + tn) / 60)
    assert f1(p, r) == pytest.approx(2 * tp / (2 * tp + fp + fn))
    root = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert matthews(p, r) == pytest.approx((tp * tn - fp * fn) / root)


@pytest.mark.parametrize("seed", range(5))
def test_correlations_agree_with_their_formulas(seed):
    rng = np.random.default_rng(seed)
    p = rng.normal(size=40)
    r = p + rng.normal(size=40)
    expected = ((p - p.mean()) * (r - r.mean())).mean() / (p.std() * r.std())
    assert pearson(p, r) == pytest.approx(expected)
    ranks = [np.argsort(np.argsort(x)).astype(float) for x in (p, r)]
    assert spearman(p, r) == pytest.approx(pearson(*ranks))


@pytest.mark.parametrize("spread", [1e-6, 1e-4, 1.0])
def test_the_correlation_of_almost_constant_values_is_exact(spread):
    rng = np.random.default_rng(0)
    references = rng.normal(size=200)
    predictions = (2.5 + spread * (references + rng.normal(size=200))).astype(np.float32)
    expected = np.corrcoef(predictions.astype(np.float64), references)[0, 1]
    assert pearson(predictions, references.astype(np.float32)) == pytest.approx(expected, abs=1e-6)


def test_a_constant_prediction_scores_zero_and_does_not_warn():
    references = np.array([0, 1, 1, 0])
    assert matthews(np.ones(4, dtype=int), references) == 0.0
    assert pearson(np.full(4, 2.5), references) == spearman(np.full(4, 2.5), references) == 0.0
    almost = np.array([2.5, 2.5, 2.5, np.nextafter(2.5, 3)])
    assert -1 <= pearson(almost, references) <= 1
    assert matthews(np.ones(4, dtype=int), np.ones(4, dtype=int)) == 0.0
    assert f1(np.zeros(4, dtype=int), np.zeros(4, dtype=int)) == 0.0


def test_stsb_loss_pairs_each_prediction_with_its_own_label():
    """(B, 1) against (B,) would broadcast to (B, B): it cost the article ten points of Pearson."""
    task = make_task(compose(["task=stsb"]).task)
    batch = random_batch([2, 3, 4], labels=np.array([0.0, 2.5, 5.0], dtype=np.float32))
    logits = torch.tensor([[0.0], [2.5], [5.0]])
    assert task.loss(logits, batch).item() == 0.0
    assert task.loss(logits + 2, batch).item() == pytest.approx(4.0)


def test_stsb_predicts_raw_values_within_their_range():
    task = make_task(compose(["task=stsb"]).task)
    assert task.decode(
        [torch.tensor([x]) for x in (-1.0, 3.3, 9.0)], [], None
    ).tolist() == pytest.approx([0.0, 3.3, 5.0])


def test_classification_loss_is_the_mean_cross_entropy():
    task = make_task(compose(["task=mnli"]).task)
    batch: Batch = random_batch([2, 3], labels=np.array([2, 0]))
    logits = torch.randn(2, 3)
    expected = -(F.log_softmax(logits, 1)[0, 2] + F.log_softmax(logits, 1)[1, 0]) / 2
    torch.testing.assert_close(task.loss(logits, batch), expected)
    assert task.decode(
        list(torch.tensor([[0.1, 0.9, 0.0], [1.0, 0.0, 0.2]])), [], None
    ).tolist() == [1, 0]
