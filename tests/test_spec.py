"""Every preset composes, every recipe with every method, and every value is checked."""

import copy
import functools
import json
import math
import re
from pathlib import Path

import hydra
import pytest

from lora_bench.compose import completed, compose, from_config, plan, validate
from lora_bench.errors import SpecError, UserError
from lora_bench.overrides import in_dict, report_replaced, setting_paths, without_replaced
from lora_bench.presets import CONF
from lora_bench.spec import Spec, settings
from lora_bench.sweep.plan import expand

from .conftest import composed
from .helpers import every, mostly_slow

ROOT = Path(__file__).parent.parent
GROUPS = {
    group.name: sorted(p.stem for p in group.glob("*.yaml"))
    for group in (ROOT / "conf").iterdir()
    # conf/tuned/ is written by a program: tests/test_tune.py
    if group.is_dir() and group.name not in ("hydra", "tuned")
}


GLUE = ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"]
PEFT = [
    f"peft_{name}"
    for name in [
        "adalora",
        "boft",
        "dora",
        "fourierft",
        "ia3",
        "ln_tuning",
        "lora",
        "olora",
        "pissa",
        "rslora",
        "vblora",
        "vera",
    ]
]
OURS = [
    "adapter_houlsby",
    "adapter_pfeiffer",
    "bitfit",
    "full",
    "galore",
    "head_only",
    "lora",
    "lora_fa",
    "lora_linear",
    "lora_plus",
    "qlora",
    "relora",
]
SQUAD = ["squad_v1", "squad_v2"]
IN_PAPER = [task for task in GLUE if task != "wnli"]
FOR_TASK = [f"paper_{size}_{task}" for size in ("base", "large") for task in IN_PAPER]
# Methods that are LoRA with one change, and its second implementation.
RELATIVES = [
    "lora_fa", "lora_linear", "lora_plus", "peft_dora", "peft_lora", "peft_rslora", "qlora",
    "relora",
]  # fmt: skip
ALL_WEIGHTS = ["full", "galore"]
OPEN_RATE = ["tuned"]  # recipes that leave the learning rate to conf/tuned/
WITH_RATE = [recipe for recipe in GROUPS["recipe"] if recipe not in OPEN_RATE]


def test_the_presets_are_all_seen():
    assert {
        "data": ["hub", "local", "toy"],
        "method": sorted([*OURS, *PEFT]),
        "model": ["minilm", "roberta_base", "roberta_large", "tiny"],
        "recipe": ["article", "paper_base", "paper_large", "quick", "tuned"],
        "recipe_for_method": sorted(
            [
                *[f"{recipe}_{method}" for recipe in WITH_RATE for method in ALL_WEIGHTS],
                *[f"paper_{size}_{m}" for size in ("base", "large") for m in ["lora", *RELATIVES]],
                "article_lora",
            ]
        ),
        "sweep": sorted(
            [
                "alphas",
                "article",
                "methods",
                "paper_base",
                "paper_large",
                "quickstart",
                "rank_alpha",
                "ranks",
            ]
        ),
        "recipe_for_task": sorted(
            [
                *FOR_TASK,
                *[f"{recipe}_{task}" for recipe in ("article", "quick", "tuned") for task in SQUAD],
            ]
        ),
        "task": sorted([*GLUE, *SQUAD]),
    } == GROUPS


PRESETS = [(group, name) for group, names in GROUPS.items() for name in names]


@pytest.mark.parametrize("preset", every(6, PRESETS), ids="-".join)
def test_every_preset_composes_and_opens_with_a_comment(preset):
    group, name = preset
    if group == "recipe_for_task":
        recipe, task = next(
            (name.removesuffix(f"_{t}"), t) for t in (*GLUE, *SQUAD) if name.endswith(f"_{t}")
        )
        rate = ["train.lr=1"] if recipe in OPEN_RATE else []
        spec = compose([f"recipe={recipe}", f"task={task}", "init_from=null", *rate])
        assert (
            (spec.train.epochs >= 10 and spec.train.lr <= 5e-4)
            if task in GLUE
            else spec.train.max_length == 384
        )
    elif group == "recipe_for_method":
        (recipe,) = (r for r in GROUPS["recipe"] if name.startswith(f"{r}_"))
        method = name.removeprefix(f"{recipe}_")
        assert method in GROUPS["method"]
        if method in ALL_WEIGHTS:
            lr = compose_recipe(recipe, "lora").train.lr
            assert compose_recipe(recipe, method).train.lr < lr / 5
    elif group == "sweep":
        given = expand([f"+sweep={name}", "device=cpu"], sweep=True)
        assert math.prod(len(override.split(",")) for override in given) >= 9
        one_seed = [override for override in given if not override.startswith("seed=")]
        assert plan(one_seed, sweep=True)
        with pytest.raises(UserError, match=r"\+sweep=.*: stands for many runs"):
            compose([f"+sweep={name}"])
    else:
        rate = ["train.lr=1"] if name in OPEN_RATE else []
        spec = compose([f"{group}={name}", *(["data.root=x"] if name == "local" else []), *rate])
    if group in ("task", "model", "method", "data"):
        part = getattr(spec, group)
        assert (part.source if group == "data" else part.name) == name
    text = (ROOT / "conf" / group / f"{name}.yaml").read_text()
    assert text.startswith("# ") and (
        name not in FOR_TASK or ("python -m lora_bench" in text and "Published" in text)
    )


