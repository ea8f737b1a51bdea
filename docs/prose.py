"""Text of generated pages, in lines of at most 100 columns."""

import textwrap


def paragraph(*pieces: str, first: str = "") -> list[str]:
    """The lines of one paragraph.

    Args:
        *pieces: sentences, joined by spaces.
        first: what its first line begins with, such as "* "; the others are indented as far.
    """
    return textwrap.wrap(
        " ".join(pieces),
        100,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
