"""The low-rank study: its layers, its data, its runs as records, and its findings."""

import dataclasses
import gzip
import json
import math
import shlex
import shutil
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lora_bench import load_records, record
from lora_bench.errors import UserError
from lora_bench.plans import read_plans
from lora_bench.report.__main__ import main as report
from lora_bench.report.commands import COMMANDS
from lora_bench.spec import Identity, part_of
from lora_bench.studies.low_rank import findings, pictures, tune
from lora_bench.studies.low_rank.__main__ import show
from lora_bench.studies.low_rank.compose import CONF, compose, plan
from lora_bench.studies.low_rank.data import DataError, Images, load, read_idx
from lora_bench.studies.low_rank.layers import (
    Autoencoder,
    FullRank,
    LowRank,
    make_classifier,
    outer_factors,
)
from lora_bench.studies.low_rank.run import execute, generator, make_optimizer, prepare
from lora_bench.studies.low_rank.settings import PATHS, Settings

from .helpers import command_line

MODULE = "lora_bench.studies.low_rank"
LAYERS = sorted(path.stem for path in CONF.glob("layer/*.yaml"))
OPTIMIZERS = sorted(path.stem for path in CONF.glob("optimizer/*.yaml"))
SMALL = ["width=16", "epochs=2", "batch_size=128", "train_rows=256", "validation_rows=64"]
WIDTH, IMAGES = 64, 16  # of the layers whose activations are measured, and inputs


def cli(*words: str):
    return command_line(*words, module=MODULE)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mean_squares(make, count: int) -> np.ndarray:
    """Mean square of the activations after each of three layers and ReLUs, over many draws."""
    source, found = draws(), np.zeros(3)
    x = torch.randn(IMAGES, WIDTH, generator=source)
    with torch.no_grad():
        for _ in range(count):
            h = x
            for depth in range(3):
                h = make(source)(h).relu()
                found[depth] += h.square().mean().item() / count
    return found / x.square().mean().item()


def expected_mean_squares() -> np.ndarray:
    """Of full-rank layers, in the mean over draws: see the derivation in layers.py."""
    found, now = [], 1.0
    for _ in range(3):
        now = (now / 3 + 1 / (3 * WIDTH)) / 2
        found.append(now)
    return np.array(found)


# at low ranks a single draw varies so much that thousands are needed
MANY = [pytest.param(r, n, marks=pytest.mark.slow) for r, n in ((1, 30000), (2, 8000), (4, 4000))]
FEW = [(16, 100), (64, 60)]


@pytest.mark.parametrize(("rank", "count"), [*MANY, *FEW])
def test_activations_keep_their_size_through_three_layers_at_every_rank(rank, count):
    made = mean_squares(lambda g: LowRank(WIDTH, WIDTH, rank, "rank_aware", g), count)
    np.testing.assert_allclose(made, expected_mean_squares(), rtol=0.25)


def test_activations_of_full_rank_layers_are_what_the_derivation_says():
    made = mean_squares(lambda g: FullRank(WIDTH, WIDTH, g), 40)
    np.testing.assert_allclose(made, expected_mean_squares(), rtol=0.1)


@pytest.mark.parametrize("rank", [16, 64])
def test_an_autoencoder_loses_a_factor_of_three_of_the_signal_at_every_layer(rank):
    """The signal is how far the activations of two inputs stay apart; biases cancel in it."""

    def signal(make) -> np.ndarray:
        source, found = draws(), np.zeros(3)
        for _ in range(60):
            x, y = torch.randn(2, IMAGES, WIDTH, generator=source)
            for depth in range(3):
                layer = make(source)
                x, y = layer(x).relu(), layer(y).relu()
                found[depth] += (x - y).square().mean().item()
        return found

    with torch.no_grad():
        full = signal(lambda g: FullRank(WIDTH, WIDTH, g))
        default = signal(lambda g: Autoencoder(WIDTH, WIDTH, rank, g)) / full
        aware = signal(lambda g: LowRank(WIDTH, WIDTH, rank, "rank_aware", g)) / full
    np.testing.assert_allclose(aware, np.ones(3), rtol=0.25)
    assert (default < 2 / 3.0 ** np.arange(1, 4)).all()