@functools.cache
def compose_recipe(recipe: str, method: str, *more: str) -> Spec:
    """A recipe with a method, on a task that every recipe has numbers for."""
    words = [f"recipe={recipe}", f"method={method}", "task=rte", "init_from=null"]
    words += ["train.lr=1"] if recipe in OPEN_RATE else []
    return composed(*words, *more)


@pytest.mark.parametrize("recipe", mostly_slow(GROUPS["recipe"], []))
def test_every_recipe_composes_with_every_method(recipe):
    """A recipe sets a method's own settings only for the methods that it names."""
    for method in GROUPS["method"]:
        spec, own = compose_recipe(recipe, method), compose_recipe("quick", method)
        if f"{recipe}_{method}" not in GROUPS["recipe_for_method"] or method in ALL_WEIGHTS:
            assert spec.method == own.method, method


@pytest.mark.slow
def test_relatives_of_lora_differ_from_it_by_their_change_alone():
    for size, alpha in (("base", 8), ("large", 16)):
        for method in ("lora", *RELATIVES):
            assert compose_recipe(f"paper_{size}", method).method.alpha == alpha


def test_methods_that_train_every_weight_have_the_recipe_of_robertas_authors():
    """fairseq, examples/roberta/README.glue.md."""
    for size, lr in (("base", 2e-5), ("large", 1e-5)):
        for method in ALL_WEIGHTS:
            spec = compose([f"recipe=paper_{size}", f"method={method}", "task=rte"])
            assert spec.init_from is None
            train = spec.train
            assert (train.lr, train.epochs, train.batch_size) == (lr, 10, 16)
            assert (train.warmup, train.weight_decay, train.max_length) == (0.06, 0.1, 512)


def test_the_article_recipe_is_the_articles_system():
    for rank in (8, 2):
        spec = compose_recipe("article", "lora", f"method.rank={rank}")
        m = spec.method
        assert (m.alpha, m.init, m.biases, m.layer_norms) == (rank, "gaussian", "all", True)
        assert (m.embeddings, m.targets, spec.head) == (False, ["query", "value"], "article")
    given = expand(["+sweep=article", "task=rte,squad_v2"], sweep=True)
    systems = [spec.method for _, spec in plan(given, sweep=True)]
    assert systems == 2 * [compose_recipe("article", "lora").method]


def test_hub_models_are_pinned():
    for name in GROUPS["model"]:
        model = compose([f"model={name}"]).model
        on_hub = not model.source.startswith(("package:", "random:"))
        assert re.fullmatch("[0-9a-f]{40}", model.revision or "") if on_hub else not model.revision


@pytest.mark.parametrize(
    ("task", "size", "numbers"),
    [  # LoRA paper, Table 9: batch, epochs, lr, max length, alpha
        ("mnli", "base", (16, 30, 5e-4, 512, 8)),
        ("cola", "base", (32, 80, 4e-4, 512, 8)),
        ("rte", "base", (32, 80, 5e-4, 512, 8)),
        ("sst2", "large", (4, 10, 4e-4, 128, 16)),
        ("stsb", "large", (8, 30, 2e-4, 512, 16)),
    ],
)
def test_paper_recipes_hold_table_9(task, size, numbers):
    spec = compose([f"recipe=paper_{size}", f"task={task}", "init_from=null"])
    train = spec.train
    assert (
        train.batch_size,
        train.epochs,
        train.lr,
        train.max_length,
        spec.method.alpha,
    ) == numbers
    assert (spec.method.rank, spec.method.targets, train.warmup) == (8, ["query", "value"], 0.06)


def test_the_readme_names_every_preset_a_user_chooses_from():
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| ")]
    for group in ("task", "method", "model", "data", "recipe"):
        row = next(line for line in rows if line.startswith(f"| {group} "))
        assert set(GROUPS[group]) <= set(re.findall(r"\w+", row.split("|")[3])), group


