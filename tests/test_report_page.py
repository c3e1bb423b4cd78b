"""The page: what it holds, and what it shows in a real browser."""

import json
import random
import re
import shutil
from pathlib import Path

import pytest

from lora_bench.report import load_records
from lora_bench.report.__main__ import main
from lora_bench.report.cells import make_cells
from lora_bench.report.methods_table import methods_table
from lora_bench.report.page import write_page
from lora_bench.report.page.content import MAX_EPOCHS, content
from lora_bench.report.published import published_table
from lora_bench.report.statistics import compare
from lora_bench.spec import Identity
from tests.helpers import mostly_slow, seeds_of_fuzz
from tests.report_records import composed, grid, made_of, made_up
from tests.test_report_pictures import HOSTILE, random_runs

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SIZES = {"wide": (1400, 900), "phone": (390, 844)}
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("no Chromium here to open the page in")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser):
    """A function that opens a page; an error of its script fails the test."""
    contexts, errors = [], []

    def open_page(path: Path, state: str = "", size: str = "wide", scheme: str = "light"):
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda r: errors.append(r.url) if r.url.startswith("http") else None)
        page.goto(f"file://{path}#?{state}")
        page.wait_for_selector("html[data-ready=yes]", timeout=60_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Runs of toy and of real data, and their page."""
    folder = tmp_path_factory.mktemp("page")
    grid(folder / "runs")
    for seed in (0, 1, 2):
        for method in ("lora", "full"):
            made_up(
                folder / "runs", "data=local", "data.root=/glue", f"method={method}",
                f"seed={seed}",
                last=0.3 + seed / 20 + (method == "full") / (7 + seed), data="e",
            )  # fmt: skip
    made_up(folder / "runs", "task=rte", "data=local", "data.root=/glue", last=0.55, data="e")
    runs = load_records(folder / "runs")
    write_page(runs, folder / "index.html")
    return runs, folder / "index.html"


def systems(page, number: int = 0) -> list[str]:
    """The methods of a matrix, references left out."""
    return (
        page.locator(".matrix").nth(number).locator("tbody:not(.references) th").all_inner_texts()
    )


def test_the_first_screen_is_a_matrix_and_toy_and_real_are_apart(filled, opened):
    page = opened(filled[1])
    captions = page.locator(".matrix caption").all_inner_texts()
    assert [caption.split(",")[1].strip() for caption in captions] == ["local data", "toy data"]
    assert len(systems(page, 0)) == 2 and len(systems(page, 1)) == 6
    heads = page.locator(".matrix").first.locator("thead th").all_inner_texts()
    assert [head for head in heads if head] == [
        "method", "cola", "rte", "matthews", "accuracy", "average"]  # fmt: skip
    box = page.locator(".matrix button.best, .matrix td button").first.bounding_box()
    assert box["y"] < 400
    assert page.locator(".references th").first.inner_text() == "chance"


def test_filters_and_order_are_kept_in_the_address(filled, opened):
    page = opened(filled[1])
    page.fill("#q", "r=4 toy")
    page.wait_for_function("document.getElementById('count').textContent.startsWith('2 ')")
    assert systems(page) and all("r=4" in name for name in systems(page))
    assert page.locator(".matrix").count() == 1
    assert page.locator("#by-cost figure").count() == 1  # pictures follow the filter
    page.select_option("#sort", "name")
    again = opened(filled[1], page.url.partition("#?")[2])
    assert systems(again) == systems(page) and again.input_value("#q") == "r=4 toy"
    empty = opened(filled[1], "q=nothing+has+this")
    assert "No system fits" in empty.inner_text("#matrices")


def test_a_column_sorts_both_ways(filled, opened):
    page = opened(filled[1], "q=toy")
    up = systems(page)
    assert up[0] == "full" and up[-1] == "bitfit"
    for direction in ("descending", "ascending"):
        page.locator(".matrix thead button").first.click()
        head = page.locator(".matrix thead th[aria-sort]").first
        assert head.get_attribute("aria-sort") == direction
    assert systems(page)[:-1][-1] == "full"  # a failed system stays last


def test_a_number_opens_its_runs_with_the_keyboard_alone(filled, opened):
    runs, path = filled
    page = opened(path, "q=full+local")
    page.locator(".matrix td button").first.focus()
    tip = page.locator("#tip")
    assert tip.is_visible() and "95 % interval" in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    page.keyboard.press("Enter")
    text = page.locator("dialog[open]").inner_text()
    for run in runs[(runs.method == "full") & (runs.data == "local")].itertuples():
        assert run.key in text and run.command in text and run.started in text
    assert "c0ffee" in text and "1,200 rows of" in text and "torch 2.13.0" in text
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_arrow_keys_move_between_scores(filled, opened):
    page = opened(filled[1])
    table = page.locator(".matrix").first
    assert table.locator("tbody button[tabindex='0']").count() == 1
    table.locator("tbody button").first.focus()
    before = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") != before
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.textContent") == before


def test_pairs_agree_with_the_tables(filled, opened):
    runs, path = filled
    page = opened(path, "q=local")
    cells = make_cells(runs, "last")
    three = {cell.method: cell for cell in cells.itertuples() if cell.n == 3}
    page.select_option("#baseline", three["lora"].label)
    found = compare(three["full"].scores, three["lora"].scores)
    row = page.locator("#pair-list tbody tr").first.locator("th, td").all_inner_texts()
    expected = f"{found.difference:+.2f}", f"{found.low:.2f} to {found.high:.2f}"
    assert row[:5] == ["full", *expected, f"{found.p:.3f} ({found.floor:.3f})", "3 of 3"]
    page.select_option("#baseline", "full")
    row = page.locator("#pair-list tbody tr").first.locator("th, td").all_inner_texts()
    assert (row[1], row[4]) == (f"{-found.difference:+.2f}", "0 of 3")


def test_a_heading_without_pictures_is_hidden_with_its_note(tmp_path, opened):
    made_up(tmp_path / "runs", "seed=0")
    made_up(tmp_path / "runs", "seed=0", "method=full")
    write_page(load_records(tmp_path / "runs"), tmp_path / "index.html")
    page = opened(tmp_path / "index.html")
    assert page.locator("#over-title").is_hidden() and page.locator("#over").is_hidden()
    assert page.locator("#epochs svg").first.is_visible()


@pytest.mark.parametrize("seeds", [5, 6])
def test_bold_is_what_the_table_has_in_bold(tmp_path, opened, seeds):
    """Six seeds in favor can have p below 0.05; five cannot, whatever their interval."""
    for seed in range(seeds):
        made_up(tmp_path / "runs", f"seed={seed}", last=0.3 + seed / 50)
        made_up(tmp_path / "runs", f"seed={seed}", "method=full", last=0.4 + seed / 40)
    runs = load_records(tmp_path / "runs")
    table = methods_table(make_cells(runs, "last"), runs, "mean")
    write_page(runs, tmp_path / "index.html")
    page = opened(tmp_path / "index.html")
    assert page.locator(".matrix button.best").count() == len(table.best) == (seeds == 6)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_serious(filled, opened, size, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = opened(filled[1], size=size, scheme=scheme)
    page.evaluate("document.getElementById('filters').open = true")

    def serious() -> list[str]:
        found = axe.Axe().run(page).response["violations"]
        return [f"{v['id']}: {v['nodes'][0]['html']}" for v in found if v["impact"] in SERIOUS]

    assert not serious()
    page.locator(".matrix td button").first.click()
    assert not serious()


def test_a_phone_shows_the_scores_first_and_nothing_sticks_out(filled, opened):
    page = opened(filled[1], size="phone")
    box = page.locator(".matrix td button").first.bounding_box()
    assert box["y"] + box["height"] < 300 and box["x"] + box["width"] < 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_heads_stay_in_sight_while_a_matrix_scrolls(tmp_path, opened):
    identity = composed().identity(data="d", model="m")
    for rank in range(1, 60):
        system = identity.system | {"method.rank": rank}
        made_of(tmp_path / "runs", composed(), Identity(identity.where, system, 0))
    write_page(load_records(tmp_path / "runs"), tmp_path / "index.html")
    page = opened(tmp_path / "index.html")
    region, head = page.locator(".wide").first, page.locator(".matrix thead button").first
    page.locator(".matrix td button").last.scroll_into_view_if_needed()
    assert region.evaluate("region => region.scrollTop") > 500
    inside = head.bounding_box()["y"] - region.bounding_box()["y"]
    assert 0 <= inside < 60


def test_text_of_a_run_is_never_read_as_a_page(tmp_path, opened):
    """Every hostile text as error, command and name; the page shows them as they are."""
    for seed, text in enumerate(HOSTILE):
        made_up(tmp_path / "runs", f"seed={seed}", command=text, error=text, status="failed")
    made_up(tmp_path / "runs", "method=full")
    write_page(load_records(tmp_path / "runs"), tmp_path / "index.html")
    source = (tmp_path / "index.html").read_text()
    assert source.count("<script") == 2 and source.count("<!--") == 0
    page = opened(tmp_path / "index.html")
    shown = page.locator("#run-list").text_content()
    for text in ("<!--<script>", "</script>", "$x$", "&amp;", "é漢字🙂"):
        assert text in shown


@pytest.mark.parametrize("seed", mostly_slow(seeds_of_fuzz(8), [0]))
def test_random_records_make_a_page_or_one_line(seed, tmp_path, opened):
    random_runs(tmp_path / "runs", random.Random(seed))
    try:
        main(["page", "--runs", str(tmp_path / "runs")])
    except SystemExit as stopped:
        message = str(stopped.code)
        assert message.startswith("error: ") and "\n" not in message
        return
    page = opened(tmp_path / "runs" / "index.html", "all=1")
    assert page.locator(".matrix").count() >= 1


def test_the_page_says_what_the_table_says_without_a_published_number(tmp_path, opened):
    made_up(tmp_path / "runs", "method=head_only")
    runs = load_records(tmp_path / "runs")
    (line,) = published_table(make_cells(runs, "last"), runs, "last").notes
    write_page(runs, tmp_path / "index.html")
    page = opened(tmp_path / "index.html")
    assert page.locator("#published-list").inner_text() == line


def test_runs_without_a_rank_have_a_page(tmp_path):
    for method in ("full", "head_only", "bitfit"):
        made_up(tmp_path, f"method={method}")
    found = content(load_records(tmp_path))
    assert len(found["cells"]["last"]) == 3 and found["sweeps"]["last"] == []


def test_long_curves_are_thinned_and_keep_their_end(tmp_path):
    epochs = [{"epoch": e, "loss": 1 / e, "scores": {"matthews": e / 500}} for e in range(1, 501)]
    made_up(tmp_path, epochs=epochs)
    ((_, _, curve),) = content(load_records(tmp_path))["trials"]
    assert len(curve[0]) <= MAX_EPOCHS and curve[0][-1] == 500
    assert curve[2] == [round(epoch / 5, 2) for epoch in curve[0]]


def test_a_curve_has_the_epochs_and_the_metric_that_all_seeds_share(tmp_path):
    """Whatever the order of the scores in a file, and although one run stopped early."""
    for seed, count in enumerate((3, 2)):
        scores = [{"a": 0.1, "matthews": (seed + e) / 10} for e in range(1, count + 1)]
        epochs = [{"epoch": e, "loss": 1.0, "scores": s} for e, s in enumerate(scores, 1)]
        made_up(tmp_path, f"seed={seed}", epochs=epochs)
    ((_, _, curve),) = content(load_records(tmp_path))["trials"]
    assert curve[0] == [1, 2] and curve[2] == [15, 25]


def test_a_run_takes_little_of_the_page(filled):
    """3 MB for a thousand runs: what a run adds, beside the fixed part."""
    runs, path = filled
    data = re.search(r'application/json">(.*?)</script>', path.read_text(), re.DOTALL)[1]
    assert len(json.loads(data)["runs"]) == len(runs)
    assert len(data) / len(runs) < 1500 and len(path.read_text()) - len(data) < 60_000
