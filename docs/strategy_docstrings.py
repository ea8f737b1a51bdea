"""On a strategy's page its options are in a table: they are left out of the docstring below it."""

import re


def without_options(app, what, name, obj, options, lines):
    """Drop the first line, which opens the page, and the section on the options."""
    if what != "function" or not name.startswith("gradsurgery.strategies."):
        return
    text = "\n".join(lines[1:]).lstrip("\n") + "\n"
    lines[:] = re.sub(r"^Args:\n(?:(?: .*)?\n)*", "", text, flags=re.M).split("\n")


def setup(app):
    """Before napoleon, which makes a list of the section."""
    app.connect("autodoc-process-docstring", without_options, priority=400)
    return {"parallel_read_safe": True}
