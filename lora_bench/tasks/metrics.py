"""Metrics as pure functions of predictions and references, on scikit-learn and SciPy.

All return a share (1.0 is perfect), as the field's libraries do; tables show percent.
"""

import warnings

import numpy as np
from scipy import stats
from sklearn import metrics


def accuracy(predictions: np.ndarray, references: np.ndarray) -> float:
    """Share of equal labels; both (n,) class indices."""
    return float(metrics.accuracy_score(references, predictions))


def f1(predictions: np.ndarray, references: np.ndarray) -> float:
    """F1 of class 1 (GLUE: MRPC, QQP); 0 where class 1 is neither predicted nor present."""
    return float(metrics.f1_score(references, predictions, zero_division=0.0))


def matthews(predictions: np.ndarray, references: np.ndarray) -> float:
    """Matthews correlation of class indices; 0 for a constant prediction, which carries no information."""
    return float(metrics.matthews_corrcoef(references, predictions))


def pearson(predictions: np.ndarray, references: np.ndarray) -> float:
    """Pearson correlation of values (n,); 0 for a constant prediction, where it is not defined."""
    return _correlation(stats.pearsonr, predictions, references)


def spearman(predictions: np.ndarray, references: np.ndarray) -> float:
    """Spearman rank correlation of values (n,); 0 for a constant prediction, where it is not defined."""
    return _correlation(stats.spearmanr, predictions, references)


def _correlation(function, predictions: np.ndarray, references: np.ndarray) -> float:
    if np.ptp(predictions) == 0 or np.ptp(references) == 0:
        return 0.0
    with warnings.catch_warnings():
        # an almost constant prediction, as early in training, is a poor score and no reason to stop
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return float(function(predictions, references).statistic)


METRICS = {f.__name__: f for f in (accuracy, f1, matthews, pearson, spearman)}
