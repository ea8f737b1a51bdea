"""Inventories of other projects' documentation, of the few names that ours refers to.

`python docs/inventories.py` makes inventories/*.inv (version 2 of Sphinx's objects.inv) from
inventories/names.txt, so that a build downloads nothing.
"""

import zlib
from pathlib import Path

KEPT = Path(__file__).parent / "inventories"
SITES = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
}


def mapping() -> dict[str, tuple[str, str]]:
    """`intersphinx_mapping`: project -> its site, and its inventory beside conf.py."""
    return {name: (site, f"inventories/{name}.inv") for name, site in SITES.items()}


def inventory(project: str, text: str) -> bytes:
    """The inventory of a project's lines in the list.

    Raises:
        ValueError: for a line that is not: project, name, page and perhaps an anchor.
    """
    lines = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0] == "#":
            continue
        if len(words) not in (3, 4) or words[0] not in SITES:
            raise ValueError(f"names.txt: expected project, name, page and anchor; got {line!r}.")
        if words[0] == project:
            _, name, page, *anchor = words
            # $ stands for the name; - says that it is what is shown
            lines.append(f"{name} py:class 1 {page}#{anchor[0] if anchor else '$'} -\n")
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    return head.encode() + zlib.compress("".join(sorted(lines)).encode(), 9)


if __name__ == "__main__":
    for project in SITES:
        made = inventory(project, (KEPT / "names.txt").read_text())
        (KEPT / f"{project}.inv").write_bytes(made)