@pytest.mark.parametrize("rank", [1, 2, 8, 64])
@pytest.mark.parametrize(("init", "variance"), [("rank_aware", 1 / 3), ("default", 1 / 9)])
def test_the_variance_of_the_product_is_the_derived_one(rank, init, variance):
    layers = [LowRank(200, 300, rank, init, draws(i)) for i in range(30 if rank < 8 else 3)]
    products = torch.stack([layer.a @ layer.b for layer in layers])
    assert products.var().item() == pytest.approx(variance / 200, rel=0.15)


def test_a_full_rank_layer_is_initialized_as_pytorch_does():
    ours, theirs = FullRank(50, 400, draws()), nn.Linear(50, 400)
    for name in ("weight", "bias"):
        a, b = (dict(layer.named_parameters())[name].detach() for layer in (ours, theirs))
        assert a.shape == b.shape and a.abs().max() <= 1 / math.sqrt(50)
        assert a.std().item() == pytest.approx(b.std().item(), rel=0.1)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 50)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("init", ["rank_aware", "default", "spectral"])
def test_a_low_rank_layer_agrees_with_the_dense_formula(init):
    layer, x = LowRank(6, 5, 3, init, draws()), torch.randn(4, 6)
    torch.testing.assert_close(layer(x), x @ (layer.a @ layer.b).T + layer.bias)
    assert torch.linalg.matrix_rank(layer.a @ layer.b) == 3