def test_a_recipe_that_needs_an_mnli_start_says_so():
    for task in ("mrpc", "rte", "stsb"):
        with pytest.raises(
            UserError, match="init_from=required: this recipe starts the task from another run"
        ):
            compose(["recipe=paper_base", f"task={task}"])
    assert compose(["recipe=paper_base", "task=qnli"]).init_from is None
    with pytest.raises(UserError, match="epochs: the chosen presets do not set it"):
        compose(["recipe=paper_base", "task=wnli"])


@pytest.mark.parametrize("path", every(12, [p for p in setting_paths() if not in_dict(p)]))
def test_a_value_of_another_type_is_reported_what_is_allowed(path):
    with pytest.raises(UserError, match=f"^{re.escape(path)}={{a: 1}}: must be [a-z]") as caught:
        compose([f"{path}={{a: 1}}"])
    assert "\n" not in str(caught.value)


WRONG = [
    ("method.rank=-1", "method.rank=-1: must be 1 or more (set by the command line)"),
    ("method.rank=0", "method.rank=0: must be 1 or more"),
    ("method.alpha=0", "method.alpha=0.0: must be a finite number above 0"),
    ("method.alpha=null", "method.alpha=None: method=lora needs it"),
    ("method.dropout=1", "method.dropout=1.0: must be at least 0 and below 1"),
    ("train.dropout=0.999999", "train.dropout=0.999999: must be 0, or between 1.5e-05 and 1 - "),
    ("train.dropout=1e-6", "train.dropout=1e-06: must be 0, or between 1.5e-05 and 1 - 1.5e-05"),
    ("train.dropout=-1e-6", "train.dropout=-1e-06: must be at least 0 and below 1"),
    ("method.init=zeros", "must be one of kaiming, gaussian, gaussian_rank"),
    ("method.targets=[query,valu]", "must be among query, key, value"),
    ("method.layers=[-1]", "must be layer indices from 0"),
    ("method.layers=[]", "must name a layer; null stands for all"),
    ("method.layers=[1,1]", "must not contain duplicates"),
    ("method.targets=[query,query]", "must not contain duplicates"),
    ("method.targets=[]", "method.targets=[]: method=lora needs it"),
    ("method.file=nosuch", "method.file=nosuch: must be one of adapter, bitfit, full"),
    ("logger=mlflow", "logger=mlflow: must be one of none, tensorboard, wandb"),
    ("train.optimizer=sgd", "train.optimizer=sgd: must be one of adamw, adamw8bit"),
    ("method.biases=some", "must be one of none, adapted, all"),
    ("method.rnak=4", "method.rnak=4: no such setting; did you mean method.rank?"),
    ("method.rank=four", "method.rank=four: must be a whole number or null (set by"),
    ("train.lr=1e-3,2e-3", "To sweep over it, add --multirun"),
    ("train.lr=abc", "train.lr=abc: must be a number (set by the command line)"),
    ("task.name=${foo}", "task.name: Interpolation key 'foo' not found"),
    ("method.targets=query", "method.targets=query: must be a list, as in [a,b] (set by"),
    ("train.lr=0", "train.lr=0.0: must be a finite number above 0"),
    ("train.lr=nan", "train.lr=nan: must be a finite number above 0"),
    ("train.epochs=0", "train.epochs=0: must be 1 or more"),
    ("train.batch_size=0", "train.batch_size=0"),
    ("train.warmup=2", "between 0 and 1"),
    ("train.weight_decay=-1", "0 or more"),
    ("train.max_grad_norm=0", "above 0"),
    ("train.max_length=4", "must be 8 or more"),
    ("train.dropout=1.5", "below 1"),
    ("data.validation_rows=0", "must be 1 or more"),
    ("task=squad_v1 +task.args.stride=-1", "must be 0 or more"),
    ("task=squad_v1 +task.args.max_question=0", "must be 1 or more"),
    ("task=squad_v1 +task.args.max_answer=0", "must be 1 or more"),
    ("task=squad_v2 task.args.held_out=1", "must be at least 0 and below 1"),
    ("eval_batch_size=0", "must be 1 or more"),
    ("data.toy_train=0", "must be 1 or more"),
    ("data.toy_validation=0", "must be 1 or more"),
    ("data.train_rows=0", "must be 1 or more"),
    ("seed=-1", "must be 0 or more"),
    ("data.seed=-1", "must be 0 or more"),
    ("precision=fp8", "must be one of fp32, bf16"),
    ("head=big", "must be one of standard, article"),
    ("device=tpu", "must be cpu, cuda or cuda:<number>"),
    ("data=local", "data.root=None: data=local needs the folder"),
    ("task=nosuch", "Available options in 'task': cola mnli mrpc"),
]


