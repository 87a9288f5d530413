"""Sphinx configuration; `make docs` builds with warnings as errors."""

import os

from sktda import __version__

project = "sktda"
author = "The sktda developers"
project_copyright = "the sktda developers"
version = release = __version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autosummary_generate = False  # api.md says where each name is documented
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = f"sktda {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_sidebars = {"**": ["sidebar-all"]}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "sktda"},
    "navbar_start": ["navbar-logo"],
    "navbar_center": [],
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "navigation_with_keys": False,
}
if os.environ.get("VERSIONED"):  # `make release`: these pages lie in a folder of their version, beside switcher.json
    html_theme_options |= {
        "switcher": {"json_url": "../switcher.json", "version_match": version},
        "check_switcher": False,
        "navbar_end": ["version-switcher", *html_theme_options["navbar_end"]],
    }
