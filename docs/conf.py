"""How Sphinx builds the site: ``sphinx-build -n -W docs FOLDER``, with the ``docs`` extra.

The pages are plain reStructuredText, so that they read the same in the repository. What the site
does besides is in ``site_links.py``; the drawings are made anew by ``drawings.py``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from docutils.nodes import Element, TextElement, document, literal
from pygments.lexer import RegexLexer
from pygments.token import Name, Text
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

HERE = Path(__file__).parent
_INTERFACE = re.compile(r"<InterfaceClass (synapse_login_module\.interfaces)\.\w+\.(\w+)>")
sys.path[:0] = [str(HERE), str(HERE.parent)]

from synapse_login_module import __version__  # noqa: E402

project = "synapse_login_module"
author = "The synapse_login_module developers"
project_copyright = f"{author}. Licence: Apache-2.0"
release = version = __version__

extensions = ["sphinx.ext.autodoc", "sphinxcontrib.zopeext.autointerface", "site_links", "drawings"]
exclude_patterns = ["_build", "delegation-answers.rst"]
highlight_language = "text"
nitpicky = True

# The pages of the API are the same wherever they are built: with Synapse and the extras or without.
autodoc_mock_imports = ["ldaptor", "phonenumbers", "prometheus_client", "psycopg", "synapse"]
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
# What other projects document, and the internet is not asked.
nitpick_ignore_regex = [
    ("py:.*", r"(collections|contextlib|enum|pathlib|twisted|typing|zope)\..*"),
    # Where an environment's values come from; a provider or store does not name these classes.
    ("py:class", r"synapse_login_module\.(synapse\.api\.Homeserver|tokens\.format\.KeyRing)"),
    ("py:class", r"synapse_login_module\.testing\.(stores|providers)\.\w+"),
]

html_theme = "furo"
html_title = "synapse_login_module"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#2f5fb8",
        "color-brand-content": "#2f5fb8",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7aa5f5",
        "color-brand-content": "#7aa5f5",
    },
}


def _name_interfaces(*given: Any) -> tuple[str | None, str | None]:
    """Name an interface in a signature as in the code, and not by its representation."""
    arguments, result = (each and _INTERFACE.sub(r"\1.\2", each) for each in given[-2:])
    return arguments, result


def _find_interface(
    app: Sphinx, env: BuildEnvironment, node: Element, contents: TextElement
) -> Element | None:
    """Find an interface that a type names, for which Sphinx looks among the classes."""
    found = env.domains.python_domain.objects.get(node.get("reftarget", ""))
    if found is None or found.objtype != "interface":
        return None
    return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, contents)


def _mark_short(_app: Sphinx, page: document, _name: str) -> None:
    """Mark code in the text whose words fit a line of a phone, for ``site.css``."""
    for code in page.findall(literal):
        if all(len(word) <= 24 for word in code.astext().split()):
            code["classes"].append("short")


class _Words(RegexLexer):
    """Marks words with hyphens, such as options, so that ``site.css`` keeps them in one piece."""

    name = "text"
    tokens = {"root": [(r"\S*-\S*", Name), (r"\s+|\S+", Text)]}  # noqa: RUF012


def setup(app: Sphinx) -> None:
    """Register what is too small for an extension."""
    app.add_lexer("text", _Words)
    app.connect("doctree-resolved", _mark_short)
    app.connect("autodoc-process-signature", _name_interfaces)
    app.connect("missing-reference", _find_interface)
