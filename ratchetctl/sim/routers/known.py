"""Which router a container is, by its files or by what a topology calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ratchetctl.sim.routers import bird, frr, frr_daemons, gobgp
from ratchetctl.sim.routers.started import Started
from ratchetctl.sim.sandbox import Sandbox

Start = Callable[[Sandbox, Mapping[str, str]], Started]

_BY_FILES: Mapping[str, tuple[Callable[[str], bool], Start]] = {
    "frr": (frr_daemons.is_configuration, frr.start),
    "bird": (bird.is_configuration, bird.start),
    "gobgp": (gobgp.is_configuration, gobgp.start),
}


def of(paths: Iterable[str], kind: str = "") -> str | None:
    """Return the router that has a configuration among these files, or is this kind of node."""
    found = list(paths)
    for name, (is_configuration, _) in _BY_FILES.items():
        if any(map(is_configuration, found)):
            return name
    return kind if kind in _BY_FILES else None


def start(router: str, sandbox: Sandbox, files: Mapping[str, str]) -> Started:
    """Start it in a pod."""
    return _BY_FILES[router][1](sandbox, files)