def test_an_autoencoder_is_two_linear_layers():
    layer, x = Autoencoder(6, 5, 3, draws()), torch.randn(4, 6)
    inner = x @ layer.layer1.weight.T + layer.layer1.bias
    torch.testing.assert_close(layer(x), inner @ layer.layer2.weight.T + layer.layer2.bias)
    assert layer.outer is layer.layer2.weight


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_spectral_initialization_is_the_best_approximation_of_a_full_rank_draw(rank):
    full, layer = FullRank(6, 5, draws()), LowRank(6, 5, rank, "spectral", draws())
    values = torch.linalg.svdvals(full.weight)
    missed = (full.weight - layer.a @ layer.b).norm()
    torch.testing.assert_close(missed, values[rank:].norm(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(layer.bias, full.bias)
    torch.testing.assert_close(layer.a.norm(), layer.b.norm())
    with pytest.raises(ValueError, match="rank=6: a layer from 6 to 5 has rank 5 at most"):
        LowRank(6, 5, 6, "spectral", draws())


TUNED = sorted(path.stem for path in CONF.glob("learning_rate/*.yaml"))


def test_every_layer_has_a_rate_for_the_default_optimizer():
    assert {f"{layer}_{Settings().optimizer}" for layer in LAYERS} <= set(TUNED)


@pytest.mark.parametrize("name", TUNED)
def test_every_preset_composes_and_learns(name, tmp_path):
    layer, _, optimizer = name.rpartition("_")
    assert layer in LAYERS and optimizer in OPTIMIZERS
    words = [f"layer={layer}", f"optimizer={optimizer}", *SMALL, f"out_dir={tmp_path}"]
    words += [] if layer == "full" else ["rank=8"]
    (run,) = prepare([compose([*words, "epochs=6", "train_rows=1024"])])
    done = execute(run, "c")
    assert done.status == "ok", done.error
    assert done.epochs[-1]["loss"] < done.epochs[0]["loss"]


def settings(**more) -> Settings:
    facts = {"layer": "low_rank", "kind": "low_rank", "rank": 8, "init": "rank_aware", "lr": 1e-3}
    return Settings(**(facts | more))


def other(value):
    """Another value of a setting, of a fitting type."""
    return value + "x" if isinstance(value, str) else 7 if value is None else value + 1


def test_the_identity_holds_every_setting_that_can_change_a_score():
    base = settings(data="mnist", root="here")
    before = base.identity("f")
    for field in dataclasses.fields(Settings):
        name = field.name
        after = dataclasses.replace(base, **{name: other(getattr(base, name))}).identity("f")
        locates = name in ("root", "out_dir")
        assert (after.key == before.key) == locates, name
        assert (after.cell == before.cell) == (locates or name == "seed"), name
        for part in ("where", "system"):
            if part_of(PATHS.get(name, "seed")) == part:
                assert getattr(after, part)[PATHS[name]] != getattr(before, part)[PATHS[name]]
    assert base.identity("g").key != before.key
    assert before.system["procedure"] and before.where["study"] == "low_rank"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnak=4"], "rnak=4: no such setting; did you mean rank? must be one of layer, "),
        (["layer=nix"], "Available options in 'layer': autoencoder full low_rank"),
        (["layer=low_rank"], "rank=null: layer=low_rank needs one, as in rank=8"),
        (["layer=full", "rank=4"], "rank=4: layer=full has no rank"),
        (["-m", "layer=full", "rank=1,2"], "rank=1: layer=full has no rank"),
        (["layer=full", "lr_ratio=2"], "lr_ratio=2.0: layer=full has one factor; must be 1"),
        (["layer=full", "init=spectral"], "init=spectral: must be one of null with kind=full"),
        (["rank=4", "init=nix"], "must be one of rank_aware, default, spectral with kind=low_rank"),
        (["rank=0"], "rank=0: must be 1 or more"),
        (["rank=4", "lr=0"], "lr=0.0: must be a finite number above 0"),
        (["rank=4", "lr=nan"], "lr=nan: must be a finite number above 0"),
        (["rank=4", "seed=-1"], "seed=-1: must be 0 or more"),
        (["rank=4", "data=cifar"], "data=cifar: must be one of digits, mnist, fashion_mnist"),
        (["rank=4", "split=test"], "split=test: must be one of validation, held_out"),
        (["rank=4", "root=/x"], "root=/x: data=digits comes with scikit-learn; must be null"),
        (["rank=4", "data=mnist", "root=/nowhere"], "root=/nowhere: no such folder"),
        (["rank=4", "train_rows=9999"], "train_rows=9999: sklearn.datasets.load_digits has 1,437"),
        (["rank=65", "layer=low_rank_spectral"], "rank=65: must be 64 or less with init=spectral"),
        (["rank=[4"], "error: "),
        (["layer=null"], "cannot be composed: Config group override must be a string"),
        (["rank=4", "epochs=2147483648"], "epochs=2147483648: must be at most 2147483647"),
        (["rank=4", "+x=3"], "+x=3: no such setting; must be one of "),
        (["rank=4", "kind=full"], "kind=full: no such setting; "),
        (["rank=4", "data=mnist", "root=x", "data_seed=5"], "data_seed=5: data=mnist with all"),
        (["rank=4", "layer@x=full"], "layer@x=full: must be layer=<value>"),
        (["~layer"], "~layer: must be layer=<value>"),
        (["--config-dir=/nowhere", "rank=4"], "--config-dir=/nowhere: no such folder"),
        (["rank=4", "hydra.searchpath=[file:///nowhere]"], "file:///nowhere: no such folder"),
        (["--resolve", "rank=4"], "--resolve: only works with --cfg or --help"),
        (["rank=4", "hydra.mode=MULTIRUN"], "hydra.mode=MULTIRUN: -m asks for a sweep"),
        (["rank=4", "hydra/launcher=joblib"], "hydra/launcher=joblib: only applies to a sweep"),
        (["-m", "rank=4", "hydra/sweeper=optuna"], "hydra/sweeper: the study has no search; -m"),
        (["-m", "rank=glob(*)"], "rank=glob(*): must list its values"),
        (["-m", "rank=4", "seed=range(0,100000)"], "the command asks for 100,000 runs"),
    ],
)  # fmt: skip
def test_a_wrong_input_gives_a_one_line_error_and_a_non_zero_exit(tmp_path, words, message):
    done = cli(*words, f"out_dir={tmp_path}")
    assert done.returncode != 0 and done.stdout == ""
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("record.json"))


