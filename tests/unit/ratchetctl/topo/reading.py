"""A topology from a text, for tests: what came of it, and what was said."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchetctl.errors import TopologyError
from ratchetctl.topo import read
from ratchetctl.topo.findings import Findings
from ratchetctl.topo.model import Topology


def topology(
    folder: Path, text: str, name: str = "lab.clab.yml", leave_out: bool = False
) -> tuple[Topology, list[str]]:
    """Return the topology and the notes, without the folder in them."""
    path = folder / name
    path.write_text(text)
    findings = Findings(leave_out=leave_out)
    found = read.read(str(path), findings)
    return found, [str(one).replace(f"{folder}/", "") for one in findings.notes]


def errors(folder: Path, text: str, name: str = "lab.clab.yml") -> list[str]:
    """Return the errors, a line each, without the folder in them."""
    with pytest.raises(TopologyError) as caught:
        topology(folder, text, name)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def links(found: Topology) -> list[str]:
    return [
        " ".join(f"{end.node}:{end.ifname}:{end.address or ''}" for end in link.ends)
        for link in found.links
    ]
