"""What is to run in a pod, as far as a machine without images can. Pure.

It is read from a pod's manifest and its ConfigMaps, and kept as JSON, so that a pod that is
restarted runs it again.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ratchetctl.manifest import Container, Pod
from ratchetctl.sim.routers import known

# What begins a whole system in an image, and would begin this machine's anew.
INITS = ("init", "systemd")

Command = tuple[str, tuple[str, ...]]
ConfigMaps = Mapping[tuple[str, str], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Work:
    """Commands that run first and to their end, a router, commands that run on, those that follow.

    Each command has its container's name. `silent` are containers whose image decides what runs,
    `unable` holds (program, reason) for what a machine without images cannot run.
    """

    router: str | None = None
    first: tuple[Command, ...] = ()
    commands: tuple[Command, ...] = ()
    after: tuple[Command, ...] = ()
    silent: tuple[str, ...] = ()
    unable: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, pod: Pod, config_maps: ConfigMaps) -> Work:
        """Return what a pod's containers would run."""
        files: dict[str, str] = {}
        commands: list[Command] = []
        silent: list[str] = []
        unable: list[tuple[str, str]] = []
        router = None
        for container in pod.init_containers:
            files.update(_files(container, pod.namespace, config_maps))
        for container in pod.containers:
            own = dict(_files(container, pod.namespace, config_maps))
            files.update(own)
            if found := known.of(own):
                router = found
            elif container.command is None:
                silent.append(container.name)
            else:
                take((container.name, container.command), commands, unable)
        return cls(
            router,
            tuple((one.name, one.command) for one in pod.init_containers if one.command),
            tuple(commands),
            tuple(
                (f"{one.name}.postStart", one.post_start)
                for one in pod.containers
                if one.post_start
            ),
            tuple(silent),
            tuple(unable),
            tuple(files.items()),
        )

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Work:
        return cls(
            found["router"],
            tuple((name, tuple(command)) for name, command in found["first"]),
            tuple((name, tuple(command)) for name, command in found["commands"]),
            tuple((name, tuple(command)) for name, command in found["after"]),
            tuple(found["silent"]),
            tuple((program, why) for program, why in found["unable"]),
            tuple((path, content) for path, content in found["files"]),
        )


def take(command: Command, commands: list[Command], unable: list[tuple[str, str]]) -> None:
    """Add a command to those that run, or to those that cannot."""
    name, words = command
    if posixpath.basename(words[0]) in INITS:
        unable.append((name, f"{words[0]} is for its image only"))
    else:
        commands.append(command)


def _files(
    container: Container, namespace: str, config_maps: ConfigMaps
) -> Iterator[tuple[str, str]]:
    for mount in container.mounts:
        data = config_maps.get((namespace, mount.config_map), {})
        if mount.key is None:
            yield from ((posixpath.join(mount.path, key), one) for key, one in data.items())
        elif mount.key in data:
            yield mount.path, data[mount.key]
