"""Runs what a pod's containers would run, as far as a machine without images can.

The simulator wires pods, it is no container engine: nothing is isolated but the network. On request
(`sim run`) it starts, in the pod's network namespace and with the host's programs,

- the commands of initContainers, one after the other, to their end;
- for a container that mounts a ConfigMap with an frr.conf, FRR with that configuration;
- for any other container its command, if it names one.

Whatever was started ends with the pod, because ending is done by namespace.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from ratchetctl.errors import SimError
from ratchetctl.manifest import Container, Manifest, Pod
from ratchetctl.sim import environment, netns, routers
from ratchetctl.sim.directory import PodState, SimDirectory

INIT_TIMEOUT_S = 60.0


def run(directory: SimDirectory, state: PodState, pod: Pod, manifest: Manifest) -> list[str]:
    """Start a pod's containers; a sentence for each. Raises SimError."""
    folder = directory.run(state)
    if os.path.exists(folder):
        raise SimError(f"{pod.full_name} runs already; restart the pod first")
    os.mkdir(folder, 0o711)
    said = []
    for container in pod.init_containers:
        _init(state, container, os.path.join(folder, f"{container.name}.log"))
    for container in pod.containers:
        frr_conf = _frr_conf(container, pod.namespace, manifest.config_maps)
        if frr_conf is not None:
            routers.start(folder, state.netns, frr_conf)
            said.append(
                f"{pod.full_name}: FRR; look inside with"
                f" vtysh --vty_socket {routers.socket_folder(folder)}"
            )
        elif container.command is not None:
            log = os.path.join(folder, f"{container.name}.log")
            _start(state, container.command, log)
            said.append(f"{pod.full_name}: {container.name}, output in {log}")
        else:
            said.append(f"{pod.full_name}: {container.name} names no command, nothing to run")
    return said


def _frr_conf(
    container: Container, namespace: str, config_maps: Mapping[tuple[str, str], Mapping[str, str]]
) -> str | None:
    for name in container.config_maps:
        found = config_maps.get((namespace, name), {}).get("frr.conf")
        if found is not None:
            return found
    return None


def _init(state: PodState, container: Container, log: str) -> None:
    if container.command is None:
        return
    with open(log, "ab") as output:
        try:
            status = _wait(_popen(state, container.command, output.fileno()))
        except subprocess.TimeoutExpired as error:
            raise SimError(
                f"{state.full_name}: initContainer {container.name} did not end in"
                f" {INIT_TIMEOUT_S:.0f} s"
            ) from error
    if status != 0:
        with open(log, encoding="utf-8", errors="replace") as file:
            raise SimError(
                f"{state.full_name}: initContainer {container.name} ended with {status}:"
                f" {file.read().strip()[-500:]}"
            )


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Return its exit status. It does not outlive an interruption, nor INIT_TIMEOUT_S."""
    try:
        return process.wait(INIT_TIMEOUT_S)
    except BaseException:
        process.kill()
        process.wait()
        raise


def _start(state: PodState, command: Sequence[str], log: str) -> None:
    with open(log, "ab") as output:
        process = _popen(state, command, output.fileno())
    # It outlives us; Python would otherwise warn of a child that was not waited for.
    process.returncode = 0


def _popen(state: PodState, command: Sequence[str], output: int) -> subprocess.Popen[bytes]:
    with netns.inside(state.netns):
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={**environment.clean(), "HOSTNAME": state.name},
                start_new_session=True,
            )
        except OSError as error:
            raise SimError(f"{state.full_name}: {command[0]}: {error.strerror}") from error
