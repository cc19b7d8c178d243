"""Has containerd make the pod of a DaemonSet as a kubelet does, from the manifest as it is.

What is between the manifest and the runtime is the kubelet's work: volumes become folders, fields
and Services become variables, variables are put into commands, init containers end before others
start, and every container gets the service account, a hosts file and a termination log
(kubernetes: pkg/kubelet/kubelet_pods.go, pkg/kubelet/kuberuntime/kuberuntime_container.go).
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.containerd import Containerd
from tests.e2e.cri import ContainerConfig, Mount, PodConfig
from tests.lab.polling import wait_for

Obj = dict[str, Any]

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_PROPAGATION = {None: 0, "None": 0, "HostToContainer": 1, "Bidirectional": 2}
_VARIABLE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
INIT_TIMEOUT_S = 60.0


@dataclass
class Running:
    """A pod whose containers run, by their names."""

    config: PodConfig
    sandbox_id: str
    containers: dict[str, str]
    logs: Path

    def log(self, container: str) -> str:
        """Return what a container has said."""
        lines = (self.logs / f"{container}.log").read_text().splitlines()
        return "\n".join(line.split(" ", 3)[3] for line in lines)


class Kubelet:
    """Works on one machine with containerd."""

    def __init__(
        self,
        containerd: Containerd,
        folder: Path,
        *,
        services: Mapping[str, str],
        fields: Mapping[str, str],
    ) -> None:
        """`services` are the variables of all Services, and `fields` what `fieldRef` names."""
        self.containerd = containerd
        self._folder = folder
        self._services = services
        self._fields = fields
        for name in ("hosts", "termination-log"):
            (folder / name).touch()
        self.account = self._made("account")

    def volume(self, kind: str, name: str, files: Mapping[str, bytes]) -> None:
        """Have a ConfigMap or a Secret be what it is now."""
        folder = self._made(f"{kind}-{name}")
        for file, content in files.items():
            (folder / file).write_bytes(content)

    def _made(self, name: str) -> Path:
        (self._folder / name).mkdir(exist_ok=True)
        return self._folder / name

    def run(self, template: Obj) -> Running:
        """Run a pod of the template: init containers to their end, then the others."""
        spec = template["spec"]
        assert spec["hostNetwork"] and spec["hostPID"]
        uid = str(uuid.uuid4())
        logs = self._made(f"logs-{uid}")
        config = PodConfig(
            "ratchet",
            "ratchet",
            template["metadata"]["labels"],
            uid=uid,
            cgroup_parent=f"{self.containerd.machine.cgroup}/kubepods/pod{uid}",
            is_hosts=True,
            log_directory=str(logs),
        )
        cri = self.containerd.cri
        pod = Running(config, cri.run_pod_sandbox(config), {}, logs)
        for container in spec["initContainers"]:
            started = self._start(pod, container, spec)
            code = wait_for(
                f"{container['name']} to end",
                lambda started=started: cri.exit_code(started),  # type: ignore[misc]
                until=lambda found: found is not None,
                timeout_s=INIT_TIMEOUT_S,
            )
            assert code == 0, f"{container['name']}: {code}: {pod.log(container['name'])}"
        for container in spec["containers"]:
            pod.containers[container["name"]] = self._start(pod, container, spec)
        return pod

    def end(self, pod: Running, grace_s: int) -> None:
        """End a pod, as when it is deleted: all containers at once, then the sandbox."""
        cri = self.containerd.cri
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda one: cri.stop_container(one, grace_s), pod.containers.values()))
        cri.stop_pod_sandbox(pod.sandbox_id)
        cri.remove_pod_sandbox(pod.sandbox_id)

    def _start(self, pod: Running, container: Obj, spec: Obj) -> str:
        env = dict(self._services)
        for one in container.get("env", ()):
            value = one.get("value")
            env[one["name"]] = (
                _expanded(value, env)
                if value is not None
                else self._field(pod, one["valueFrom"]["fieldRef"]["fieldPath"])
            )
        security = container.get("securityContext", {})
        config = ContainerConfig(
            container["name"],
            container["image"],
            [_expanded(word, env) for word in container["command"]],
            env,
            [*self._mounts(container, spec), *self._own_mounts()],
            privileged=security.get("privileged", False),
            readonly_root=security.get("readOnlyRootFilesystem", False),
        )
        cri = self.containerd.cri
        made = cri.create_container(pod.sandbox_id, pod.config, config)
        cri.start_container(made)
        return made

    def _field(self, pod: Running, path: str) -> str:
        return pod.config.uid if path == "metadata.uid" else self._fields[path]

    def _mounts(self, container: Obj, spec: Obj) -> list[Mount]:
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        return [
            Mount(
                one["mountPath"],
                self._host_path(volumes[one["name"]]),
                one.get("readOnly", False),
                _PROPAGATION[one.get("mountPropagation")],
            )
            for one in container["volumeMounts"]
        ]

    def _host_path(self, volume: Obj) -> str:
        if "hostPath" in volume:
            path: str = volume["hostPath"]["path"]
            if volume["hostPath"]["type"] == "DirectoryOrCreate":
                os.makedirs(self.containerd.machine.path(path), exist_ok=True)
            return path
        if "configMap" in volume:
            return str(self._folder / f"configmap-{volume['configMap']['name']}")
        return str(self._folder / f"secret-{volume['secret']['secretName']}")

    def _own_mounts(self) -> list[Mount]:
        return [
            Mount(ACCOUNT, str(self.account), readonly=True),
            Mount("/etc/hosts", str(self._folder / "hosts")),
            Mount("/dev/termination-log", str(self._folder / "termination-log")),
        ]


def _expanded(text: str, env: Mapping[str, str]) -> str:
    """Put variables into a text; one that is not known stays as it is."""
    return _VARIABLE.sub(lambda found: env.get(found[1], found[0]), text)
