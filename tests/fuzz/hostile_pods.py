"""Two linked pods of another tenant, beside a child that hears nonsense from everybody else.

Their author has NET_ADMIN in them and never stops: he deletes and renames the ends of their links,
makes and removes interfaces of his own, and changes ends as fast as he can. Nothing is asked of his
links. `close` detaches the pods, and fails if the child has left them anything.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

from tests.lab.namespaces import Namespace, random_name
from tests.lab.polling import wait_for
from tests.lab.runtime import REFERENCE_PLUGINS, plugin_dir, primary, request_config

LINKS = 16
OWN_INTERFACES = 20
FLIPS = 200
CALL_TIMEOUT_S = 30
FORGOTTEN_S = 30.0


class HostilePods:
    """The pods, and one thread that never stops."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        self._configuration = configuration | {
            "cniVersion": "1.0.0",
            "boot_network": {"type": "loopback"},
            "wait": "none",
        }
        self._pods = {Namespace(random_name("hostile")): secrets.token_hex(16) for _ in range(2)}
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._rage, daemon=True)
        self.rounds = 0

    def start(self) -> None:
        labels: dict[str, str] = {}
        for n in range(1, LINKS + 1):
            labels |= primary(f"to{n}", f"10.66.{n}.1", "near", f"from{n}", f"10.66.{n}.2", n)
        declares = {**labels, "ratchet.pod_name": "many"}
        expects = {"ratchet": "true", "ratchet.primary": "false", "ratchet.pod_name": "near"}
        for netns, one in zip(self._pods, (declares, expects), strict=True):
            netns.create()
            self._call("ADD", netns, one)
        self._thread.start()

    def close(self) -> None:
        self._is_ending.set()
        if self._thread.ident is not None:
            self._thread.join(CALL_TIMEOUT_S)
        try:
            for netns in self._pods:
                if netns.exists:
                    self._call("DEL", netns, {})
            wait_for("the ends to go", self._ends, until=[].__eq__, timeout_s=FORGOTTEN_S)
        finally:
            for netns in self._pods:
                netns.remove()
        assert self.rounds or self._thread.ident is None, "the hostile pods did nothing"

    def _call(self, command: str, netns: Namespace, labels: dict[str, str]) -> None:
        environ = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self._pods[netns],
            "CNI_NETNS": netns.path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": f"{plugin_dir()}:{REFERENCE_PLUGINS}",
            "PATH": os.environ["PATH"],
        }
        done = subprocess.run(
            [os.path.join(plugin_dir(), "ratchet")],
            input=json.dumps(request_config(self._configuration, labels, None)).encode(),
            env=environ,
            capture_output=True,
            timeout=CALL_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)

    def _ends(self) -> list[str]:
        names = [name for netns in self._pods if netns.exists for name in netns.names()]
        return [one for one in names if one.startswith(("to", "from", "was"))]

    def _rage(self) -> None:
        attacks = (self._own_interfaces, self._flood, self._delete_ends, self._rename_ends)
        for attack, (netns, side) in itertools.cycle(
            itertools.product(attacks, zip(self._pods, ("to", "from"), strict=True))
        ):
            if self._is_ending.is_set():
                return
            netns.try_batch(attack(side), timeout_s=20)
            self.rounds += 1

    @staticmethod
    def _own_interfaces(_side: str) -> Iterator[str]:
        for n in range(OWN_INTERFACES):
            yield f"link add own{n} type veth peer name other{n}"
            yield f"address add 10.67.{n}.1/24 dev own{n}"
        for n in range(OWN_INTERFACES):
            yield f"link delete own{n}"

    @staticmethod
    def _flood(side: str) -> Iterator[str]:
        for _ in range(FLIPS):
            yield f"link set {side}1 mtu 1400"
            yield f"link set {side}1 mtu 1300"

    @staticmethod
    def _delete_ends(side: str) -> Iterator[str]:
        for n in range(1, LINKS + 1, 2):
            yield f"link delete {side}{n}"

    @staticmethod
    def _rename_ends(side: str) -> Iterator[str]:
        for n in range(2, LINKS + 1, 2):
            yield f"link set {side}{n} name was{n}"
            yield f"link set was{n} name {side}{n}"
