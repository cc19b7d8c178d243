"""Files beside a topology's file that become files in containers.

They travel in ConfigMaps, so they are text and small.
"""

from __future__ import annotations

import os

from ratchetctl.topo.findings import Findings, Position
from ratchetctl.topo.model import File
from ratchetctl.topo.tree import shown

MOST_BYTES = 900_000  # a ConfigMap holds 1 MiB with everything around it
MOST_FILES = 100  # of a folder
# What containers see of a machine in order to have it do something that it does anyway.
OF_THE_MACHINE = {
    "/lib/modules": "the machine loads the modules of its kernel itself",
    "/etc/localtime": "pods have the time of UTC",
    "/etc/timezone": "pods have the time of UTC",
}


def beside(topology: str, path: str) -> str:
    """Return the path of a file that a topology's file names."""
    return os.path.join(os.path.dirname(topology), path)


def read(path: str, where: Position, findings: Findings) -> str | None:
    """Return a text file's content; None, and an error, where it cannot be had."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            findings.cannot(where, f"{path} is longer than a ConfigMap takes", "mount it otherwise")
            return None
        return data.decode()
    except UnicodeDecodeError:
        findings.cannot(where, f"{path} is not text", "put it into the image")
    except OSError as error:
        findings.error(where, f"{path}: {error.strerror}", "write the file, or remove the line")
    return None


def bind(text: str, topology: str, where: Position, findings: Findings) -> list[File]:
    """Read HOST:CONTAINER[:OPTIONS] as files of the container; folders as the files in them."""
    host, colon, rest = text.partition(":")
    inside = rest.partition(":")[0]
    if not colon or not inside.startswith("/") or not host:
        findings.error(where, f"bind {shown(text)}", "write FILE:/PATH/IN/CONTAINER")
        return []
    if host in OF_THE_MACHINE:
        findings.note(where, f"bind {shown(text)} is left out: {OF_THE_MACHINE[host]}")
        return []
    if os.path.isabs(host) or host.startswith("~"):
        findings.cannot(
            where,
            f"bind {shown(text)}: {host} lies on the machine, and pods run on any",
            "put the file beside the topology and name it relatively",
        )
        return []
    path = beside(topology, host)
    if not os.path.isdir(path):
        content = read(path, where, findings)
        return [] if content is None else [File(inside, content)]
    names = sorted(one for one in os.listdir(path) if os.path.isfile(os.path.join(path, one)))
    if len(names) > MOST_FILES:
        findings.error(where, f"{path} holds more than {MOST_FILES} files", "bind the few needed")
        return []
    if len(names) < len(os.listdir(path)):
        findings.note(where, f"{path}: folders inside it are left out", "bind each by itself")
    found = []
    for name in names:
        content = read(os.path.join(path, name), where, findings)
        if content is not None:
            found.append(File(f"{inside.rstrip('/')}/{name}", content))
    return found
