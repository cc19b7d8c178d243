"""The programs under test as a node has them: the front, with the Python parent beside it.

Where nothing was built, the front is compiled from its source, and the parent is this
interpreter's. Without a compiler there is the parent alone, as after `make build`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLUGIN_DIR = "RATCHET_PLUGIN_DIR"
_PARENT = "ratchet-parent"


def prepare() -> str | None:
    """Have RATCHET_PLUGIN_DIR name a folder with the front; return it if it was made for that."""
    if PLUGIN_DIR in os.environ or shutil.which("cc") is None:
        return None
    own = os.path.dirname(sys.executable)
    if not os.path.exists(os.path.join(own, "ratchet")):
        return None
    folder = tempfile.mkdtemp(prefix="rt-programs-")
    compile_front(os.path.join(folder, "ratchet"))
    os.symlink(os.path.join(own, "ratchet"), os.path.join(folder, _PARENT))
    for name in ("ratchet-child", "ratchetctl"):
        os.symlink(os.path.join(own, name), os.path.join(folder, name))
    os.environ[PLUGIN_DIR] = folder
    return folder


def remove(folder: str | None) -> None:
    if folder is not None:
        del os.environ[PLUGIN_DIR]
        shutil.rmtree(folder)


def has_front() -> bool:
    """Say whether `ratchet` is the front."""
    folder = os.environ.get(PLUGIN_DIR)
    if folder is None:
        return False
    return os.path.exists(os.path.join(folder, _PARENT)) and not os.path.islink(
        os.path.join(folder, "ratchet")
    )


def compile_front(output: str, kind: str = "release", *options: str) -> None:
    """Compile the front as `make build` does, or with sanitizers."""
    subprocess.run(
        [str(ROOT / "packaging" / "front.sh"), kind, output, *options], check=True, timeout=60
    )
