"""A private containerd on a machine of the tests, and the pods that a kubelet has it make.

Its root, state, socket, plugins and network configuration are below a temporary folder. Like a real
one it finds our programs as links in its plugin folder, beside the distribution's plugins.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, replace
from typing import Any

from tests.e2e import pause
from tests.e2e.cri import Cri, CriError, PodConfig, SandboxStatus
from tests.e2e.machine import Machine, children_of
from tests.lab.namespaces import Namespace
from tests.lab.polling import wait_for
from tests.lab.runtime import REFERENCE_PLUGINS, Config

START_TIMEOUT_S = 30.0
USUAL_BIN_DIR, USUAL_CONF_DIR = "/opt/cni/bin", "/etc/cni/net.d"
_PREFIX = "io.containerd."
# What this test has no use for, and what would look for devices or write outside of its folder.
_DISABLED = [
    f"{_PREFIX}{name}"
    for name in (
        *("snapshotter.v1.aufs", "snapshotter.v1.btrfs", "snapshotter.v1.devmapper"),
        *("snapshotter.v1.zfs", "snapshotter.v1.overlayfs", "internal.v1.tracing"),
        *("tracing.processor.v1.otlp", "internal.v1.restart"),
    )
]


@dataclass
class Sandbox:
    """A pod's sandbox on a node; `netns` can be looked into while the pause program runs."""

    id: str
    pod: PodConfig
    containerd: Containerd
    netns: Namespace

    @property
    def status(self) -> SandboxStatus:
        return self.containerd.cri.pod_sandbox_status(self.id)

    def stop(self) -> None:
        self.containerd.cri.stop_pod_sandbox(self.id)

    def remove(self) -> None:
        """Stop and remove, as a kubelet does."""
        self.stop()
        self.containerd.cri.remove_pod_sandbox(self.id)


