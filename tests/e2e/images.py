"""Images of the programs, made as `make image` makes them, in a storage of the tests' own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.e2e.test_build import PROGRAMS, ROOT

NAME = "localhost/ratchet-test"
TIMEOUT_S = 240


class Images:
    """A private storage of images."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
        )
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "BUILDER": "podman",
        }

    def make(self, tag: str) -> str:
        """Build the image and return its ID."""
        script = str(ROOT / "packaging" / "image.sh")
        done = subprocess.run(
            [script, str(PROGRAMS), f"{NAME}:{tag}"],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr
        return self.podman("image", "inspect", "--format", "{{.Id}}", f"{NAME}:{tag}")

    def podman(self, *arguments: str) -> str:
        done = subprocess.run(
            ["podman", *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()
