"""Tests of what the site does with the links of the pages."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support import REPOSITORY
from tests.support.folders import temporary_folder

_CONF = """
import sys
sys.path.insert(0, {folder!r})
extensions = ["site_links"]
exclude_patterns = ["part.rst"]
"""
_PAGES = {
    "index.rst": "Start\n=====\n\n"
    ".. toctree::\n\n   sub/other\n   project/architecture\n\n{text}\n",
    "sub/other.rst": "Other\n=====\n\n.. _a-place:\n\nHere\n----\n\nText.\n",
    "project/architecture.rst": ".. include:: ../../ARCHITECTURE.rst\n",
}


class LinksTests(SynchronousTestCase):
    """Links between pages, to files of the repository and to places."""

    def setUp(self) -> None:
        if find_spec("sphinx") is None:
            raise SkipTest("Sphinx is not installed")
        self.root = temporary_folder(self)
        self.docs = self.root / "docs"

    def build(self, text: str) -> tuple[str, str]:
        """Build a site with a text on its first page; returns that page and the warnings."""
        (self.root / "ARCHITECTURE.rst").write_text(
            "Rooms\n=====\n\nSee `other <docs/sub/other.rst#here>`_.\n\n"
            ".. image:: docs/rooms.svg\n   :alt: rooms\n"
        )
        for name, page in _PAGES.items():
            path = self.docs / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(page.replace("{text}", text))
        (self.docs / "rooms.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
        (self.root / "sample.yaml").write_text("a: 1\n")
        (self.docs / "conf.py").write_text(_CONF.format(folder=str(self.docs)))
        shutil.copy(REPOSITORY / "docs" / "site_links.py", self.docs)
        site = self.root / "site"
        done = subprocess.run(
            [sys.executable, "-m", "sphinx", "-q", "-b", "html", self.docs, site],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return (site / "index.html").read_text(), done.stderr

    def page(self, name: str) -> str:
        """A page of the site that was built."""
        return Path(self.root / "site" / name).read_text()

    def test_link_to_page(self) -> None:
        """A link to the file of a page leads to the page, and to the place on it."""
        page, warnings = self.build("`There <sub/other.rst#a-place>`_.")
        self.assertEqual(warnings, "")
        self.assertIn('href="sub/other.html#a-place"', page)

    def test_name_of_file(self) -> None:
        """A link whose text is the name of a page's file shows the page's title."""
        page, _ = self.build("See `sub/other.rst <sub/other.rst>`_.")
        self.assertRegex(page, r'See <a class="[^"]*" href="sub/other\.html">Other</a>\.')

    def test_included_page(self) -> None:
        """Links and pictures of an included file are relative to that file."""
        _, warnings = self.build("`The rooms <../ARCHITECTURE.rst>`_.")
        self.assertEqual(warnings, "")
        page = self.page("project/architecture.html")
        self.assertIn('href="../sub/other.html#here"', page)
        self.assertIn("_images/rooms.svg", page)

    def test_file(self) -> None:
        """A link to another file of the repository is a download."""
        page, warnings = self.build("`A sample <../sample.yaml>`_.")
        self.assertEqual(warnings, "")
        self.assertRegex(page, r'href="_downloads/\w+/sample\.yaml"')

    def test_missing_place(self) -> None:
        """A link to a place that is not on the page is a warning."""
        _, warnings = self.build("`There <sub/other.rst#elsewhere>`_.")
        self.assertIn("no such place: sub/other#elsewhere", warnings)

    def test_missing_place_here(self) -> None:
        """A link to a place that is not on the same page is a warning."""
        _, warnings = self.build("`Above <#elsewhere>`_.")
        self.assertIn("no such place: index#elsewhere", warnings)

    def test_missing_page(self) -> None:
        """A link to a page that does not exist is a warning."""
        _, warnings = self.build("`There <sub/third.rst>`_.")
        self.assertIn("no such page: sub/third", warnings)

    def test_missing_file(self) -> None:
        """A link to a file that does not exist is a warning."""
        _, warnings = self.build("`A sample <../lacking.yaml>`_.")
        self.assertIn("no page and no file: lacking.yaml", warnings)

    def test_other_sites(self) -> None:
        """A link to another site stays as it is."""
        page, warnings = self.build("`Elsewhere <https://example.com/a.rst#b>`_.")
        self.assertEqual(warnings, "")
        self.assertIn('href="https://example.com/a.rst#b"', page)


class ReadmeTests(SynchronousTestCase):
    """The links of the README."""

    def test_files(self) -> None:
        """Each leads to a file of the repository."""
        text = (REPOSITORY / "README.rst").read_text("utf-8")
        linked = re.findall(r"<([^<>:]+)>`_", text) + re.findall(r"image:: (\S+)", text)
        self.assertGreater(len(linked), 10)
        self.assertEqual([each for each in linked if not (REPOSITORY / each).is_file()], [])
