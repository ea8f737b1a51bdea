"""Formulas as MathML: a browser shows them without a script, a font or a net.

docutils turns the LaTeX into MathML while the pages are built. It knows less of LaTeX than MathJax
does; what it does not know fails the build.
"""

import re
from xml.etree import ElementTree

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

MATHML = "http://www.w3.org/1998/Math/MathML"
ACCENTS = set("~^_\u00af\u203e\u02c6\u02c9\u02dc")
SIZE = re.compile(r"\\[bB]igg?[lrm]?(?![a-zA-Z])")  # MathML's brackets grow by themselves


def mathml(text: str, block: bool = False) -> str:
    """A formula in MathML; one of several lines is aligned at its ampersands."""
    text = SIZE.sub("", text)
    if r"\\" in text and r"\begin" not in text:
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    made = str(tex2mathml(text, as_block=block)).replace("&ApplyFunction;", "\u2061")
    ElementTree.register_namespace("", MATHML)
    tree = ElementTree.fromstring(made)
    for element in list(tree.iter(f"{{{MATHML}}}munderover")):
        _index_beside(element)
    return ElementTree.tostring(tree, encoding="unicode")


def _index_beside(element: ElementTree.Element) -> None:
    """A letter with an accent has its index beside it, where docutils has it below."""
    base, index, accent = element
    accent.text = "\u00af" if accent.text == "_" else accent.text
    if accent.text in ACCENTS:
        element.clear()
        element.tag = f"{{{MATHML}}}msub"
        over = ElementTree.SubElement(element, f"{{{MATHML}}}mover", accent="true")
        over.extend([base, accent])
        element.append(index)


def show_inline(translator, node):
    """A formula within a line."""
    translator.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def show_block(translator, node):
    """A formula of its own, which scrolls where it is wider than the page."""
    translator.body.append(f'<div class="math">{mathml(node.astext(), True)}</div>')
    raise nodes.SkipNode


def setup(app):
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (show_inline, None), (show_block, None))
    app.add_css_file("strategies.css")
    return {"parallel_read_safe": True}
