"""A private podman with its CNI backend on a machine of the tests.

Its storage, state, plugins and networks are below a temporary folder; containers run the pause
program from a plain folder, so that no image is needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from tests.e2e import pause
from tests.e2e.containerd import link_plugins, link_programs
from tests.e2e.machine import Machine, children_of
from tests.lab.namespaces import Namespace
from tests.lab.polling import wait_for
from tests.lab.runtime import Config

TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0


def major_version() -> int:
    """Return the machine's podman's; from 5 on it has no CNI backend any more."""
    done = subprocess.run(["podman", "--version"], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1].split(".")[0])


class PodmanError(Exception):
    """What podman says when it fails."""


class Podman:
    """podman on a machine. It is no server: each command is a process of its own."""

    def __init__(self, machine: Machine, programs: str, directory: str) -> None:
        self.machine = machine
        self.node = machine.node
        self._directory = directory
        self.bin_dir = self._path("bin")
        self.net_dir = self._path("net.d")
        self._programs = programs

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def install(self) -> None:
        """Make its folders and its configuration."""
        for folder in (self._directory, self.bin_dir, self.net_dir, self._path("rootfs")):
            os.mkdir(folder)
        pause.write_root(self._path("rootfs"))
        link_plugins(self.bin_dir)
        link_programs(self.bin_dir, self._programs)
        settings: dict[str, dict[str, Any]] = {
            # Without CAP_SYS_RESOURCE nobody can raise a limit.
            "containers": {"default_ulimits": ["nofile=1024:1024", "nproc=1000:1000"]},
            "engine": {
                "cgroup_manager": "cgroupfs",
                "events_logger": "file",
                "runtime": "runc",  # crun refuses hybrid control groups
                "tmp_dir": self._path("tmp"),
            },
            "network": {
                "network_backend": "cni",
                "cni_plugin_dirs": [self.bin_dir],
                "network_config_dir": self.net_dir,
            },
        }
        storage: dict[str, dict[str, Any]] = {
            "storage": {
                "driver": "vfs",
                "graphroot": self._path("root"),
                "runroot": self._path("runroot"),
            }
        }
        for name, content in (("containers.conf", settings), ("storage.conf", storage)):
            with open(self._path(name), "w") as file:
                for section, pairs in content.items():
                    file.write(f"[{section}]\n")
                    # JSON's strings and lists are TOML's as well.
                    file.writelines(f"{key} = {json.dumps(pairs[key])}\n" for key in pairs)

    @property
    def _environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": self._directory,
            "CONTAINERS_CONF": self._path("containers.conf"),
            "CONTAINERS_STORAGE_CONF": self._path("storage.conf"),
        }

    def __call__(self, *arguments: str) -> str:
        """Run a command and return its output. Raises `PodmanError`."""
        done = subprocess.run(
            self.machine.command("podman", *arguments),
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        if done.returncode != 0:
            raise PodmanError(done.stderr)
        return done.stdout.strip()

    def network(self, name: str, *plugins: Config, version: str = "1.0.0") -> None:
        """Write a network; podman reads lists of plugins only."""
        whole = {"cniVersion": version, "name": name, "plugins": plugins}
        with open(os.path.join(self.net_dir, f"{name}.conflist"), "w") as file:
            json.dump(whole, file)

    def run(self, name: str, network: str, *options: str) -> Namespace:
        """Run a container and return its network namespace. Raises `PodmanError`."""
        self(
            *("run", "--detach", "--name", name, "--cgroup-parent", self.machine.cgroup),
            *("--network", network, *options, "--rootfs", self._path("rootfs"), "/pause"),
        )
        return self.netns(name)

    def netns(self, name: str) -> Namespace:
        return self.machine.netns_of(int(self.inspect(name)["State"]["Pid"]))

    def inspect(self, name: str) -> dict[str, Any]:
        (found,) = json.loads(self("inspect", name))
        assert isinstance(found, dict)
        return found

    def remove(self, *names: str) -> None:
        self("rm", "--force", "--time", "0", *names)

    def remove_all(self) -> None:
        self("rm", "--force", "--time", "0", "--all")

    @contextlib.contextmanager
    def service(self) -> Iterator[str]:
        """Serve podman's API, which is Docker's as well; gives the socket's path."""
        path = self._path("podman.sock")
        log = self._path("service.log")
        with open(log, "ab") as output:
            process = subprocess.Popen(
                self.machine.command("podman", "system", "service", "--time=0", f"unix://{path}"),
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            wait_for("podman's socket", lambda: os.path.exists(path))
            yield path
        finally:
            for pid in children_of(process.pid):
                os.kill(pid, 15)
            process.wait(END_TIMEOUT_S)
