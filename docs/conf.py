"""Sphinx configuration; `make docs` builds with warnings as errors."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import gallery_run

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
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "gallery/index.rst", "gallery/backreferences"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autosummary_generate = False  # api.md says where each name is documented
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False

# Every script in examples/ becomes a page of docs/gallery, with what it printed and drew. One that fails or warns fails
# the build. All run again when the library has changed, one when it has itself; the tests check what they printed.
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "backreferences_dir": "gallery/backreferences",
    "filename_pattern": r"/(?!diffusion)\w+\.py$",  # four minutes: its page shows a picture that it drew before
    "ignore_pattern": r"demo\.py$",  # of `make demo`
    "run_stale_examples": not gallery_run.library_is_current(),
    "reset_modules": ("gallery_run.strict", "matplotlib"),
    "reset_modules_order": "both",
    "capture_repr": ("_repr_html_",),
    "parallel": 2,  # as many examples at once as `make test` has processors
    "image_srcset": ["2x"],
    "minigallery_sort_order": "gallery_run.place",
    "thumbnail_size": (320, 224),
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "write_computation_times": False,
}

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


def setup(app):
    """Tell the tests, once this build is through, of which code the gallery is: that which is here as it begins."""
    stamp = gallery_run.stamp()
    gallery_run.STAMP.unlink(missing_ok=True)

    def finish(app, exception):
        if exception is None and app.config.sphinx_gallery_conf["plot_gallery"]:
            gallery_run.STAMP.write_text(stamp, encoding="utf-8")

    app.connect("build-finished", finish)
