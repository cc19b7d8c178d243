"""The JavaScript library that the page brings along, as its project has published it.

From the npm package `d3`: dist/d3.min.js and LICENSE, unchanged. docs/decisions/0020 says why this
one. Who takes a newer one changes the three lines below; tests compare the file with them, and the
list of what the programs consist of (packaging/sbom.py) has them.
"""

from __future__ import annotations

NAME = "d3"
VERSION = "7.9.2"
SHA256 = "912111098ea99503a6f4967361d2bbdc9dbf58cf9c678c8e27e5b02d1a07f0c1"
LICENCE = "ISC"
FILE = "d3.min.js"  # in assets/, with its licence beside it
LICENCE_FILE = "d3.LICENSE"
