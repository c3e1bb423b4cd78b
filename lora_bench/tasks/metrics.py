"""Metrics as pure functions of predictions and references, on scikit-learn and SciPy.

All return a fraction (1.0 is perfect), as scikit-learn does; tables show percent. The SQuAD rules
are those of the official scripts (Rajpurkar et al. 2016 for v1.1, 2018 for v2.0), which differ when
an answer normalizes to nothing.
"""

import math
import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SpecError, UserError, one_line


class UndefinedScore(UserError):
    """A metric of ``evaluate`` gives no finite number for these predictions."""


def accuracy(predictions: np.ndarray, references: np.ndarray) -> float:
    """Share of equal labels; both (n,) class indices."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(references, predictions))


def f1(predictions: np.ndarray, references: np.ndarray) -> float:
    """F1 of class 1 (GLUE: MRPC, QQP); 0 if class 1 is neither predicted nor present."""
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, zero_division=0.0))


def matthews(predictions: np.ndarray, references: np.ndarray) -> float:
    """Matthews correlation of class indices; 0 for a constant prediction."""
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        # One class in predictions and references: scikit-learn warns, and returns 0.
        warnings.filterwarnings("ignore", "A single label was found")
        return float(matthews_corrcoef(references, predictions))


def pearson(predictions: np.ndarray, references: np.ndarray) -> float:
    """Pearson correlation of values (n,); 0 for a constant prediction, where it is undefined."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, predictions, references)


def spearman(predictions: np.ndarray, references: np.ndarray) -> float:
    """Spearman correlation of values (n,); 0 for a constant prediction, where it is undefined."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, predictions, references)


def _correlation(
    function: Callable[..., Any], predictions: np.ndarray, references: np.ndarray
) -> float:
    from scipy.stats import NearConstantInputWarning

    if np.ptp(predictions) == 0 or np.ptp(references) == 0:
        return 0.0
    with warnings.catch_warnings():
        # An almost constant prediction, as early in training, is a poor score, not an error.
        warnings.simplefilter("ignore", NearConstantInputWarning)
        # in fp32, the correlation of almost constant predictions would be wrong in the third digit
        return float(function(predictions.astype(np.float64), references).statistic)


CLASSIFICATION = {f.__name__: f for f in (accuracy, f1, matthews)}
REGRESSION = {f.__name__: f for f in (pearson, spearman)}
METRICS = {**CLASSIFICATION, **REGRESSION}
EVALUATE = "evaluate:"  # evaluate:<id on the hub or folder>, with #<value> if it gives several


def score_name(metric: str) -> str:
    """The name of a score: the metric, without the location of an ``evaluate`` metric."""
    path, _, value = metric.removeprefix(EVALUATE).partition("#")
    return value or Path(path).name


def check_evaluate(setting: str, metric: str) -> None:
    """Check the name of a metric of the ``evaluate`` library, without loading it.

    Raises:
        SpecError: it does not name a metric, or names a folder without one.
    """
    path = metric.removeprefix(EVALUATE).partition("#")[0]
    if not path:
        raise SpecError(setting, metric, f"must be {EVALUATE}<id or folder>")
    if path[0] in "./~" and not (Path(path) / f"{Path(path).name}.py").is_file():
        raise SpecError(setting, metric, f"there is no file {path}/{Path(path).name}.py")


def compute(metric: str, predictions: np.ndarray, references: np.ndarray) -> float:
    """Compute a metric of this module by name, or one of ``evaluate``, whose code is then run.

    Raises:
        UserError: the metric cannot be loaded, or gives several values.
        UndefinedScore: it gives no finite number.
    """
    if not metric.startswith(EVALUATE):
        return METRICS[metric](predictions, references)
    path, _, value = metric.removeprefix(EVALUATE).partition("#")
    import evaluate

    try:
        module = evaluate.load(path, keep_in_memory=True)
        found = module.compute(predictions=predictions, references=references)
    except Exception as error:  # from the metric's own code, or while reaching the hub
        raise UserError(f"task.metrics={metric}: {one_line(error)}") from error
    if not isinstance(found, Mapping):
        raise UserError(f"task.metrics={metric}: gives {found!r}; must give a dict of scores")
    value = value or (next(iter(found)) if len(found) == 1 else score_name(metric))
    if value not in found:
        named = ", ".join(f"{EVALUATE}{path}#{name}" for name in found)
        raise UserError(f"task.metrics={metric}: gives several values; write one of {named}")
    score = found[value]
    if not isinstance(score, int | float | np.number) or not math.isfinite(score):
        raise UndefinedScore(f"task.metrics={metric}: {value} is {score}, must be a finite number")
    return float(score)


def normalize_answer(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles (a, an, the), single spaces."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 if the prediction equals any reference after normalization, else 0.0."""
    return max(
        float(normalize_answer(prediction) == normalize_answer(reference))
        for reference in references
    )


def token_f1(prediction: str, references: Sequence[str], *, version: int) -> float:
    """Best F1 of bags of words over the references.

    Args:
        prediction: answer text.
        references: accepted answer texts.
        version: version of SQuAD, 1 or 2. Where either side has no words, version 2 gives 1.0 if
            both have none, version 1 gives 0.0.
    """
    return max(
        _one_f1(normalize_answer(prediction).split(), normalize_answer(r).split(), version)
        for r in references
    )


def _one_f1(predicted: list[str], gold: list[str], version: int) -> float:
    if version == 2 and not (predicted and gold):
        return float(predicted == gold)
    same = sum((Counter(predicted) & Counter(gold)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(predicted), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def references_of(answers: Sequence[str], *, version: int) -> list[str]:
    """The references that a question is scored against.

    Version 2 drops those that normalize to nothing, and gives an unanswerable question the empty
    reference.
    """
    if version == 1:
        return list(answers)
    return [a for a in answers if normalize_answer(a)] or [""]


def best_threshold(
    scores: np.ndarray, null_odds: np.ndarray, has_answer: np.ndarray, empty: np.ndarray
) -> tuple[float, float]:
    """The no-answer threshold with the best mean score, by the official script's search.

    A question counts as unanswered if its null_odds are above the threshold.

    Args:
        scores: (n,), scores of the answer texts.
        null_odds: (n,), higher for "no answer".
        has_answer: (n,) bool.
        empty: (n,) bool, whether the answer text is empty.

    Returns:
        The best mean score and its threshold; the threshold is 0.0 if it is best to answer no
        question, as in the script.
    """
    order = np.argsort(null_odds, kind="stable")
    gains = np.where(has_answer, scores, np.where(empty, 0.0, -1.0))[order]
    nothing = float((~has_answer).sum())
    sums = np.cumsum(np.concatenate([[nothing], gains]))[1:]  # sequential, as the script adds
    best = int(np.argmax(sums))
    if sums[best] <= nothing:
        return nothing / len(scores), 0.0
    return float(sums[best]) / len(scores), float(null_odds[order[best]])
