"""A second implementation of the official SQuAD rules, for comparison.

Plain loops over dicts, nothing shared with lora_bench: lower-case, strip punctuation and articles,
collapse whitespace; the best over the references; v2's sweep over no-answer thresholds.
"""

import re
import string


def normal(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    text = re.sub(r"\b(a|an|the)\b", " ", text, flags=re.UNICODE)
    return " ".join(text.split())


def exact(prediction, gold):
    return int(normal(prediction) == normal(gold))


def f1(prediction, gold, version):
    p, g = normal(prediction).split(), normal(gold).split()
    if version == 2 and (not p or not g):
        return int(p == g)
    rest, same = list(g), 0
    for word in p:
        if word in rest:
            rest.remove(word)
            same += 1
    if same == 0:
        return 0
    precision, recall = same / len(p), same / len(g)
    return 2 * precision * recall / (precision + recall)


def evaluate_v1(golds, predictions):
    """golds: {id: [text]}; predictions: {id: text} -> percent."""
    em = [max(exact(predictions[i], g) for g in gold) for i, gold in golds.items()]
    ff = [max(f1(predictions[i], g, 1) for g in gold) for i, gold in golds.items()]
    return {"exact_match": 100.0 * sum(em) / len(em), "f1": 100.0 * sum(ff) / len(ff)}


def evaluate_v2(golds, predictions, null_odds=None, threshold=1.0):
    """As evaluate-v2.0.py with --na-prob-file and --na-prob-thresh."""
    odds = null_odds or dict.fromkeys(golds, 0.0)
    answerable = {i: bool(gold) for i, gold in golds.items()}
    raw = {"exact": {}, "f1": {}}
    for i, gold in golds.items():
        texts = [g for g in gold if normal(g)] or [""]
        raw["exact"][i] = max(exact(predictions[i], g) for g in texts)
        raw["f1"][i] = max(f1(predictions[i], g, 2) for g in texts)
    out = {}
    for name, scores in raw.items():
        final = {
            i: float(not answerable[i]) if odds[i] > threshold else s for i, s in scores.items()
        }
        out[name] = 100.0 * sum(final.values()) / len(final)
        for part, wanted in (("HasAns", True), ("NoAns", False)):
            chosen = [final[i] for i in final if answerable[i] == wanted]
            if chosen:
                out[f"{part}_{name}"] = 100.0 * sum(chosen) / len(chosen)
        out[f"best_{name}"], out[f"best_{name}_thresh"] = best(
            predictions, scores, odds, answerable
        )
    return out


def best(predictions, scores, odds, answerable):
    current = best_score = sum(1 for a in answerable.values() if not a)
    best_thresh = 0.0
    for i in sorted(odds, key=lambda k: odds[k]):
        if answerable[i]:
            current += scores[i]
        elif predictions[i]:
            current -= 1
        if current > best_score:
            best_score, best_thresh = current, odds[i]
    return 100.0 * best_score / len(scores), best_thresh
