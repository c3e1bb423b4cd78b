"""SQuAD: the official rules, windows and offsets, prediction files."""

import json
import random
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import RobertaForQuestionAnswering

from lora_bench import items
from lora_bench.compose import compose
from lora_bench.data import HELD_OUT, DataError, Rows, load, load_split
from lora_bench.errors import UserError
from lora_bench.model.encoder import load_tokenizer, tiny_config
from lora_bench.model.heads import TokenHead
from lora_bench.tasks import make_task
from lora_bench.tasks.answers import Answer, best_spans
from lora_bench.tasks.metrics import exact_match, normalize_answer, token_f1
from lora_bench.training.prepared import Prepared, prepare
from lora_bench.training.run import run

from . import official_squad as official
from .conftest import MINILM, REAL_DATA, TINY
from .helpers import every, random_batch

WORDS = [
    "the",
    "The",
    "a",
    "An",
    "cat",
    "cat's",
    "Café",
    "café",
    "naïve",
    "42",
    "4,2",
    "—",
    "...",
    "!",
    "über",
    "ß",
    "東京",
    "and",
]


def phrase(rng: random.Random) -> str:
    return rng.choice([" ", "  ", "\u00a0", "\t"]).join(
        rng.choice(WORDS) for _ in range(rng.randint(0, 4))
    )


@pytest.fixture
def real_squad():
    folder = REAL_DATA / "squad"
    if not folder.is_dir():
        pytest.skip(f"real SQuAD files are not at {folder}")
    return folder


def test_words_and_rules_agree_on_2000_random_cases():
    rng = random.Random(0)
    for _ in range(2000):
        prediction, golds = phrase(rng), [phrase(rng) for _ in range(rng.randint(1, 3))]
        assert normalize_answer(prediction) == official.normal(prediction)
        assert exact_match(prediction, golds) == max(official.exact(prediction, g) for g in golds)
        for version in (1, 2):
            expected = max(official.f1(prediction, g, version) for g in golds)
            assert token_f1(prediction, golds, version=version) == expected


@pytest.mark.parametrize("seed", every(4, range(20)))
def test_v2_scores_and_thresholds_agree_to_the_last_digit(seed):
    """2,000 random cases with ties in the odds, empty texts and unanswerable questions."""
    rng = random.Random(seed)
    task = make_task(compose(["task=squad_v2"]).task)
    rows = [
        {"id": str(i), "answers": {"text": [phrase(rng) for _ in range(rng.choice((0, 1, 3)))]}}
        for i in range(100)
    ]
    answers = [
        Answer(
            phrase(rng) if rng.random() < 0.9 else "", rng.choice((-1.5, 0.25, rng.gauss(0, 2))), []
        )
        for _ in rows
    ]
    compare_v2(task, rows, answers, threshold=rng.choice((0.0, 0.25, -1.0)))


