"""Machines beside a stand-in of the API server: what scheduler, kubelets and agents write of pods.

A pod gets a machine, runs, and ends when it is deleted. When both pods of a link run, the link's
ends are listed in the annotation network-status, as docs/agent.md has it. What a pod does not do is
told before: `broken` pods wait with a reason, `silent` machines have no agent.
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from typing import Any

from ratchet import labels
from ratchet.errors import LabelError
from tests.lab.api_objects import Obj, Objects
from tests.lab.api_pods import NETWORK_STATUS

LOOK_S = 0.05
SYSTEM = "ratchet"  # the agents' pods are whoever's who made them


class Machines:
    """Two machines, in a thread of their own."""

    def __init__(self, objects: Objects, *, silent: bool = False) -> None:
        objects.lingers = True
        self.broken: dict[str, str] = {}  # by pod: why it does not start
        self.silent = silent
        self._objects = objects
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            with self._objects.changed:
                for pod in list(self._objects.pods.values()):
                    self._work(pod)

    def _work(self, pod: Obj) -> None:
        metadata = pod["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        if namespace == SYSTEM:
            return
        if metadata.get("deletionTimestamp"):
            self._objects.delete_pod(namespace, name)
            return

        def change(one: Obj) -> None:
            number = sum(map(ord, name))
            one["spec"].setdefault("nodeName", f"machine-{number % 2 + 1}")
            one["status"] = self._status(name, number, one.get("status", {}))
            entries = [] if self.silent else list(self._entries(one))
            if entries:
                one["metadata"].setdefault("annotations", {})[NETWORK_STATUS] = json.dumps(entries)

        before = json.dumps(pod, sort_keys=True)
        changed = json.loads(before)
        change(changed)
        if json.dumps(changed, sort_keys=True) != before:
            self._objects.change_pod(namespace, name, change)

    def _status(self, name: str, number: int, before: Obj) -> Obj:
        if before.get("phase") in ("Failed", "Succeeded"):
            return before
        reason = self.broken.get(name)
        if reason is None:
            return {"phase": "Running", "podIP": f"10.244.0.{number % 250}"}
        state = {"waiting": {"reason": reason, "message": f"{name} is broken"}}
        one = {"name": "node", "ready": False, "restartCount": 0, "image": "x", "imageID": ""}
        return {"phase": "Pending", "containerStatuses": [{**one, "state": state}]}

    def _entries(self, pod: Obj) -> Any:
        """Yield the ends of links whose other pod runs, too."""
        running = {
            key: one
            for key, one in self._objects.pods.items()
            if one.get("status", {}).get("phase") == "Running"
        }
        own = pod["metadata"]["namespace"], pod["metadata"]["name"]
        for (namespace, name), one in running.items():
            for link in _links(one):
                far = namespace, link.pair
                if far not in running:
                    continue
                if (namespace, name) == own:
                    yield _entry(name, link.ifname, link.ifname, link.address)
                elif far == own:
                    yield _entry(name, link.ifname, link.pair_ifname, link.pair_address)


def _links(pod: Obj) -> Any:
    metadata = pod["metadata"]
    with suppress(LabelError):
        return labels.parse(
            metadata.get("labels", {}),
            metadata.get("annotations", {}),
            own_name=metadata["name"],
            cni_ifname="eth0",
        ).links
    return ()


def _entry(primary: str, link: str, ifname: str, address: object) -> Obj:
    entry: Obj = {"name": f"ratchet/{primary}:{link}", "interface": ifname}
    if address is not None:
        entry["ips"] = [str(address).partition("/")[0]]
    return {**entry, "dns": {}}
