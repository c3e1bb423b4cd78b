"""The page, opened in a real browser."""

import json
import re
import shutil
import subprocess
from functools import cache

import pytest

from lora_bench.report import load_records
from lora_bench.report.page import write_page
from tests.report_records import grid, made_up


def browser() -> str:
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if found is None:
        pytest.skip("no Chromium here to open the page in")
    return found


def dom(page, state: str, tmp_path) -> str:
    """The page as a real browser has it after its script has run."""
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=5000",
        f"--user-data-dir={tmp_path}/profile",
    ]
    done = subprocess.run(
        [browser(), *flags, "--dump-dom", f"file://{page}#{state}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout


def test_the_page_sorts_filters_and_traces_in_a_real_browser(tmp_path):
    runs = grid(tmp_path / "runs")
    write_page(runs, tmp_path / "index.html")
    text = (tmp_path / "index.html").read_text()
    assert not re.search(r"(src|href)=\"?https?:", text)  # nothing from a network

    @cache
    def shown(state):
        return dom(tmp_path / "index.html", state, tmp_path)

    def systems(state):
        return re.findall(r"<td>((?:lora|full|bitfit)[^<]*)</td>", shown(state))

    assert len(systems("")) == 6
    ordered = systems("sort=mean&direction=descending")
    assert ordered[0] == "full" and ordered[-1] == "bitfit"
    assert systems("q=r%3D4") == systems("q=lora+r%3D4") and len(systems("q=r%3D4")) == 2
    full = runs[(runs.method == "full") & (runs.seed == 0)].key.item()
    opened = f"q=full&open={full}:matthews"
    assert systems(opened) == ["full"]
    assert "python -m lora_bench seed=0 method=full" in shown(opened)
    assert "commit c0ffee; torch 2.13.0" in shown(opened)
    assert shown(opened).count("<figure>") == 7


def test_text_of_a_run_cannot_become_script(tmp_path):
    made_up(tmp_path / "runs", status="failed")
    record = json.loads(next((tmp_path / "runs").rglob("record.json")).read_text())
    record["error"] = "</script><script>alert(1)</script>"
    next((tmp_path / "runs").rglob("record.json")).write_text(json.dumps(record))
    write_page(load_records(tmp_path / "runs"), tmp_path / "index.html")
    assert "</script><script>alert" not in (tmp_path / "index.html").read_text()