class Containerd:
    """containerd and its CRI on a machine; it can be killed and started again."""

    def __init__(self, machine: Machine, programs: str | None, directory: str) -> None:
        """Take a machine, where Ratchet is still to be installed if there are no `programs`.

        Its folders of plugins and configurations are then the usual ones, on the machine.
        """
        self.machine = machine
        self.node = machine.node
        self._programs = programs
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._cri: Cri | None = None
        self._cni = {"bin_dir": self._path("bin"), "conf_dir": self._path("net.d")}
        self.bin_dir, self.conf_dir = self._cni["bin_dir"], self._cni["conf_dir"]
        if programs is None:
            self._cni = {"bin_dir": USUAL_BIN_DIR, "conf_dir": USUAL_CONF_DIR}
            self.bin_dir, self.conf_dir = map(machine.path, (USUAL_BIN_DIR, USUAL_CONF_DIR))
        self._socket = self._path("containerd.sock")
        self._config = self._path("config.toml")
        self.log_file = self._path("containerd.log")

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    @property
    def cri(self) -> Cri:
        assert self._cri is not None, "containerd does not run"
        return self._cri

    # Its life

    def install(self) -> None:
        """Make its folders and its configuration."""
        for folder in (self._directory, self.bin_dir, self.conf_dir):
            os.makedirs(folder)
        link_plugins(self.bin_dir)
        if self._programs is not None:
            link_programs(self.bin_dir, self._programs)
        pause.write_image(self._path("pause.tar"))
        with open(self._config, "w") as file:
            file.write(_toml(self._settings()))

    def start(self) -> None:
        """Start it and wait until it answers. Safe to call twice."""
        if self._process is not None and self._process.poll() is None:
            return
        self._process = self.machine.spawn(
            "containerd", "--config", self._config, log=self.log_file
        )
        self._cri = Cri(self._socket)

        def answers() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, f"containerd has ended:\n{self.log(40)}"
            with contextlib.suppress(CriError):
                return "containerd" in self.cri.version(timeout_s=1)
            return False

        wait_for("containerd to answer", answers, timeout_s=START_TIMEOUT_S)

    def load_image(self, archive: str | None = None) -> None:
        """Load an image from an archive: that of the pause program when none is named."""
        self.machine.run(
            *("ctr", "--address", self._socket, "--namespace", "k8s.io"),
            *("images", "import", "--snapshotter", "native", archive or self._path("pause.tar")),
        )

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it; what it started goes on. Safe to call twice."""
        if self._cri is not None:
            self._cri.close()
            self._cri = None
        if self._process is not None:
            for pid in children_of(self._process.pid):
                os.kill(pid, number)
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def _settings(self) -> dict[str, Any]:
        return {
            "version": 2,
            "root": self._path("root"),
            "state": self._path("state"),
            "disabled_plugins": _DISABLED,
            "grpc": {"address": self._socket},
            "plugins": {
                f"{_PREFIX}internal.v1.opt": {"path": self._path("opt")},
                f"{_PREFIX}grpc.v1.cri": {
                    "sandbox_image": pause.IMAGE,
                    "stream_server_address": "127.0.0.1",
                    # Without CAP_SYS_RESOURCE nobody can make the kernel spare a process.
                    "restrict_oom_score_adj": True,
                    "containerd": {
                        "snapshotter": "native",
                        "runtimes": {"runc": {"runtime_type": f"{_PREFIX}runc.v2"}},
                    },
                    "cni": self._cni,
                },
            },
        }

    # The network configuration

    def configure(self, *plugins: Config, conflist: bool = False) -> None:
        """Give the node its network configuration, and wait until containerd has read it."""
        first = plugins[0]
        if conflist:
            common: Config = {key: first[key] for key in ("cniVersion", "name") if key in first}
            whole: Config = {
                **common,
                "plugins": [
                    {key: value for key, value in plugin.items() if key not in common}
                    for plugin in plugins
                ],
            }
        else:
            (whole,) = plugins
        name = "10-ratchet.conflist" if conflist else "10-ratchet.conf"
        for old in os.listdir(self.conf_dir):
            if old != name:
                os.unlink(os.path.join(self.conf_dir, old))
        written = json.dumps(whole)
        # In one step, lest it reads half of it, and within the folder: containerd 1.6 looks again
        # when a file was written, renamed or removed, not when one comes from another folder.
        temporary = os.path.join(self.conf_dir, "new")
        with open(temporary, "w") as file:
            file.write(written)
        os.rename(temporary, os.path.join(self.conf_dir, name))

        def sources() -> list[Any]:
            status = self.cri.runtime_status()
            if not status.conditions.get("NetworkReady"):
                return [status]
            networks = json.loads(status.info["cniconfig"])["Networks"]
            return [json.loads(network["Config"]["Source"]) for network in networks]

        # go-cni keeps a single plugin's configuration as a list of one.
        wanted = whole["plugins"] if conflist else [whole]
        wait_for(
            "containerd to read its network configuration",
            sources,
            until=lambda seen: any(
                source == whole or (isinstance(source, dict) and source.get("plugins") == wanted)
                for source in seen
            ),
        )

    # Pods

    def run(self, pod: PodConfig) -> Sandbox:
        """Make a pod's sandbox. Raises `CriError`."""
        pod = replace(pod, cgroup_parent=f"{self.machine.cgroup}/kubepods/pod{pod.uid}")
        sandbox_id = self.cri.run_pod_sandbox(pod)
        pid = self.cri.pod_sandbox_status(sandbox_id).pid
        assert pid is not None
        return Sandbox(sandbox_id, pod, self, self.machine.netns_of(pid))

    def remove_all(self) -> None:
        """Remove every sandbox, whatever state it is in."""
        for sandbox_id in self.cri.list_pod_sandbox():
            self.cri.stop_pod_sandbox(sandbox_id)
            self.cri.remove_pod_sandbox(sandbox_id)

    def log(self, lines: int) -> str:
        with contextlib.suppress(FileNotFoundError), open(self.log_file) as log:
            return "".join(log.readlines()[-lines:])
        return ""


def link_programs(folder: str, programs: str) -> None:
    """Fill a plugin folder with links to our programs."""
    for program in ("ratchet", "ratchet-child"):
        os.symlink(os.path.join(programs, program), os.path.join(folder, program))


def link_plugins(folder: str) -> None:
    """Fill a plugin folder with links to the distribution's plugins."""
    for plugin in os.listdir(REFERENCE_PLUGINS):
        if shutil.which(os.path.join(REFERENCE_PLUGINS, plugin)):
            os.symlink(os.path.join(REFERENCE_PLUGINS, plugin), os.path.join(folder, plugin))


def _toml(settings: dict[str, Any], path: str = "") -> str:
    """Write settings as TOML; JSON's strings, numbers, truths and lists are TOML's as well."""
    plain = [
        f"{key} = {json.dumps(value)}\n"
        for key, value in settings.items()
        if not isinstance(value, dict)
    ]
    tables = [
        _toml(value, f"{path}{json.dumps(key)}.")
        for key, value in settings.items()
        if isinstance(value, dict)
    ]
    head = f"[{path[:-1]}]\n" if path and plain else ""
    return head + "".join(plain) + "".join(tables)