@pytest.mark.parametrize("case", every(4, WRONG))
def test_a_wrong_value_gives_a_one_line_error_that_names_it(case):
    override, message = case
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        compose(override.split())
    assert "\n" not in str(caught.value)


def test_runs_of_a_sweep_are_composed_as_if_each_were_alone():
    """A sweep composes presets once, and sets plain settings afterwards: here, all of them."""
    own = settings(compose([]))
    words = [f"{path}={json.dumps(value)}" for path, value in own.items() if value is not None]
    words = [word for word in words if not word.startswith(("method.args", "task."))]
    words += ["seed=3,4", "task=rte,stsb", "train.lr=1e-4,2e-4", "+sweep=ranks"]
    jobs = plan(expand(words, sweep=True), sweep=True)
    assert len(jobs) >= 8
    for job, spec in jobs[:: len(jobs) // 4]:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra.compose("config", completed(job))
        assert spec == from_config(config, job)


def test_a_section_as_a_whole_and_one_of_its_settings_keep_their_order():
    for words, lr in (
        (["train.lr=1", "train={lr: 2}"], 2.0),
        (["train={lr: 2}", "train.lr=1"], 1.0),
    ):
        assert compose(words).train.lr == lr


FLOATS = {**settings(Spec()), "task.value_range": [], "method.args": {}}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused_in_every_setting(number):
    """Otherwise the record could not be written after training."""
    for path in FLOATS:
        spec = copy.deepcopy(composed("data=local", "data.root=x"))
        section, _, name = path.rpartition(".")
        holder = functools.reduce(getattr, filter(None, section.split(".")), spec)
        value = getattr(holder, name)
        if not isinstance(value, float | list | dict):
            continue
        inside = {list: [number], dict: {"entry": {"inner": number}}}
        setattr(holder, name, inside.get(type(value), number))
        with pytest.raises(SpecError, match=path.replace(".", r"\.")):
            validate(spec)


def test_a_message_gives_a_one_line_error_that_a_terminal_shows_as_it_is():
    text = str(SpecError("data.root", "a\nb\x1b[2J\u202e\ud800é", "must be a folder"))
    assert text == r"data.root=a\nb\x1b[2J\u202e\ud800é: must be a folder"
    text = str(SpecError("data.root", "x" * 100_000, "must be a folder"))
    assert len(text) < 1600 and text.startswith("data.root=xx") and text.endswith("a folder")


def test_a_window_must_have_room_for_question_and_stride():
    with pytest.raises(
        UserError, match="train.max_length=150: must be 197 or more: question, stride and 5"
    ):
        compose(["task=squad_v1", "train.max_length=150"])


def test_rank_without_targets_has_no_effect():
    with pytest.raises(UserError, match="method.rank=4: method=full does not read it"):
        compose(["method=full", "method.rank=4"])


def test_the_error_says_that_a_preset_set_it():
    with pytest.raises(UserError, match=r"method.alpha=None.*\(set by a preset or default\)"):
        compose(["method=full", "method.file=lora"])
    spec = compose([])
    spec.method.rank = 0
    with pytest.raises(SpecError, match=r"method\.rank=0"):
        validate(spec)


def test_every_setting_is_read_somewhere():
    """No dead options: each field's name is used outside of spec.py."""
    code = "\n".join(
        p.read_text() for p in (ROOT / "lora_bench").rglob("*.py") if p.name != "spec.py"
    )
    for path in settings(Spec()):
        leaf = path.rpartition(".")[2]
        if path != "task.version":  # is read by the key alone: that is its purpose
            assert re.search(rf"\.{leaf}\b|\"{leaf}\"", code), path


NUMBERS = [path for path, value in settings(compose(["task=cola"])).items() if type(value) is int]
DICTS = [path for path, value in settings(Spec()).items() if isinstance(value, dict)]


@pytest.mark.parametrize("path", [*NUMBERS, "task.official_rows.train", "method.args.every"])
def test_a_number_that_no_record_can_hold_is_refused(path):
    more = ["method=relora"] if path == "method.args.every" else []
    with pytest.raises(UserError, match=r"must be at most \d+"):
        compose([*more, f"{path}=99999999999999999999"])


@pytest.mark.parametrize("path", [*DICTS, "method.args", "task.args", "task.metrics"])
def test_a_reference_to_a_value_of_another_type_is_refused(path):
    """OmegaConf checks the types of values, but not of what ${...} stands for."""
    with pytest.raises(UserError, match=rf"^{path}=0: must be an? "):
        compose([f"{path}=${{seed}}"])


@pytest.mark.parametrize("path", NUMBERS)
def test_a_value_of_the_wrong_type_in_a_preset_names_the_setting(path, tmp_path):
    *sections, leaf = path.split(".")
    lines = [f"{name}:" for name in sections] + [f"{leaf}: many"]
    text = "\n".join("  " * depth + line for depth, line in enumerate(lines))
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(UserError, match=rf"^{path}: In 'recipe/mine'.*Value 'many'"):
        compose([f"hydra.searchpath=[file://{tmp_path}]", "recipe=mine"])


def test_a_preset_with_the_name_of_a_built_in_one_is_refused(tmp_path):
    """Hydra would ignore it."""
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "lora.yaml").write_text("rank: 4")
    with pytest.raises(
        UserError, match="a built-in preset is named method/lora.yaml; choose another"
    ):
        compose([f"hydra.searchpath=[file://{tmp_path}]", "method=lora"])


