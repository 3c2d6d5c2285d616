"""Resolves the links of the pages on the site, as a Sphinx extension.

The pages link to one another as files do, such as ``operating.rst#links``, so that the links work
in the repository too. On the site a link to a page becomes one to its HTML, and shows the page's
title where its text is the name of the file. A link to another file of the repository becomes a
download, and one to a module of the package leads to its page of the API. A link to a page, a file
or an anchor that does not exist is a warning, and so with ``-W`` an error.
"""

from __future__ import annotations

import os.path
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

_PACKAGE = "synapse_login_module"
_INCLUDED = {
    "ARCHITECTURE.rst": "project/architecture",
    "CHANGES.rst": "project/changes",
    "CONTRIBUTING.rst": "project/contributing",
    "README.rst": "first-steps",
    "SECURITY.rst": "project/security",
}
"""The pages that the site includes from the folder above, by the file's name."""

logger = logging.getLogger(__name__)


class Links(SphinxTransform):
    """Says of each link and picture which file of the repository it means."""

    # Before Sphinx collects pictures and downloads.
    default_priority = 5

    def apply(self, **_: Any) -> None:
        """Rewrite the links and pictures of one page."""
        for image in list(self.document.findall(nodes.image)):
            if not urlsplit(image["uri"]).scheme:
                image["uri"] = os.path.relpath(self._file(image, image["uri"]), self._folder)
        for link in list(self.document.findall(nodes.reference)):
            parts = urlsplit(link.get("refuri", ""))
            if link.get("refuri") and not parts.scheme and not parts.netloc:
                self._resolve(link, self._file(link, parts.path), parts.fragment)

    @property
    def _folder(self) -> Path:
        return Path(self.env.doc2path(self.env.docname)).parent

    def _file(self, node: nodes.Element, relative: str) -> Path:
        """Find the file that a link means: relative to the one that it stands in."""
        written: nodes.Node | None = node
        while written is not None and not written.source:
            written = written.parent
        source = Path((written and written.source) or self.env.doc2path(self.env.docname)).resolve()
        return Path(os.path.normpath(source.parent / relative)) if relative else source

    def _resolve(self, link: nodes.reference, file: Path, anchor: str) -> None:
        page = _page(file)
        if page is not None:
            link["page"], link["anchor"] = page, anchor
        elif file.is_file():
            target = os.path.relpath(file, self._folder)
            download = addnodes.download_reference("", "", *link.children, reftarget=target)
            download["refdoc"] = self.env.docname
            link.replace_self(download)
        else:
            logger.warning("no page and no file: %s", file.relative_to(ROOT), location=link)


def _page(file: Path) -> str | None:
    """Name the page of the site that shows a file."""
    relative = file.relative_to(ROOT)
    if relative.name in _INCLUDED and len(relative.parts) == 1:
        return _INCLUDED[relative.name]
    if relative.parts[0] == _PACKAGE and len(relative.parts) == 2:
        return f"api/{relative.stem}"
    if relative.parts[0] == "docs" and relative.suffix == ".rst":
        return str(file.relative_to(DOCS).with_suffix(""))
    return None


class Pages(SphinxPostTransform):
    """Turns what :class:`Links` found into links of the finished site, and checks anchors."""

    default_priority = 5
    formats = ()
    _anchors: ClassVar[dict[str, set[str]]] = {}

    def run(self, **_: Any) -> None:
        """Rewrite the links of one page."""
        for link in list(self.document.findall(nodes.reference)):
            if "page" not in link:
                continue
            page, anchor = link["page"], link["anchor"]
            if page not in self.env.all_docs:
                logger.warning("no such page: %s", page, location=link)
                continue
            if anchor and anchor not in self._anchors_of(page):
                logger.warning("no such place: %s#%s", page, anchor, location=link)
            uri = self.app.builder.get_relative_uri(self.env.docname, page)
            link["refuri"] = f"{uri}#{anchor}" if anchor else uri
            link["internal"] = True
            if link.astext().endswith(".rst") and " " not in link.astext():
                link.clear()
                link += nodes.Text(self.env.titles[page].astext())

    def _anchors_of(self, page: str) -> set[str]:
        if page not in self._anchors:
            ids: set[str] = set()
            for place in self.env.get_doctree(page).findall(nodes.Element):
                ids.update(place.get("ids", ()))
            self._anchors[page] = ids
        return self._anchors[page]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_transform(Links)
    app.add_post_transform(Pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
