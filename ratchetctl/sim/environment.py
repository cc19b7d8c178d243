"""The environment of the programs that we start: as a kubelet or a runtime would have it."""

from __future__ import annotations

import os

PROXIES = frozenset(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"))


def clean() -> dict[str, str]:
    """Return our environment without PyInstaller's library path, CNI_… and proxies.

    Nodes lie behind no proxy, whatever the host does.
    """
    environ = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("CNI_") and key.upper() not in PROXIES
    }
    return without_bundle(environ)


def without_bundle(environ: dict[str, str]) -> dict[str, str]:
    """Return the environment as it was before PyInstaller put its libraries in front."""
    restored = dict(environ)
    original = restored.pop("LD_LIBRARY_PATH_ORIG", None)
    if original is not None:
        restored["LD_LIBRARY_PATH"] = original
    elif "_PYI_ARCHIVE_FILE" in restored or "_MEIPASS2" in restored:
        restored.pop("LD_LIBRARY_PATH", None)
    return {key: value for key, value in restored.items() if not key.startswith("_PYI_")}
