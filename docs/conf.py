"""Sphinx: autodoc over the public modules, and one page per strategy, written at each build."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from api_pages import write_api  # noqa: E402
from choosing import write_tables  # noqa: E402
from docutils import nodes  # noqa: E402
from inventories import mapping  # noqa: E402
from shown_pages import write_shown  # noqa: E402
from strategy_names import write_names  # noqa: E402
from strategy_pages import shipped, write_pages  # noqa: E402
from strategy_pictures import draw_pictures  # noqa: E402

import gradsurgery  # noqa: E402

project = "gradsurgery"
author = "The gradsurgery developers"
copyright = "The gradsurgery developers"
version = release = gradsurgery.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "mathml",
    "strategy_docstrings",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]
html_extra_path = ["llms.txt", "skills"]  # what is in a folder goes into the site's root
sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "within_subsection_order": "gallery_order.by_story",
    "nested_sections": False,
    "abort_on_example_error": True,
    "capture_repr": (),  # what a script prints is shown, and nothing else
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
}
html_math_renderer = "mathml"
smartquotes = False  # they would curl the quotes of code in sentences
intersphinx_mapping = mapping()
nitpicky = True  # of what is written in a page or a docstring: see `written`
suppress_warnings = ["ref.python"]  # an annotation that names one of two classes `Sample`
html_theme = "furo"
html_title = "gradsurgery"
html_static_path = ["_static"]
html_css_files = ["gallery.css"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
default_role = "code"
doctest_global_setup = """
import torch
from hypothesis import HealthCheck, settings

torch.manual_seed(0)
# a first draw may be slow on a busy machine, which says nothing about the example
settings.register_profile("docs", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("docs")
"""

write_pages(HERE)
write_names(HERE)
draw_pictures(HERE / "strategies" / "pictures", shipped())
write_api(HERE)
write_shown(HERE, HERE.parent / "examples" / "gallery")
write_tables(HERE)


def escape_bars(app, what, name, obj, options, lines):
    """Docstrings write absolute values as |x|, which reStructuredText takes for a substitution."""
    lines[:] = [
        line if line.lstrip().startswith((">>>", "...")) else line.replace("|", r"\|")
        for line in lines
    ]


def written(app, domain, node):
    """Whether a missing reference passes: those of annotations do, which link where they can.

    A role that someone has written, as in :class:`Surgery`, has literal text.
    """
    annotation = domain and domain.name == "py" and not isinstance(node[0], nodes.literal)
    return True if annotation else None


def setup(app):
    """Hook into autodoc."""
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("warn-missing-reference", written)
