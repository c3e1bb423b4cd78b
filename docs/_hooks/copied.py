"""Files outside of ``docs/`` that the site shows: their addresses and index pages."""

import posixpath
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# file -> title in the navigation, address on the site
PROJECT = {
    "CONTRIBUTING.md": ("Contributing", "contributing.md"),
    "CHANGELOG.md": ("Changelog", "changelog.md"),
    "SECURITY.md": ("Security", "security.md"),
    "CODE_OF_CONDUCT.md": ("Code of conduct", "code-of-conduct.md"),
}
HOME = "index.md"
LOG, RESULTS = "results/LOG.md", "results/index.md"
SHOWN = (".md", ".svg", ".csv", ".tex")  # files of results
API = "api"
COMMANDS = "reference/commands.md"
TABLES = {
    "table_last": "Last epoch",
    "table_best": "Best epoch",
    "findings": "Findings",
    "speed": "One run",
    "sweep": "A sweep",
}


def site_uri(path: str) -> str:
    """The address of a file or folder of the repository on the site, if it is there.

    Args:
        path: relative to the repository, with ``/``.
    """
    if path == "README.md":
        return HOME
    if path in PROJECT:
        return PROJECT[path][1]
    if path == LOG:
        return RESULTS
    top, _, rest = path.partition("/")
    if top == "docs":
        return rest
    if top == "conf":
        return f"reference/presets/{rest.partition('/')[0]}.md"
    if top == "benchmarks" or path.endswith("__main__.py"):
        return COMMANDS
    if top == "lora_bench" and path.endswith(".py"):
        return _api_uri(Path(path))
    if top == "lora_bench" and (ROOT / path).is_dir():
        return _api_uri(Path(path) / "__init__.py")
    if top == "results" and (ROOT / path).is_dir():
        return "/".join([*path.split("/")[:2], "index.md"])
    return path


def repository_path(uri: str) -> str:
    """The file of the repository that a page of the site comes from."""
    found = {HOME: "README.md", RESULTS: LOG} | {
        address: path for path, (_, address) in PROJECT.items()
    }
    if uri in found:
        return found[uri]
    return uri if uri.startswith(("results/", "notebooks/")) else f"docs/{uri}"


def texts() -> dict[str, str]:
    """Generated pages: address -> Markdown."""
    found = {uri: f"# `{_dotted(path)}`\n\n::: {_dotted(path)}\n" for path, uri in _modules()}
    for folder in _result_folders():
        found[f"results/{folder.name}/index.md"] = _result_index(folder)
    for path in (ROOT / "results").rglob("*.md"):
        relative = path.relative_to(ROOT)
        if path.name != "LOG.md" and "runs" not in relative.parts:
            found[relative.as_posix()] = _titled(path)
    return found


def files() -> dict[str, str]:
    """Files that are shown unchanged: path in the repository -> address on the site."""
    found = ["README.md", LOG, *PROJECT, *(f"notebooks/{path.name}" for path in _notebooks())]
    for path in sorted((ROOT / "results").rglob("*")):
        relative = path.relative_to(ROOT)
        if path.suffix in SHOWN[1:] and "runs" not in relative.parts:
            found.append(relative.as_posix())
    return {path: site_uri(path) for path in found}


def results_nav() -> list[Any]:
    """Navigation of the results: the log, then the tables of each folder."""
    nav: list[Any] = [{"Log": RESULTS}]
    for folder in _result_folders():
        pages = [f"results/{folder.name}/index.md", *map(_relative, sorted(folder.rglob("*.md")))]
        nav.append({folder.name.replace("_", " "): [p for p in pages if "/runs/" not in p]})
    return nav


def notebooks_nav() -> list[str]:
    """Navigation of the notebooks, in order."""
    return [f"notebooks/{path.name}" for path in _notebooks()]


def api_nav() -> list[Any]:
    """Navigation of the modules, one level for each folder."""
    nav: list[Any] = []
    for path, uri in _modules():
        level = nav
        for part in path.parts[1:-1]:
            if not any(isinstance(entry, dict) and part in entry for entry in level):
                level.append({part: []})
            level = next(e[part] for e in level if isinstance(e, dict) and part in e)
        level.append(uri if path.stem == "__init__" else {path.stem: uri})
    return nav


def _modules() -> list[tuple[Path, str]]:
    """The public modules of the package and the addresses of their pages."""
    paths = [path.relative_to(ROOT) for path in (ROOT / "lora_bench").rglob("*.py")]
    public = [p for p in paths if not p.stem.startswith("_") or p.stem == "__init__"]
    public.sort(key=lambda p: (p.parent.parts, p.stem != "__init__", p.stem))
    return [(path, _api_uri(path)) for path in public]


def _api_uri(path: Path) -> str:
    inside = path.with_suffix("").parts[1:]
    return "/".join([API, *inside]).replace("__init__", "index") + ".md"


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def _result_folders() -> list[Path]:
    return sorted(path for path in (ROOT / "results").iterdir() if any(path.glob("*.md")))


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _titled(path: Path) -> str:
    """A page of results, with a title if the program that wrote it gave none."""
    text = path.read_text()
    if text.startswith("# "):
        return text
    return f"# {TABLES.get(path.stem, path.stem)}: {path.parent.name}\n\n{text}"


def _result_index(folder: Path) -> str:
    """An index of one folder of results: its pages, pictures and files."""
    lines = [f"# Results: {folder.name.replace('_', ' ')}", ""]
    pages = [path for path in sorted(folder.rglob("*.md")) if "runs" not in path.parts]
    lines += [f"- [{_name(path)}]({posixpath.relpath(path, folder)})" for path in pages]
    for path in sorted(folder.rglob("*.svg")):
        picture = posixpath.relpath(path, folder)
        lines += ["", f"## {path.stem}", "", f"![{path.stem}]({picture})"]
    tables = [path for path in sorted(folder.rglob("*")) if path.suffix in (".csv", ".tex")]
    if tables:
        links = (f"[{path.name}]({posixpath.relpath(path, folder)})" for path in tables)
        lines += ["", "## Tables as CSV and LaTeX", "", ", ".join(links)]
    return "\n".join([*lines, ""])


def _name(path: Path) -> str:
    return TABLES.get(path.stem, path.stem.replace("_", " "))
