"""Checks links of the built pages, including notebooks: MkDocs checks only those in Markdown."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LINKS = {"a": "href", "img": "src", "link": "href", "script": "src"}


class _Page(HTMLParser):
    """The links of a page, and the anchors that others can link to.

    Args:
        text: the page.
    """

    def __init__(self, text: str):
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record the link and the anchor of a tag."""
        for name, value in attrs:
            if value is not None and name == LINKS.get(tag):
                self.links.add(value)
            elif value is not None and (name == "id" or (name == "name" and tag == "a")):
                self.anchors.add(value)


def broken_links(site: Path) -> list[str]:
    """A line for each link to a page, file or anchor that the site lacks.

    Links to other hosts are not checked.

    Args:
        site: folder of the built pages.
    """
    site = site.resolve()
    pages = {path: _Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            name = unquote(parts.path)
            base = site if name.startswith("/") else path.parent
            target = (base / name.lstrip("/")).resolve() if name else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            where = f"{path.relative_to(site)}: {link}"
            if not (target.is_file() and target.is_relative_to(site)):
                found.append(f"{where}: no such page or file")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                found.append(f"{where}: no such anchor")
    return found
