"""Sphinx settings of the documentation: scripts/run sphinx-build -q -W -b html docs docs/_build."""

from scaffoldlab import __version__

project = "ScaffoldLab"
author = "The ScaffoldLab developers"
copyright = "2026, the ScaffoldLab developers. BSD-3-Clause."
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "numbers/*"]  # the tables of numbers/ are included by reproduce.md
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # a dataclass field that a docstring describes is not listed a second time

html_theme = "furo"
html_title = f"ScaffoldLab {__version__}"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072b2", "color-brand-content": "#0072b2"},
    "dark_css_variables": {"color-brand-primary": "#56b4e9", "color-brand-content": "#56b4e9"},
}
