"""What a runtime passes to a plugin, written down while the plugin does its work."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Execution:
    """One execution of the plugin by the runtime."""

    environ: dict[str, str]
    config: dict[str, Any]

    @property
    def command(self) -> str:
        return self.environ["CNI_COMMAND"]


class Spy:
    """Stands in our program's place in a plugin folder, notes the request and becomes it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def seen(self, command: str | None = None, container_id: str | None = None) -> list[Execution]:
        """Return the executions in their order, all or those of an operation or container."""
        found = []
        for name in sorted(os.listdir(self._folder)):
            if name.endswith(".environ"):
                path = os.path.join(self._folder, name)
                with open(path) as environ, open(path[: -len("environ")] + "stdin") as stdin:
                    pairs = [pair for pair in environ.read().split("\0") if pair]
                    execution = Execution(
                        dict(pair.split("=", 1) for pair in pairs), json.loads(stdin.read())
                    )
                if command in (None, execution.command) and container_id in (
                    None,
                    execution.environ["CNI_CONTAINERID"],
                ):
                    found.append(execution)
        return found


@contextlib.contextmanager
def spying(bin_dir: str) -> Iterator[Spy]:
    """Listen to what the runtime says to `ratchet` in a plugin folder."""
    program = os.path.join(bin_dir, "ratchet")
    real = os.path.realpath(program)
    with tempfile.TemporaryDirectory(prefix="rt-spy-") as folder:
        script = f"""#!/bin/sh
note={folder}/$(date +%s%N).$$
cat >$note.stdin
cat /proc/$$/environ >$note.environ
exec {real} <$note.stdin
"""
        _replace(program, script)
        try:
            yield Spy(folder)
        finally:
            os.unlink(program)
            os.symlink(real, program)


def _replace(program: str, script: str) -> None:
    with open(f"{program}.new", "w") as file:
        file.write(script)
    os.chmod(f"{program}.new", 0o755)
    os.rename(f"{program}.new", program)