def test_a_layer_type_of_the_users_folder_is_trained(tmp_path):
    preset = tmp_path / "conf" / "layer" / "mine.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text("# @package _global_\nlayer: mine\nkind: full\n")
    words = ["layer=mine", "lr=0.01", *SMALL, f"out_dir={tmp_path}"]
    for searched in (["--config-dir", f"{tmp_path}/conf"], [f"hydra.searchpath=[{tmp_path}/conf]"]):
        done = cli(*searched, *words)
        assert done.returncode == 0, done.stderr
    (found,), _ = record.read_all(tmp_path)
    assert found.system["method.name"] == "mine" and str(tmp_path) not in found.command


def test_a_sweep_over_a_setting_that_changes_no_score_is_refused(tmp_path):
    """Its runs are one run: two folders were made, one was filled."""
    done = cli("-m", "layer=full", *SMALL, f"out_dir={tmp_path}/a,{tmp_path}/b")
    assert done.returncode == 1
    line = f"out_dir={tmp_path}/a and out_dir={tmp_path}/b: must be one value"
    assert done.stderr.startswith(f"error: {line}") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_sweep_trains_full_rank_once_resumes_and_ends_in_tables_and_pictures(tmp_path):
    words = ["-m", "layer=full,low_rank", "rank=1,4", *SMALL, f"out_dir={tmp_path}"]
    first = cli(*words, "seed=0,1")
    assert first.returncode == 0, first.stderr
    assert "sweep: 6 runs" in first.stderr  # full rank has none: once for each seed
    assert first.stdout.count(": accuracy ") == 6
    assert "| Full " in first.stdout and "over_rank_digits.svg" in first.stdout
    found, problems = record.read_all(tmp_path)
    assert len(found) == 6 and not problems
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob(record.FILE)}
    second = cli(*words, "seed=0,1,2")
    assert "sweep: 9 runs" in second.stderr and second.stderr.count("already done") == 6
    assert all(path.stat().st_mtime_ns == before for path, before in times.items())
    assert sorted(len(p.keys) for p in read_plans(tmp_path)[0]) == [6, 9]
    assert all(str(tmp_path) not in p.command for p in read_plans(tmp_path)[0])


@pytest.mark.slow
@pytest.mark.parametrize("words", [["layer=low_rank", "rank=2"], ["layer=full", "lr=0.1,0.01"]])
def test_a_sweep_without_one_full_rank_system_ends_in_tables_too(tmp_path, words):
    done = cli("-m", *words, *SMALL, f"out_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table_last.md").exists()


def test_a_damaged_record_gives_a_one_line_error(tmp_path):
    words = ["layer=full", *SMALL, f"out_dir={tmp_path}"]
    cli(*words)
    (path,) = tmp_path.glob("runs/*/*/record.json")
    path.write_text("{")
    done = cli(*words)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {path}: cannot be read")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_recorded_command_gives_the_same_scores_again(tmp_path):
    cli("-m", "layer=full,autoencoder", "rank=4", "seed=3", *SMALL, f"out_dir={tmp_path}/a")
    before, _ = record.read_all(tmp_path / "a")
    for done in before:
        program, *words = done.command.removeprefix("python -m ").split()
        again = command_line(*words, f"out_dir={tmp_path}/b", module=program)
        assert again.returncode == 0, again.stderr
        assert any(word.startswith("lr=") for word in words)
    after, _ = record.read_all(tmp_path / "b")
    assert len(after) == 2
    assert [(r.key, r.epochs) for r in after] == [(r.key, r.epochs) for r in before]


