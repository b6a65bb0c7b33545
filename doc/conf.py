# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sphinx configuration: ``make docs`` builds the pages below ``doc/``.

It needs no network: nothing is looked up in other projects' documentation.
"""

import importlib.metadata

project = "drp_restore"
author = copyright = "drp_restore developers"
version = release = importlib.metadata.version("lsst-drp-restore")

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "changes"]
templates_path = ["_templates"]
# `name` in a docstring is a Python object if there is one of that name.
default_role = "py:obj"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "lsst.drp.restore"
html_static_path = ["_static"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"show_prev_next": False}
