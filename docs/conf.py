"""Sphinx configuration: Markdown pages, and the reference read from the docstrings."""

from __future__ import annotations

import sys
from pathlib import Path

import beamforge

sys.path.insert(0, str(Path(__file__).parent))

project = "beamforge"
author = "the beamforge authors"
copyright = "the beamforge authors, Apache-2.0"
version = release = beamforge.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_click", "columns"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["lines.css"]
html_title = f"beamforge {version}"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "code"
autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
# Names that are not in the reference: other libraries, type variables and private bases.
nitpick_ignore_regex = [("py:.*", r"(?!beamforge\.).*|.*\._\w+|.*\.(Array|Bound|Config|Data|Kind|Name|Same|Tree)")]
