"""Fails on a link within the built pages that leads to no file, or to no id in it.

`python docs/links.py docs/_build/html` also lists the links to other sites, which are not fetched,
in external.txt beside the pages.
"""

import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """What a page links to, and the ids in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value is not None}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        names = {"a": "href", "img": "src", "script": "src", "link": "href"}
        if names.get(tag) in found:
            self.links.append(found[names[tag]])


def broken(folder: Path) -> tuple[list[str], Counter[str]]:
    """What does not resolve, as "page: link", and the links to other sites with their numbers."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    bad, external = [], Counter[str]()
    for path, page in sorted(pages.items()):
        if path.relative_to(folder).parts[0] == "_modules":
            continue  # viewcode links back under the module that came first, on no page at times
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                external[link] += 1
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages[target].ids if target in pages else None
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and known is not None and anchor not in known):
                bad.append(f"{path.relative_to(folder)}: {link}")
    return bad, external


def main(folder: Path) -> int:
    """Print what is broken; the exit status says whether anything was."""
    bad, external = broken(folder.resolve())
    (folder / "external.txt").write_text("".join(f"{link}\n" for link in sorted(external)))
    print(
        "\n".join(f"leads nowhere: {line}" for line in bad) or "every link within leads somewhere."
    )
    print(f"{len(external)} links to other sites, not fetched: {folder / 'external.txt'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
