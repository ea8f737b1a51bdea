"""Put the address of the repository wherever it occurs: `python release/set_urls.py URL`.

Until then there is a placeholder. A second call, with another address, replaces the first one.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# the README is one of them: it is the page of the package index
FILES = ("pyproject.toml", "CITATION.cff", "*.md", "docs/*.rst", "docs/*.txt", ".github/**/*.*")
CURRENT = re.compile(r'^Repository = "(https://[^"]+)"$', re.M)


def set_urls(url: str, root: Path = ROOT) -> list[Path]:
    """Replace the address in the files of a repository.

    Args:
        url: where the repository is, as in https://github.com/owner/gradsurgery.
        root: the folder of the repository.

    Returns:
        The files that changed.

    Raises:
        ValueError: for what is no address of that kind.
    """
    if not re.fullmatch(r"https://[\w.-]+(/[\w.~-]+)+", url):
        raise ValueError(f"expected an address as https://github.com/NAME/gradsurgery; got {url!r}")
    found = CURRENT.search((root / "pyproject.toml").read_text())
    if found is None:
        raise ValueError("pyproject.toml has no Repository among its [project.urls]")
    changed = []
    for path in sorted({path for pattern in FILES for path in root.glob(pattern)}):
        text = path.read_text()
        made = re.sub(re.escape(found[1]) + r"(?![\w~-]|\.\w)", url, text)  # no longer name
        if made != text:
            path.write_text(made)
            changed.append(path)
    return changed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python release/set_urls.py URL")
    try:
        done = set_urls(sys.argv[1].rstrip("/"))
    except ValueError as error:
        sys.exit(f"Error: {error}")
    print("\n".join(str(path.relative_to(ROOT)) for path in done) or "no file changed")
