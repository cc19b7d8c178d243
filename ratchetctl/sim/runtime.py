"""Attaches pods as a container runtime does: executes plugins by the CNI protocol.

What libcni and containerd do is done here alike: name, cniVersion and prevResult are put into each
plugin's configuration, capabilities decide what of runtimeConfig a plugin is given, a list runs in
order for ADD and in reverse for DEL, and the result is what the last plugin printed. On top the
pod's labels go into `args.cni.labels` (CNI conventions), as the specification allows any runtime.

The calling thread must be in the node's network namespace: what it starts is born there, which
costs nothing, while an nsenter for each plugin costs a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ratchetctl.errors import PluginError, SimError
from ratchetctl.sim import environment
from ratchetctl.sim.configuration import ANNOTATIONS
from ratchetctl.sim.directory import PodState

IFNAME = "eth0"
# A runtime gives an operation 60 to 120 seconds.
OPERATION_TIMEOUT_S = 90.0
NO_JSON = 999  # what the reference plugins use where the specification has no code


class Runtime:
    """One node's runtime: its network configuration and where its plugins lie."""

    def __init__(self, configuration: Mapping[str, Any], plugin_dirs: Sequence[str]) -> None:
        self._name = configuration["name"]
        # libcni takes a configuration without a version for 0.1.0.
        self._cni_version = configuration.get("cniVersion", "")
        self._plugins: list[dict[str, Any]] = configuration.get("plugins") or [dict(configuration)]
        self._path = os.pathsep.join(plugin_dirs)
        self._programs = [find_plugin(plugin["type"], plugin_dirs) for plugin in self._plugins]

    @property
    def passes_annotations(self) -> bool:
        """Whether a plugin asks for the pods' annotations."""
        return any(plugin.get("capabilities", {}).get(ANNOTATIONS) for plugin in self._plugins)

    def add(self, pod: PodState) -> dict[str, Any]:
        """Attach a pod; the result (empty where the plugin prints none). Raises PluginError."""
        result: dict[str, Any] | None = None
        for plugin, program in zip(self._plugins, self._programs, strict=True):
            result = self._run("ADD", plugin, program, pod, result)
        return result or {}

    def check(self, pod: PodState) -> None:
        """Run CHECK, which versions before 0.4.0 have not got. Raises PluginError."""
        for plugin, program in zip(self._plugins, self._programs, strict=True):
            self._run("CHECK", plugin, program, pod, pod.result)

    def delete(self, pod: PodState) -> None:
        """Detach a pod. Safe to call twice. Raises PluginError, after all plugins were asked."""
        errors = []
        for plugin, program in zip(reversed(self._plugins), reversed(self._programs), strict=True):
            try:
                self._run("DEL", plugin, program, pod, pod.result)
            except PluginError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _run(
        self,
        operation: str,
        plugin: Mapping[str, Any],
        program: str,
        pod: PodState,
        previous: Mapping[str, Any] | None,
    ) -> dict[str, Any] | None:
        request = self._request(operation, plugin, pod, previous)
        try:
            done = subprocess.run(
                (program,),
                input=json.dumps(request).encode(),
                capture_output=True,
                env=self._environ(operation, pod),
                cwd="/",
                timeout=OPERATION_TIMEOUT_S,
                check=False,
                # A person's Ctrl-C is for us; a runtime's plugins get no such signal.
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as error:
            raise PluginError(
                plugin["type"], operation, NO_JSON, f"no answer in {OPERATION_TIMEOUT_S:.0f} s"
            ) from error
        except OSError as error:
            raise SimError(f"{program}: {error.strerror}") from error
        answer = _decode(done.stdout)
        if done.returncode != 0:
            raise _error(plugin["type"], operation, answer, done)
        if operation != "ADD":
            return None
        if answer is None and done.stdout.strip():
            raise PluginError(
                plugin["type"], operation, NO_JSON, "success, but the result is not a JSON object"
            )
        return answer

    def _request(
        self,
        operation: str,
        plugin: Mapping[str, Any],
        pod: PodState,
        previous: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Return the request configuration (CNI spec 1.1.0 §4 Deriving request configuration)."""
        request = {**plugin, "name": self._name, "cniVersion": self._cni_version}
        capabilities = request.pop("capabilities", {})
        if capabilities.get(ANNOTATIONS):
            request["runtimeConfig"] = {ANNOTATIONS: pod.annotations}
        labels = [{"key": key, "value": value} for key, value in pod.labels.items()]
        args = dict(plugin.get("args", {}))
        request["args"] = {**args, "cni": {**args.get("cni", {}), "labels": labels}}
        # Up to 0.3.1 only a later plugin's ADD knows prevResult (libcni's rule as well).
        if previous is not None and (operation == "ADD" or _at_least_0_4(self._cni_version)):
            request["prevResult"] = previous
        return request

    def _environ(self, operation: str, pod: PodState) -> dict[str, str]:
        environ = environment.clean()
        environ.pop("HOME", None)  # containerd has none; a plugin must not need it
        environ.update(
            CNI_COMMAND=operation,
            CNI_CONTAINERID=pod.container_id,
            CNI_NETNS=pod.netns,
            CNI_IFNAME=IFNAME,
            CNI_PATH=self._path,
            CNI_ARGS=(
                f"IgnoreUnknown=1;K8S_POD_NAMESPACE={pod.namespace};K8S_POD_NAME={pod.name};"
                f"K8S_POD_INFRA_CONTAINER_ID={pod.container_id};K8S_POD_UID={pod.uid}"
            ),
        )
        return environ


def find_plugin(kind: str, plugin_dirs: Iterable[str]) -> str:
    """Return the program of a plugin type. Raises SimError, which names the folders."""
    tried = list(plugin_dirs)
    if "/" not in kind:
        for folder in tried:
            path = os.path.join(folder, kind)
            if os.access(path, os.X_OK) and os.path.isfile(path):
                return path
    raise SimError(
        f"the plugin {kind!r} is in none of {', '.join(tried) or '(no folder)'};"
        " use --plugin-dir, or install it (Debian: containernetworking-plugins)"
    )


def search_path(given: Iterable[str] = ()) -> list[str]:
    """Return where plugins may be: as given, beside this program, where packages put them."""
    first = (os.path.abspath(folder) for folder in given)
    beside = (os.path.dirname(os.path.abspath(one)) for one in (sys.argv[0], sys.executable))
    usual = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
    folders = dict.fromkeys((*first, *beside, *usual))
    return [folder for folder in folders if os.path.isdir(folder)]


def _at_least_0_4(version: str) -> bool:
    numbers = version.split(".")
    try:
        return (int(numbers[0]), int(numbers[1])) >= (0, 4)
    except (ValueError, IndexError):
        return False


def _decode(output: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _error(
    kind: str,
    operation: str,
    answer: Mapping[str, Any] | None,
    done: subprocess.CompletedProcess[bytes],
) -> PluginError:
    if answer and isinstance(answer.get("code"), int):
        details = str(answer.get("details") or "")
        return PluginError(kind, operation, answer["code"], str(answer.get("msg", "")), details)
    said = (done.stderr or done.stdout).decode(errors="replace").strip()
    return PluginError(
        kind, operation, NO_JSON, f"exit status {done.returncode}, no CNI error", said[-2000:]
    )