def test_a_run_that_diverges_is_recorded_as_failed_and_tried_again(tmp_path):
    words = ["optimizer=sgd", "rank=4", *SMALL, f"out_dir={tmp_path}"]
    done = cli("-m", *words, "lr=1e9,0.01")
    assert done.returncode == 1
    assert "error: 1 of 2 runs failed:" in done.stderr and ": lr is too high" in done.stderr
    states = {r.spec["lr"]: r for r in record.read_all(tmp_path)[0]}
    assert states[1e9].status == "failed" and states[0.01].status == "ok"
    (trace,) = tmp_path.rglob("traceback.txt")
    assert states[1e9].key in str(trace) and "RuntimeError" in trace.read_text()
    assert cli(*words, "lr=1e9").returncode == 1
    assert record.read_all(tmp_path)[0] and len(list(tmp_path.rglob(record.FILE))) == 2


def test_a_run_depends_on_its_seed_alone(tmp_path):
    def epochs(seed: int, name: str) -> list:
        (run,) = prepare(
            [compose(["rank=4", f"seed={seed}", *SMALL, f"out_dir={tmp_path}/{name}"])]
        )
        return execute(run, "c").epochs

    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    first = epochs(0, "a")
    torch.manual_seed(99)
    assert epochs(0, "b") == first and epochs(1, "c") != first
    torch.random.set_rng_state(before)
    epochs(0, "d")
    assert torch.equal(torch.random.get_rng_state(), before)  # nothing was drawn from it
    assert torch.get_num_threads() == threads
    assert generator(0, "init").initial_seed() != generator(0, "order").initial_seed()


@pytest.mark.parametrize("kind", ["low_rank", "autoencoder"])
def test_the_outer_factors_learn_faster_by_the_ratio(kind):
    init = "rank_aware" if kind == "low_rank" else None
    made = settings(kind=kind, init=init, width=8, lr_ratio=4.0, optimizer="sgd", lr=0.01)
    model = make_classifier(made, 6, draws())
    rates = {
        id(p): group["lr"]
        for group in make_optimizer(model, made).param_groups
        for p in group["params"]
    }
    outer = {id(p) for p in outer_factors(model)}
    assert len(outer) == 2 and len(rates) == len(list(model.parameters()))
    assert {rates[p] for p in outer} == {0.04}
    assert {rates[p] for p in rates.keys() - outer} == {0.01}


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(root: Path, count: int = 60, *, packed: bool = False) -> None:
    """The four files of an image dataset that a classifier can learn."""
    rng = np.random.default_rng(0)
    for stem, rows in (("train", count), ("t10k", count // 2)):
        labels = np.arange(rows) % 10
        images = rng.integers(0, 30, (rows, 6, 5))
        images[np.arange(rows), labels // 5, labels % 5] = 255
        for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            content = idx(array)
            path = root / (f"{stem}-{name}.gz" if packed else f"{stem}-{name}")
            path.write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_and_trained_on(tmp_path, packed):
    write_idx(tmp_path, 400, packed=packed)
    words = ["data=fashion_mnist", f"root={tmp_path}", "rank=8", "lr=1e-2", "width=32"]
    done = cli(*words, "epochs=8", "batch_size=16", f"out_dir={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    ((found,), _) = record.read_all(tmp_path / "out")
    assert found.where["data.source"] == "idx" and found.where["task.name"] == "fashion_mnist"
    assert found.data["train"]["rows"] == 400 and found.data["validation"]["rows"] == 200
    assert found.data["validation"]["chance"]["accuracy"] == 0.1
    assert found.last["scores"]["accuracy"] > 0.9


def test_held_out_images_are_training_images_that_are_not_trained_on(tmp_path):
    write_idx(tmp_path, 100)
    made = settings(data="mnist", root=str(tmp_path), split="held_out")
    whole = load(dataclasses.replace(made, split="validation"))
    tuning = load(made)
    parts = np.concatenate([tuning.train.pixels, tuning.scored.pixels])
    assert len(tuning.scored.labels) == 20 and set(tuning.facts) == {"train", "held_out"}
    assert sorted(map(bytes, parts)) == sorted(map(bytes, whole.train.pixels))
    assert np.bincount(tuning.scored.labels).tolist() == [2] * 10
    assert tuning.fingerprint != whole.fingerprint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"", "starts with nothing; an IDX file of bytes with 3 dim"),
        ("train-images-idx3-ubyte", b"\x1f\x8b\x08\x00", "starts with 1f 8b 08 00"),
        ("train-labels-idx1-ubyte", idx(np.zeros((2, 2))), "starts with 00 00 08 02; an IDX file"),
        ("t10k-images-idx3-ubyte", b"\0\0\x08\x03\0\0", "ends within its header, after 6 of 16"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((9, 6, 5)))[:-1], "has 269 bytes after its header, "
         "which says 9 x 6 x 5 = 270"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((9, 6, 5))) + b"x", "has 271 bytes after"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(3)), "has 3 labels; t10k-images-idx3-ubyte has 30"),
        ("train-labels-idx1-ubyte", idx(np.full(60, 10)), "label 10 of image 1; must be 0 to 9"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((30, 4, 4))), "have images of 30 and 16 pixels"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((30, 0, 4))), "has no pixels (sizes (30, 0, 4))"),
        ("t10k-images-idx3-ubyte", None, "lacks t10k-images-idx3-ubyte or t10k-"),
    ],
)  # fmt: skip
def test_a_malformed_file_gives_a_one_line_error_that_names_it(tmp_path, name, content, message):
    write_idx(tmp_path)
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
    done = cli("rank=4", "data=mnist", f"root={tmp_path}", f"out_dir={tmp_path}/out")
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr and str(tmp_path) in done.stderr