def compare_v2(task, rows, answers, threshold):
    golds = {row["id"]: row["answers"]["text"] for row in rows}
    texts = {row["id"]: a.text for row, a in zip(rows, answers, strict=True)}
    odds = {row["id"]: a.null_odds for row, a in zip(rows, answers, strict=True)}
    expected = official.evaluate_v2(golds, texts, odds, threshold)
    ours = task.score(answers, rows, threshold=threshold)
    assert ours.pop("chosen_thresh") == threshold
    assert set(ours) == set(expected)
    for name, value in ours.items():
        percent = value if name.endswith("_thresh") else 100 * value
        assert percent == pytest.approx(expected[name], abs=1e-9), name
    return ours


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["perfect", "empty", "shuffled", "truncated"])
@pytest.mark.parametrize("name", ["squad_v1", "squad_v2"])
def test_the_real_dev_files_score_as_the_official_rules_say(real_squad, name, kind):
    spec = compose([f"task={name}", "data=local", f"data.root={real_squad}"])
    task, rows = (
        make_task(spec.task),
        load_split(make_task(spec.task), spec.data, "validation").rows,
    )
    assert len(rows) == spec.task.official_rows["validation"]
    rows = rows if kind == "shuffled" else rows[::4]  # a quarter tells the other kinds apart
    rng = random.Random(1)
    texts = [rng.choice(row["answers"]["text"]) if row["answers"]["text"] else "" for row in rows]
    if kind == "empty":
        texts = [""] * len(texts)
    elif kind == "shuffled":
        rng.shuffle(texts)
    elif kind == "truncated":
        texts = [text[: len(text) // 2] for text in texts]
    answers = [Answer(text, rng.gauss(0, 1) - 2 * bool(text), []) for text in texts]
    if name == "squad_v2":
        ours = compare_v2(task, rows, answers, threshold=0.5)
        assert kind != "perfect" or ours["best_exact"] > 0.9
        return
    ours = task.score(answers, rows)
    golds = {row["id"]: row["answers"]["text"] for row in rows}
    expected = official.evaluate_v1(
        golds, {row["id"]: text for row, text in zip(rows, texts, strict=True)}
    )
    assert {k: 100 * v for k, v in ours.items()} == pytest.approx(expected, abs=1e-9)
    assert {"perfect": ours["f1"] == 1.0, "empty": ours["f1"] == 0.0}.get(kind, 0 < ours["f1"] < 1)


@pytest.mark.parametrize("model", [MINILM, TINY], ids=["wordpiece", "byte-level"])
def test_gold_spans_of_made_up_passages_come_back(model):
    """Spaces, accents, punctuation, and answers at both ends of a passage of several windows."""
    context = (
        "Zürich's  lake — (the “big” one) lies near 東京 tower. "
        + "Filler words go on. " * 40
        + "The end was naïve"
    )
    answers = [
        "Zürich",
        "Zürich's  lake",
        "the “big” one",
        "big",
        "東京",
        "naïve",
        "The end was naïve",
    ]
    rows = [row(str(i), "Which one?", context, answer) for i, answer in enumerate(answers)]
    for task_name in ("squad_v1", "squad_v2"):
        task = make_task(compose([f"task={task_name}"]).task)
        encoded = task.encode(rows, load_tokenizer(model), 240)
        assert len(encoded) > len(rows)
        found = [gold_text(encoded, w, rows) for w in range(len(encoded))]
        for i, answer in enumerate(answers):
            texts = {
                text for w, text in enumerate(found) if encoded.row[w] == i and text is not None
            }
            assert texts == {answer}


def row(identity, question, context, answer):
    answers = (
        {"text": [answer], "answer_start": [context.index(answer)]}
        if answer
        else {"text": [], "answer_start": []}
    )
    return {
        "id": identity,
        "title": "t",
        "question": question,
        "context": context,
        "answers": answers,
    }


def gold_text(encoded, window, rows):
    """What the window's label cuts from the passage; None for a window without the answer."""
    first, last = encoded.labels[window]
    if first == 0:
        return None
    places = encoded.offsets[encoded.starts[window] :]
    return rows[encoded.row[window]]["context"][places[first, 0] : places[last, 1]]


@pytest.mark.slow
@pytest.mark.parametrize("model", [MINILM, TINY], ids=["wordpiece", "byte-level"])
@pytest.mark.parametrize(
    "file", ["squad_v1 train", "squad_v1 validation", "squad_v2 train", "squad_v2 validation"]
)
def test_gold_spans_of_the_real_files_come_back(real_squad, model, file):
    name, split = file.split()
    spec = compose([f"task={name}", "data=local", f"data.root={real_squad}"])
    task, rows = make_task(spec.task), load_split(make_task(spec.task), spec.data, split).rows
    encoded = task.encode(rows, load_tokenizer(model), 384 if model is MINILM else 512)
    found = [(w, gold_text(encoded, w, rows)) for w in range(len(encoded))]
    found = [(w, text) for w, text in found if text is not None]
    cut = 0
    for window, text in found:
        question = rows[encoded.row[window]]
        gold, start = question["answers"]["text"][0], question["answers"]["answer_start"][0]
        if text != gold:
            # The annotation starts or ends inside a token ("Japan" of "Japanese"): no span equals
            # it, and the shortest one that covers it adds the rest of these tokens.
            cut += 1
            places = encoded.offsets[encoded.starts[window] : encoded.starts[window + 1]]
            edges = {int(c) for c in places[places[:, 0] >= 0].ravel()}
            assert not {start, start + len(gold)} <= edges and gold in text, question["id"]
            print(f"{question['id']}: {gold!r} cuts a token, came back as {text!r}")
    print(f"{file}: {len(found)} answerable windows, {len(rows)} questions, {cut} cut a token")
    assert cut == 0 if model is TINY else cut <= 0.01 * len(found)
    # every answerable question has its answer whole in at least one window
    answerable = {i for i, question in enumerate(rows) if question["answers"]["text"]}
    assert len(answerable - {int(encoded.row[w]) for w, _ in found}) <= 0.001 * len(answerable)


def test_windows_overlap_by_the_stride_and_cover_the_passage():
    context = " ".join(f"w{i}" for i in range(300))
    task = make_task(
        compose(["task=squad_v1", "+task.args.stride=20", "train.max_length=120"]).task
    )
    encoded = task.encode([row("1", "What?", context, "w7")], load_tokenizer(MINILM), 120)
    spans = [
        encoded.offsets[encoded.starts[w] : encoded.starts[w + 1]] for w in range(len(encoded))
    ]
    chars = [{int(c) for c in places[places[:, 0] >= 0, 0]} for places in spans]
    assert min(set.union(*chars)) == 0 and context[max(set.union(*chars)) :] in "w299"
    for one, other in pairwise(chars):
        assert len(one & other) == 20


@pytest.mark.parametrize("model", [MINILM, TINY], ids=["wordpiece", "byte-level"])
@pytest.mark.parametrize(
    ("context", "answer"),
    [
        ("He lives in Rome ", "Rome "),
        (" Rome is big", " Rome"),
        ("He lives in Rome\u200b", "Rome\u200b"),
        ("\u200bRome is big", "\u200bRome"),
        ("Rome", "Rome"),
    ],
)
def test_characters_without_a_token_do_not_hide_an_answer(context, answer, model):
    """At the edges of a passage."""
    rows = [row("1", "Where?", context, answer)]
    encoded = make_task(compose(["task=squad_v1"]).task).encode(rows, load_tokenizer(model), 240)
    assert (gold_text(encoded, 0, rows) or "").strip(" \u200b") == "Rome"


def test_an_answer_that_continues_in_the_next_window_is_not_in_this_one():
    words = [f"w{i}" for i in range(300)]
    task = make_task(
        compose(["task=squad_v1", "+task.args.stride=20", "train.max_length=120"]).task
    )
    rows = [row("1", "What?", " ".join(words), " ".join(words[:200]))]
    encoded = task.encode(rows, load_tokenizer(MINILM), 120)
    assert len(encoded) > 2 and not encoded.labels.any()


def test_other_windows_are_not_taken_from_the_cache(tiny_spec):
    rows = [row("1", "What?", " ".join(f"w{i}" for i in range(100)), "w7")]

    def windows(*overrides):
        spec = tiny_spec("task=squad_v1", "train.max_length=240", *overrides)
        return len(Prepared(spec).encode(rows))

    assert windows("+task.args.stride=10") == windows("+task.args.stride=10") < windows()


def test_a_question_longer_than_its_share_is_cut():
    task = make_task(compose(["task=squad_v1"]).task)
    context = "Short passage with an answer."
    encoded = task.encode([row("1", "why " * 500, context, "answer")], load_tokenizer(TINY), 240)
    assert gold_text(encoded, 0, [row("1", "", context, "answer")]) == "answer"
    assert encoded.lengths.max() <= 240


@pytest.mark.parametrize(
    "question", ["why " * 500, "a" + "\U0001f600" * 90], ids=["words", "bytes"]
)
def test_the_smallest_window_holds_the_longest_question(question):
    """A character of four bytes is four tokens, of which a cut must keep all or none."""
    words = ["task=squad_v1", "+task.args.max_question=10", "+task.args.stride=6"]
    task = make_task(compose([*words, "train.max_length=21"]).task)
    context = "Long passage with an answer. " * 3
    rows = [row("1", question, context, "ans")]
    encoded = task.encode(rows, load_tokenizer(TINY), 21)
    assert encoded.lengths.max() == 21
    assert "ans" in [gold_text(encoded, window, rows) for window in range(len(encoded))]
    with pytest.raises(UserError, match="train.max_length=20: must be 21 or more"):
        compose([*words, "train.max_length=20"])


def test_best_spans_are_the_best_of_all_and_keep_to_their_length():
    rng = np.random.default_rng(0)
    context = "abcdefghijklmnop"
    places = np.array(
        [[-1, -1], [-1, -1], *[[i, i + 1] for i in range(16)], [-1, -1]], dtype=np.int32
    )
    for longest in (1, 3, 30):
        logits = rng.normal(size=(19, 2)).astype(np.float32)
        every = [
            (logits[i, 0] + logits[j, 1], context[i - 2 : j - 1])
            for i in range(2, 18)
            for j in range(i, min(18, i + longest))
        ]
        expected = sorted(every, reverse=True)[:5]
        found = best_spans(logits, places, context, longest)
        assert [text for _, text in found] == [text for _, text in expected]
        assert [score for score, _ in found] == pytest.approx([float(s) for s, _ in expected])


def test_the_answer_comes_from_the_best_window_and_the_null_score_from_the_least_sure_one():
    task = make_task(compose(["task=squad_v2", "+task.args.stride=20"]).task)
    rows = [row("1", "What?", " ".join(f"w{i}" for i in range(100)), "w7")]
    encoded = task.encode(rows, load_tokenizer(TINY), 120)
    outputs = [torch.zeros(int(n), 2) for n in encoded.lengths]
    outputs[0][0] = torch.tensor([3.0, 3.0])
    outputs[1][0] = torch.tensor([1.0, 0.5])
    at = int(np.flatnonzero(encoded.offsets[encoded.starts[2] : encoded.starts[3], 0] >= 0)[5])
    outputs[2][at] = torch.tensor([4.0, 4.0])
    outputs[2][0] = torch.tensor([9.0, 9.0])
    for other in outputs[3:]:
        other[0] = 9.0
    (answer,) = task.decode(outputs, rows, encoded)
    low, high = encoded.offsets[encoded.starts[2] + at]
    assert answer.text == rows[0]["context"][low:high] and answer.null_odds == pytest.approx(
        1.5 - 8.0
    )
    article = [
        torch.cat([o, torch.full((len(o), 1), -2.0 + i)], dim=1) for i, o in enumerate(outputs)
    ]
    assert task.decode(article, rows, encoded)[0].null_odds == -2.0


def test_loss_is_that_of_transformers_head_on_a_padded_batch():
    """Parity with RobertaForQuestionAnswering, window by window."""
    from lora_bench.model.attention import ATTENTION
    from lora_bench.model.wrapper import LoraWrapperRoberta

    theirs = RobertaForQuestionAnswering(
        tiny_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ).eval()
    ours = LoraWrapperRoberta(
        "squad_v1", model_id=theirs.roberta, lora_rank=None, head="standard"
    ).eval()
    assert isinstance(ours.head, TokenHead)
    ours.head.load_state_dict(theirs.qa_outputs.state_dict())
    labels = np.array([[1, 3], [0, 0], [2, 2]])
    batch = random_batch([5, 9, 3], labels=labels)
    task = make_task(compose(["task=squad_v1"]).task)
    theirs.roberta.set_attn_implementation("sdpa")
    parts = batch.input_ids.split([5, 9, 3])
    expected = [
        theirs(p[None], start_positions=torch.tensor([a]), end_positions=torch.tensor([b])).loss
        for p, (a, b) in zip(parts, labels.tolist(), strict=True)
    ]
    theirs.roberta.set_attn_implementation(ATTENTION)
    torch.testing.assert_close(task.loss(ours(batch), batch), torch.stack(expected).mean())


def test_the_articles_head_adds_a_weighted_no_answer_loss():
    task = make_task(compose(["task=squad_v2"]).task)
    batch = random_batch([4, 3], labels=np.array([[1, 2], [0, 0]]))
    logits = torch.randn(7, 3)
    plain = task.loss(logits[:, :2], batch)
    extra = F.binary_cross_entropy_with_logits(logits[[0, 4], 2], torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(task.loss(logits, batch), plain + 2.1 * extra)


@pytest.mark.parametrize(
    "overrides", every(3, [["task=squad_v1"], ["task=squad_v2"], ["task=squad_v2", "head=article"]])
)
def test_a_run_writes_files_that_the_official_rules_score_alike(tiny_spec, overrides):
    spec = tiny_spec(*overrides, "data.toy_train=80", "train.epochs=1", "train.lr=1e-2")
    done = run(spec)
    rows = load_split(make_task(spec.task), spec.data, "validation").rows
    golds = {row["id"]: row["answers"]["text"] for row in rows}
    files = {
        p.stem: json.loads(p.read_text())
        for p in (prepare(spec).folder / "predictions").glob("*.json")
    }
    scores = done.last["scores"]
    if spec.task.name == "squad_v1":
        assert set(files) == {"predictions", "nbest"}
        assert official.evaluate_v1(golds, files["predictions"]) == pytest.approx(
            {k: 100 * v for k, v in scores.items()}
        )
        return
    assert set(files) == {"predictions", "nbest", "null_odds", "answers"}
    plain = official.evaluate_v2(golds, files["predictions"])
    swept = official.evaluate_v2(golds, files["answers"], files["null_odds"])
    for name in ("exact", "f1", "HasAns_f1", "NoAns_exact"):
        assert plain[name] == pytest.approx(100 * scores[name]), name
    assert swept["best_f1"] == pytest.approx(100 * scores["best_f1"])
    assert swept["best_f1_thresh"] == pytest.approx(scores["best_f1_thresh"])


def test_each_split_has_its_own_official_files(tiny_spec):
    spec = tiny_spec(
        "task=squad_v2", "data.toy_train=80", "train.epochs=1",
        "task.validation=[validation_a,validation_b]",
    )  # fmt: skip
    scores = run(spec).last["scores"]
    folder = prepare(spec).folder
    for split, suffix in (("validation_a", "_a"), ("validation_b", "_b")):
        rows = load_split(make_task(spec.task), spec.data, split).rows
        golds = {row["id"]: row["answers"]["text"] for row in rows}
        found = json.loads((folder / "predictions" / split / "predictions.json").read_text())
        exact = official.evaluate_v2(golds, found)["exact"]
        assert exact == pytest.approx(100 * scores[f"exact{suffix}"])
    assert {*items.read_scored(folder)} == {"validation_a", "validation_b"}


def test_the_threshold_comes_from_other_articles_than_training():
    spec = compose(["task=squad_v2", "data.toy_train=200"])
    splits = load(make_task(spec.task), spec.data)
    titles = {name: {row["title"] for row in rows.rows} for name, rows in splits.items()}
    assert (
        not titles["train"] & titles[HELD_OUT]
        and len(titles["train"]) == len(titles[HELD_OUT]) == 5
    )
    assert len(splits["train"].rows) + len(splits[HELD_OUT].rows) == 200
    plain = compose(["task=squad_v1"])
    assert HELD_OUT not in load(make_task(plain.task), plain.data)


@pytest.mark.parametrize("name", ["squad_v1", "squad_v2"])
def test_toy_passages_hold_their_answers_and_have_a_ceiling(name):
    spec = compose([f"task={name}", "data=toy"])
    task, splits = make_task(spec.task), load(make_task(spec.task), spec.data)
    everything = [row for rows in splits.values() for row in rows.rows]
    for r in everything:
        for text, start in zip(r["answers"]["text"], r["answers"]["answer_start"], strict=True):
            assert r["context"][start : start + len(text)] == text
        assert r["clean_answer"].lower() in r["context"].lower()
    points = task.reference_points(splits["train"].rows, splits["validation"].rows, "validation")
    assert points["chance"]["f1"] + 0.4 < points["ceiling"]["f1"] < 1
    none = np.mean([not r["clean_answer"] for r in everything])
    assert none == 0 if name == "squad_v1" else 0.25 < none < 0.42
    contexts = {s: {r["context"] for r in rows.rows} for s, rows in splits.items()}
    assert not contexts["train"] & contexts["validation"]


def good_file():
    context = "Ann sleeps in Rome."
    qas = [
        {
            "id": "q1",
            "question": "Who?",
            "answers": [{"text": "Ann", "answer_start": 0}],
            "is_impossible": False,
        },
        {
            "id": "q2",
            "question": "Where?",
            "answers": [{"text": "Rome", "answer_start": 14}],
            "is_impossible": False,
        },
        {"id": "q3", "question": "Why?", "answers": [], "is_impossible": True},
    ]
    return {
        "version": "v2.0",
        "data": [{"title": "Sleep", "paragraphs": [{"context": context, "qas": qas}]}],
    }


def break_question(**changes):
    def change(data):
        data["data"][0]["paragraphs"][0]["qas"][1] |= changes

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            break_question(answers=[{"text": "Rome", "answer_start": 13}]),
            "answer 'Rome' is not at its offset 13",
        ),
        (break_question(answers=[{"text": "Rome", "answer_start": -5}]), "is not at its offset -5"),
        (break_question(answers=[{"text": "", "answer_start": 3}]), "is not at its offset 3"),
        (break_question(answers=[{"text": " ", "answer_start": 3}]), "answer is ' '; must be te"),
        (break_question(answers=[{"text": "Rome"}]), "must hold text and answer_start"),
        (break_question(answers="Rome"), "must be a list"),
        (break_question(answers=[]), "is_impossible is False with 0 answers"),
        (break_question(is_impossible=True), "is_impossible is True with 1 answer; must"),
        (break_question(question=" "), "question is ' '; must be text"),
        (break_question(id=7), "id is 7; must be text"),
        (break_question(id="q1"), "an earlier question has this id"),
    ],
)
def test_a_broken_question_is_named_or_left_out_and_counted(tmp_path, change, message):
    data = good_file()
    change(data)
    path = tmp_path / "train-v2.0.json"
    path.write_text(json.dumps(data))
    spec = compose(["task=squad_v2", "data=local", f"data.root={tmp_path}"])
    with pytest.raises(DataError) as caught:
        load_split(make_task(spec.task), spec.data, "train")
    text = str(caught.value)
    assert (
        message in text
        and "article 'Sleep' question" in text
        and "train-v2.0.json" in text
        and "\n" not in text
    )
    spec.data.skip_bad = True
    found = load_split(make_task(spec.task), spec.data, "train")
    assert len(found.rows) == 2 and len(found.skipped) == 1 and message in found.skipped[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": [', "line 1 column 11"),
        ("[]", "has no list `data`"),
        ('{"data": 3}', "`data` is not a list"),
        ('{"data": [{"title": "x"}]}', "article 0: lacks 'paragraphs'"),
        ('{"data": [{"title": "x", "paragraphs": [{"qas": []}]}]}', "article 0: lacks 'context'"),
        ('{"data": []}', "is empty"),
        ("", "line 1 column 1"),
    ],
)
def test_a_file_that_is_no_squad_gives_a_one_line_error(tmp_path, text, message):
    (tmp_path / "train-v1.1.json").write_text(text)
    spec = compose(["task=squad_v1", "data=local", f"data.root={tmp_path}"])
    with pytest.raises(DataError, match=message) as caught:
        load_split(make_task(spec.task), spec.data, "train")
    assert "\n" not in str(caught.value)


