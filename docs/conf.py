"""Sphinx builds the site of these pages: `make site`."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import api_pages  # noqa: E402
import site_parts  # noqa: E402
import skeleton  # noqa: E402

import xent  # noqa: E402

skeleton.stand_in()

project = "xent"
author = "the xent authors"
project_copyright = "the xent authors, BSD 3-clause license"
version = release = xent.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["sg_execution_times.rst", "gallery/sg_execution_times.rst"]
nitpicky = True
default_role = "name"  # `cross_entropy` in a docstring is a link, `axis` is code
templates_path = ["templates"]

# ---- Markdown and formulas ----
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
html_math_renderer = "mathml"

# ---- docstrings ----
autodoc_typehints = "none"  # the sections of parameters have them
autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_validation_checks = set()

# ---- examples ----
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/(demo|iris|softmax_regression|lenet)\.py$",  # others take minutes
    "reset_argv": "site_parts.arguments",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
}

# ---- HTML ----
html_theme = "pydata_sphinx_theme"
html_title = f"xent {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": [], "contributing": [], "changelog": []}
html_theme_options = {
    "logo": {"text": "xent"},
    "navbar_align": "left",
    "header_links_before_dropdown": 5,
    "show_prev_next": False,
    "show_toc_level": 1,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "back_to_top_button": False,
}


def setup(app):
    api_pages.write(Path(app.srcdir) / "api")
    app.add_role("name", site_parts.Name())
    inline, block = (site_parts.inline_math, None), (site_parts.block_math, None)  # None: when it is left
    app.add_html_math_renderer("mathml", inline_renderers=inline, block_renderers=block)
    app.connect("source-read", site_parts.read_page)
    app.connect("doctree-resolved", site_parts.fold_tables)