def test_every_truncation_of_a_gzipped_file_is_refused(tmp_path):
    whole = gzip.compress(idx(np.arange(12).reshape(3, 2, 2)))
    path = tmp_path / "images.gz"
    path.write_bytes(whole)
    assert read_idx(path, 3).tolist() == np.arange(12).reshape(3, 2, 2).tolist()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"images\.gz: "):
            read_idx(path, 3)


def test_the_hub_is_read_and_its_absence_gives_a_one_line_error(monkeypatch):
    import datasets

    class Split(dict):
        column_names = ("image", "label")

    def found(repository, split):
        assert repository == "ylecun/mnist"
        rows = 20 if split == "train" else 10
        return Split(image=[np.full((3, 3), 255)] * rows, label=list(range(10)) * (rows // 10))

    monkeypatch.setattr(datasets, "load_dataset", found)
    splits = load(settings(data="mnist"))
    assert splits.train.pixels.shape == (20, 9) and splits.train.pixels.max() == 1.0
    assert splits.facts["validation"]["source"] == "hub ylecun/mnist test"
    monkeypatch.setattr(Split, "column_names", ("picture", "label"))
    with pytest.raises(DataError, match=r"ylecun/mnist train: has columns .* lacks \['image'\]"):
        load(settings(data="mnist"))

    def unreachable(repository, split):
        raise ConnectionError("no route\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError, match="cannot be loaded from the hub .no route.; offline"):
        load(settings(data="mnist"))


def test_the_fingerprint_is_of_the_content():
    pixels, labels = np.zeros((4, 9), dtype=np.float32), np.arange(4)
    prints = {
        Images(pixels, labels, "a").fingerprint(),
        Images(pixels, labels, "b").fingerprint(),
        Images(pixels + 1, labels, "a").fingerprint(),
        Images(pixels, labels[::-1], "a").fingerprint(),
        Images(pixels.reshape(6, 6), labels, "a").fingerprint(),
    }
    assert len(prints) == 4


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Two ranks and three seeds of every layer type."""
    folder = tmp_path_factory.mktemp("low_rank")
    words = [f"layer={','.join(LAYERS)}", "rank=1,4", "seed=0,1,2", *SMALL, f"out_dir={folder}"]
    for run in prepare(plan(words, sweep=True)):
        assert execute(run, f"python -m {MODULE} {run.key}").status == "ok"
    return folder


@pytest.mark.slow
def test_every_command_of_the_report_shows_the_study(finished, tmp_path, capsys):
    for command in ("tables", "plots", "page", "status", "export"):
        out = tmp_path / ("runs.csv" if command == "export" else command)
        more = [] if command == "status" else ["--out", str(out)]
        more += ["--baseline", "full"] if command == "tables" else []
        report([command, "--runs", str(finished), *more])
        assert capsys.readouterr().out
    table = (tmp_path / "tables" / "table_last.md").read_text()
    assert "| low_rank_spectral, r = 4 " in table and "procedure" not in table
    assert "Difference from full over common seeds" in table
    names = {path.stem for path in (tmp_path / "plots" / "pictures").glob("*.svg")}
    assert {"over_rank_digits", "epochs_digits", "pareto_parameters_digits"} <= names
    report(["trace", "method=low_rank", "rank=4", "init=rank_aware", "--runs", str(finished)])
    assert "3 runs of 1 system," in capsys.readouterr().out


def test_the_end_of_a_sweep_reads_the_records_once_for_its_tables(
    finished, tmp_path, monkeypatch, capsys
):
    folder = shutil.copytree(finished, tmp_path / "runs")
    read, read_all = [], record.read_all
    monkeypatch.setattr(record, "read_all", lambda root: read.append(root) or read_all(root))
    monkeypatch.setitem(COMMANDS, "plots", lambda args, runs: None)
    show({folder})
    assert read == [folder] * 2  # the second time for the pictures
    assert "Difference from full over common seeds" in capsys.readouterr().out
    for path in folder.glob("runs/*/*-full-*"):
        shutil.rmtree(path)
    show({folder})
    assert "No system full to compare with in digits accuracy" in capsys.readouterr().out


@pytest.mark.slow
def test_a_record_of_the_study_claims_no_setting_of_the_benchmark(finished):
    runs = load_records(finished)
    assert not {"train.warmup", "method.dropout", "head", "precision"} & set(runs.columns)
    assert set(runs.study) == {"low_rank"} and len(runs) == 33
    for path in finished.rglob(record.FILE):
        content = json.loads(path.read_text())
        found = Identity(content["where"], content["system"], content["seed"])
        assert found.key == content["key"] == path.parent.name


def test_records_of_both_stand_side_by_side(finished, tmp_path, tiny_spec, capsys):
    from lora_bench.training.run import run

    spec = tiny_spec("train.epochs=1")
    run(spec)
    shutil.copytree(finished, Path(spec.out_dir) / "study")
    report(["--runs", spec.out_dir, "--out", str(tmp_path / "both")])
    shown = capsys.readouterr().out
    assert "CoLA<br>Matthews" in shown and "digits<br>Acc." in shown


def test_findings_are_those_of_the_records(finished, tmp_path, capsys):
    findings.main(["--runs", str(finished), "--out", str(tmp_path)])
    text = (tmp_path / "findings.md").read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    assert all(f"## {question}" in text for question in findings.QUESTIONS)
    runs = load_records(finished)
    chosen = runs[(runs.method == "low_rank") & (runs["rank"] == 4)].set_index("seed")
    full = runs[runs.method == "full"].set_index("seed")
    last = [100 * chosen["last"][s]["accuracy"] for s in range(3)]
    assert f"{np.mean(last):.1f} ± {np.std(last, ddof=1):.1f} " in text
    start = [chosen.epochs[s][0]["loss"] for s in range(3)]
    assert f"{np.mean(start):.3f} ± {np.std(start, ddof=1):.3f}" in text
    difference = np.mean([last[s] - 100 * full["last"][s]["accuracy"] for s in range(3)])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    (row,) = [cells for cells in rows if cells[:4] == ["low_rank", "full", "last", "4"]]
    assert row[4] == f"{difference:+.1f}"
    assert (tmp_path / "curves.svg").is_file() and (tmp_path / "ranks.svg").is_file()


def test_the_legend_of_the_curves_names_a_layer_that_the_first_rank_lacks(finished, tmp_path):
    runs = findings.measured(load_records(finished), finished)
    pictures.draw(runs[(runs.method != "autoencoder") | (runs["rank"] == 4)], tmp_path)
    assert ">autoencoder<" in (tmp_path / "curves.svg").read_text()


def test_findings_count_the_runs_that_failed(finished):
    runs = load_records(finished)
    one = (runs.method == "low_rank") & (runs["rank"] == 4) & (runs.seed == 1)
    runs = runs.assign(status=runs.status.where(~one, "failed"))
    assert "low_rank at rank 4: 1 of 3." in findings.failures(runs)
    assert "low_rank at rank 4: 1 of 3." in findings.describe(
        findings.measured(runs, finished), findings.failures(runs)
    )
    assert findings.failures(load_records(finished)) == ""


def test_findings_mix_nothing(finished, tmp_path):
    runs = load_records(finished)
    with pytest.raises(UserError, match="no finished runs of this study there"):
        findings.measured(runs[runs.status == "failed"], tmp_path)
    with pytest.raises(UserError, match="has runs on different data"):
        findings.measured(runs.assign(where_id=runs.seed), tmp_path)
    twice = runs.assign(
        system_id=[f"{i}{s % 2}" for i, s in zip(runs.system_id, runs.seed, strict=True)]
    )
    with pytest.raises(UserError, match=r"has several values of train.epochs \(1, 2\); keep one"):
        findings.measured(runs.assign(**{"train.epochs": 1 + runs.seed % 2}), tmp_path)
    with pytest.raises(UserError, match="has several systems of layer="):
        findings.measured(twice, tmp_path)
    with pytest.raises(SystemExit, match="error: --runs .*: no finished runs of this study there"):
        findings.main(["--runs", str(tmp_path)])


def test_tuning_gives_every_layer_the_same_budget_and_writes_the_best_rate(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "learning_rate").mkdir()
    monkeypatch.setattr(tune, "CONF", tmp_path)
    words = ["layer=full,low_rank", "rank=2,4", "seed=100,101", "lr=1e-5,1e-2", *SMALL]
    tune.main([*words, "--write", f"out_dir={tmp_path}/out"])
    shown = capsys.readouterr().out
    assert (tmp_path / "out" / "rates_adam.md").read_text() in shown
    written = sorted((tmp_path / "learning_rate").iterdir())
    assert [path.name for path in written] == ["full_adam.yaml", "low_rank_adam.yaml"]
    assert all("\nlr: 0.01\n" in path.read_text() for path in written)
    runs = load_records(tmp_path / "out")
    for run in runs.itertuples():  # its command states every setting, with another's folder
        words = shlex.split(run.command)[3:]
        again = compose(words)
        again = dataclasses.replace(again, out_dir=str(tmp_path / "out"))
        (same,) = prepare([again])
        assert same.key == run.key
    assert len(runs) == 2 * 2 + 2 * 2 * 2 and {tuple(v) for v in runs["task.validation"]} == {
        ("held_out",)
    }
    with pytest.raises(UserError, match="optimizer=adam,sgd: must be one of adam, sgd"):
        tune.complete(["optimizer=adam,sgd"])
    with pytest.raises(UserError, match="hydra/launcher=joblib: the search runs in this process"):
        tune.complete(["hydra/launcher=joblib"])


def test_a_layer_type_without_a_rank_is_tuned_alone(tmp_path, monkeypatch):
    """As in the example of the help, although the default ranks are those of all layer types."""
    words = ["optimizer=sgd", "layer=full", "seed=100", "lr=1e-2", *SMALL, f"out_dir={tmp_path}"]
    tune.main(words)
    (found,), _ = record.read_all(tmp_path)
    assert found.system["method.name"] == "full" and found.system["method.rank"] is None


def test_a_rate_that_diverges_is_never_chosen():
    scores = pd.DataFrame(
        [("full", 0, lr, s, "adam", a) for lr, found in ((0.1, [0.9, 0.0]), (0.01, [0.6, 0.6]))
         for s, a in enumerate(found)],
        columns=["layer", "rank", "lr", "seed", "optimizer", "accuracy"],
    )  # fmt: skip
    assert tune.choose(scores).to_dict() == {"full": 0.01}
    with pytest.raises(UserError, match="^full: every run failed"):
        tune.choose(scores.assign(accuracy=0.0))