@pytest.mark.parametrize("word", ["init_from=another", "train.gradient_checkpointing=true"])
def test_what_a_frozen_encoder_does_not_use_is_refused(word):
    with pytest.raises(UserError, match="has no effect: only the head is trained"):
        compose(["method=head_only", word])
    assert compose(["method=head_only", "method.biases=all", word])


def test_a_word_that_a_later_one_replaces_is_named(capsys):
    words = ["seed=0,1", "task=rte", "+seed=2"]
    report_replaced(words)
    assert capsys.readouterr().err == "seed=0,1: is replaced by +seed=2\n"
    assert without_replaced(words) == ["task=rte", "+seed=2"]
    words = ["seed=1", "data.seed=1", "seed=1"]
    report_replaced(words)
    assert capsys.readouterr().err == "" and without_replaced(words) == ["data.seed=1", "seed=1"]


@pytest.mark.parametrize("first", ["train.lr=2e-3", "++train.lr=2e-3", "train={lr:2e-3}"])
@pytest.mark.parametrize("last", ["train.lr=1e-3", "++train.lr=1e-3", "train={lr:1e-3}"])
def test_the_last_word_counts_however_it_is_written(first, last):
    assert compose([first, last]).train.lr == 1e-3
    words = [first, last.replace("1e-3", "1e-3,3e-3")] if "{" not in last else [first, last]
    assert {spec.train.lr for _, spec in plan(words, sweep=True)} <= {1e-3, 3e-3}


def test_a_whole_section_and_its_entry_count_in_their_order():
    section, entry = "task.local={folder:x}", "task.local.folder=y"
    assert compose([entry, section]).task.local.folder == "x"
    assert compose([section, entry]).task.local.folder == "y"


def test_the_words_of_a_run_name_a_rate_that_was_tuned():
    words = ["recipe=tuned", "task=sst2", "data=local", "data.root=.", "data.train_rows=1000"]
    ((found, spec),) = plan(words, sweep=False)
    assert found == [*words, f"train.lr={spec.train.lr!r}"]
    ((given, _),) = plan([*words, "train.lr=1e-4"], sweep=False)
    assert given == [*words, "train.lr=1e-4"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("recipe_for_method=quick_full", "no such setting"),
        ("hydra={job:{chdir:true}}", "hydra={job:{chdir:true}}: must be one of Hydra's own sett"),
        ("hydra.job={chdir:true}", "hydra.job={chdir:true}: must be one of Hydra's own settings"),
        ("init_from=", "init_from=: must name a run or folder, or be null"),
        ("~sweep=alphas", "~sweep=alphas: cannot be removed"),
        ("out_dir=é", "out_dir=é: a value with special characters needs quotes: 'out_dir=\"é\"'"),
    ],
)
def test_a_word_that_would_bypass_a_check_is_refused(word, message):
    with pytest.raises(UserError, match=re.escape(message)):
        plan(expand([word], sweep=True), sweep=True)


def test_the_order_of_patterns_is_part_of_a_run_and_that_of_settings_is_not(tiny_spec):
    """PEFT takes the first pattern that matches."""
    keys = []
    for patterns in ("{query:2,layer.0:4}", "{layer.0:4,query:2}"):
        words = ["method.rank=4", f"+method.args.alpha_pattern={patterns}"]
        for order in (words, words[::-1]):
            spec = tiny_spec("method=peft_lora", *order)
            keys.append(spec.identity(data="d", model="m").key)
    assert keys[0] == keys[1] != keys[2] == keys[3]