def test_v1_wants_an_answer_to_every_question(tmp_path):
    (tmp_path / "train-v1.1.json").write_text(json.dumps(good_file()))
    spec = compose(["task=squad_v1", "data=local", f"data.root={tmp_path}"])
    with pytest.raises(
        DataError, match="question 'q3': has no answer; every question of squad_v1 must have one"
    ):
        load_split(make_task(spec.task), spec.data, "train")


def test_articles_without_a_kind_of_question_are_reported(capsys):
    """Those with unanswerable questions may all be on one side of the division."""
    answered = {"text": ["a"], "answer_start": [0]}

    def rows(without: str) -> Rows:
        nothing = {"text": [], "answer_start": []}
        found = [
            {"title": title, "answers": nothing if title == without and i else answered}
            for title in "ab"
            for i in range(2)
        ]
        return Rows(found, "train.json")

    task = make_task(compose(["task=squad_v2"]).task)
    divided = task.divide({"train": rows("a")}, seed=0)
    (has_both,) = {row["title"] for row in divided["train"].rows}
    source = "train.json, held-out articles" if has_both == "a" else "train.json"
    use = "the no-answer threshold" if has_both == "a" else "training"
    assert capsys.readouterr().err == (
        f"{source}: all 2 questions for {use} have an answer; another data.seed divides the "
        "articles differently\n"
    )
