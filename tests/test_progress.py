"""What a run shows while it works, and a sweep's estimate of the time left."""

import contextlib
import io
import sys

import pytest

from lora_bench.__main__ import main
from lora_bench.model import bf16, product
from lora_bench.sweep.plan import Sweep
from lora_bench.training.prepared import prepare
from lora_bench.training.run import run

from .helpers import mostly_slow
from .test_sweep import write


class Terminal(io.StringIO):
    """Keeps what a terminal would show."""

    def isatty(self) -> bool:
        return True


STAGES = [
    "reading cola and tiny", "loading PyTorch", "encoding 48 rows of cola", "building the model",
    "run 1 of 2: cola-tiny-lora", "scoring cola", "loading what was saved", "scoring cola",
    "[1 of 2 runs done, 1 to do, about", "run 2 of 2: cola-tiny-lora",
    "[2 of 2 runs done, 0 to do]",
]  # fmt: skip


@pytest.mark.parametrize("shown", mostly_slow([True, False], [True]))
def test_a_terminal_shows_every_stage_of_a_sweep(tmp_path, monkeypatch, shown):
    words = [
        "-m", "model=tiny", "data.toy_train=48", "data.toy_validation=24", "train.epochs=1",
        "seed=0,1", "group=1", f"progress={str(shown).lower()}", f"out_dir={tmp_path}/out",
        f"cache_dir={tmp_path}/cache",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["lora_bench", *words])
    with contextlib.redirect_stderr(Terminal()) as terminal:
        main()
    text = terminal.getvalue()
    found = [stage for stage in STAGES if stage in text]
    assert found == (STAGES if shown else [stage for stage in STAGES if stage.startswith("[")])
    place = 0
    for stage in found:  # in this order
        place = text.index(stage, place) + 1


def test_a_file_gets_no_bars(tiny_spec, capsys):
    run(tiny_spec("train.epochs=1", "progress=true"))
    assert capsys.readouterr().err == ""


def test_the_time_left_has_what_groups_take_beside_training(tiny_spec):
    runs = [prepare(tiny_spec(f"seed={seed}", "group=2")) for seed in range(6)]
    sweep = Sweep(runs)
    for planned in runs[:2]:
        write(planned, "ok", 10.0, started="later")
    sweep.refresh()
    assert sweep.seconds_left() == 4 * 10.0
    sweep.add_time(50.0, [planned.key for planned in runs[:2]])
    assert sweep.seconds_left() == 4 * 10.0 + 2 * 30.0  # two groups are left
    assert sweep.place(sweep.groups[1]) == "runs 3 to 4 of 6"
    assert Sweep(runs[:1]).place(runs[:1]) == ""


@pytest.mark.parametrize(
    ("supported", "precision"), [(True, "bf16"), (False, "bf16"), (False, "fp32")]
)
def test_bf16_on_a_cpu_without_its_instructions_is_reported(
    tiny_spec, capsys, monkeypatch, supported, precision
):
    monkeypatch.setattr(bf16, "has_bf16", lambda: supported)
    monkeypatch.setattr(product, "_can_pack", lambda weight: False)  # whatever this CPU has
    run(tiny_spec("train.epochs=1", f"precision={precision}"))
    said = capsys.readouterr().err
    assert ("precision=bf16: this CPU has no" in said) == (precision == "bf16" and not supported)
    assert said.count("\n") <= 1
