"""Pods and links as the tests of the agent make them."""

from __future__ import annotations

from typing import Any

from ratchet.attachments import Attachment
from ratchet.cni.dataclasses import replace
from ratchet.labels import parse
from ratchet.status import LinkStatus
from ratchet_child.agent.seen import SeenPod
from ratchet_child.agent.views import PodView
from ratchet_child.model.keys import PodKey

LABELS = {
    "ratchet": "true",
    "ratchet.primary": "true",
    "ratchet.local_ifname": "in1",
    "ratchet.pair_name": "b",
    "ratchet.pair_ifname": "in2",
}
SECOND = {
    "ratchet.2.local_ifname": "in3",
    "ratchet.2.pair_name": "c",
    "ratchet.2.pair_ifname": "in4",
}


def attachment(labels: dict[str, str], container: str = "c1", **values: Any) -> Attachment:
    """Return what an ADD records of a pod with these labels."""
    wiring = parse(labels, {}, own_name="a", cni_ifname="eth0")
    made = Attachment(
        container_id=container,
        ifname="eth0",
        netns="/run/netns/x",
        network="test",
        namespace="default",
        pod=wiring.pod_name,
        kubernetes_name="a",
        uid="u1",
        links=wiring.links,
        public_ip=None,
        target_pod=None,
        target_container=None,
        attached_at=2000.0,
        boot=None,
        result={},
    )
    return replace(made, **values)


def view(*links: LinkStatus, labels: dict[str, str] | None = None, **values: Any) -> PodView:
    record = values.pop("attachment", None) or attachment(LABELS if labels is None else labels)
    made = PodView(PodKey("default", record.pod), "u1", "a", record, links, ())
    return replace(made, **values)


def link(state: str = "up", ifname: str = "in1", **values: Any) -> LinkStatus:
    kind = "veth" if state == "up" else None
    made = LinkStatus(
        ifname, "b", state, True, peer_ifname="in2", peer_node="10.0.0.1", kind=kind, since=1000.0
    )
    return replace(made, **values)


def seen(
    labels: dict[str, str], annotations: dict[str, str] | None = None, **values: Any
) -> SeenPod:
    return replace(SeenPod("default", "a", ("u1",), "1", labels, annotations or {}), **values)
