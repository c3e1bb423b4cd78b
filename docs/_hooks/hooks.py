"""MkDocs hooks that generate the pages of the site that are not in ``docs/``.

References come from the code and the presets; the README, notebooks and results from their own
folders. Pages link to each other by their paths in the repository, as on a code host, and these
links are rewritten here.
"""

import logging
import os
import posixpath
import re
from pathlib import Path
from typing import Any

import commands_page
import copied
import links
import settings_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).resolve().parents[2]
MARKDOWN_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
HTML_LINK = re.compile(r'(\b(?:href|src)=")([^"#]+)((?:#[^"]*)?")')
ADDRESS = re.compile(r"[a-z]+:|/|#|data:")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the generated pages to the navigation."""
    assert config.nav is not None
    (reference,) = (part["Reference"] for part in config.nav if "Reference" in part)
    reference.append({"Presets": settings_page.preset_nav()})
    config.nav += [
        {"Results": copied.results_nav()},
        {"Notebooks": copied.notebooks_nav()},
        {"API": copied.api_nav()},
        {"Project": [{title: uri} for title, uri in copied.PROJECT.values()]},
    ]
    return config


@event_priority(100)  # before the notebooks' plugin looks for notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and the files of other folders."""
    texts = {**settings_page.pages(), **commands_page.pages(), **copied.texts()}
    for uri, content in texts.items():
        files.append(File.generated(config, uri, content=content))
    for path, uri in copied.files().items():
        files.append(_of_repository(path, uri, config))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links to files of the repository that the site shows elsewhere."""

    def replaced(match: re.Match[str]) -> str:
        target = _target(match[2], page.file.src_uri, config, files)
        if target is None:
            return match[0]
        here = posixpath.dirname(page.file.src_uri)
        return match[1] + posixpath.relpath(target.src_uri, here or ".") + match[3]

    return MARKDOWN_LINK.sub(replaced, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The same for notebooks, which arrive here as HTML."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def replaced(match: re.Match[str]) -> str:
        target = _target(match[2], page.file.src_uri, config, files)
        return match[0] if target is None else match[1] + _url(target, page) + match[3]

    return HTML_LINK.sub(replaced, html)


def on_post_build(config: MkDocsConfig) -> None:
    """Warn about each broken link; ``--strict`` makes it an error."""
    for line in links.broken_links(Path(config.site_dir)):
        logging.getLogger("mkdocs.hooks.links").warning(line)


def _of_repository(path: str, uri: str, config: MkDocsConfig) -> File:
    if path == uri:  # the notebooks' plugin only reads files below a folder
        return File(path, str(ROOT), config.site_dir, config.use_directory_urls)
    return File.generated(config, uri, abs_src_path=str(ROOT / path))


def _url(target: File, page: Page) -> str:
    return get_relative_url(target.url, page.url)


def _target(link: str, uri: str, config: MkDocsConfig, files: Files) -> File | None:
    """The site's file behind a link; None for an address or a broken link, which stay as they are.

    Args:
        link: as the page has it.
        uri: URI of the page.
        config: configuration of the site.
        files: files of the site; a file of the repository that is not among them is added.
    """
    if ADDRESS.match(link):
        return None
    source = copied.repository_path(uri)
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    found: Any = files.get_file_from_path(copied.site_uri(path))
    if found is None and not path.startswith("..") and os.path.isfile(ROOT / path):
        found = _of_repository(path, f"source/{path}", config)
        files.append(found)
    return found
