"""Configuration of the documentation, https://www.sphinx-doc.org/en/master/usage/configuration.html."""

from __future__ import annotations

import os
import shutil
import warnings
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).parent

# sphinx-autodoc-typehints announces this for every docstring that it reads
warnings.filterwarnings("ignore", message=".*set_application", category=DeprecationWarning)
warnings.filterwarnings("ignore", message=".*set_application", category=PendingDeprecationWarning)

project = "scgim"
author = "scgim developers"
copyright = "2026, scgim developers"
release = version = installed_version("scgim")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "sphinxcontrib.katex",
]
# Resolving links into other packages' documentation downloads their inventories; a build must not need the network.
if os.environ.get("SCGIM_DOCS_ONLINE"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/pandas-docs/stable/", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "scvi": ("https://docs.scvi-tools.org/en/stable/", None),
    }

default_role = "literal"
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
suppress_warnings = [
    # imports under TYPE_CHECKING that would be circular at run time are shown by name instead of as a link
    "sphinx_autodoc_typehints.forward_reference",
    "sphinx_autodoc_typehints.guarded_import",
]

autosummary_generate = True
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
napoleon_google_docstring = False
nb_execution_mode = "off"
nb_merge_streams = True
nb_output_stderr = "remove"
typehints_defaults = "comma"

html_theme = "sphinx_book_theme"
html_title = f"scgim {release}"

# The tutorials live at the root of the repository, where their readers look for them; Sphinx reads below docs/ only.
for old in (HERE / "tutorials").glob("*.ipynb"):
    old.unlink()
for notebook in sorted((HERE.parent / "tutorials").glob("*.ipynb")):
    shutil.copy2(notebook, HERE / "tutorials")
