"""The node's pods as the agent writes of them: who they are to Kubernetes, and how their links are.

Read from the engine's state at one moment; whatever is decided from a view is decided elsewhere.
"""

from __future__ import annotations

from ratchet.attachments import Attachment
from ratchet.cni.dataclasses import dataclass, replace
from ratchet.status import ERROR, LinkStatus
from ratchet_child.engine import Engine
from ratchet_child.model.interfaces import hardware_address
from ratchet_child.model.keys import PodKey
from ratchet_child.pods.state import PodState

AGENTS = "agent-"  # what the container of a pod that the agent has attached begins with


@dataclass(frozen=True, slots=True)
class End:
    """An end that is in a pod, as dashboards list it."""

    link: str  # <primary>:<ifname of the primary's end>
    ifname: str
    address: str | None
    mac: str
    mtu_bytes: int | None


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod that Kubernetes knows. `key` is its name to Ratchet."""

    key: PodKey
    uid: str
    name: str
    attachment: Attachment
    links: tuple[LinkStatus, ...]
    ends: tuple[End, ...]
    address: str = ""
    """Of the node, for tunnels."""
    superseded: bool = False
    stands_by: bool = False
    """Whether it is superseded because it is not ready yet, and another pod has the name."""
    holder: str | None = None
    """What Kubernetes calls the pod that has the name of a superseded one, if it is here."""
    trouble: str | None = None
    """What keeps it from being worked on, but for etcd, which keeps every pod."""
    trouble_since: float | None = None
    is_settled: bool = True
    """Whether it is known which of its links are up: all its peers have been looked at."""

    @property
    def is_agents(self) -> bool:
        """Whether the agent has attached it, and no ADD."""
        return self.attachment.container_id.startswith(AGENTS)

    @property
    def namespace(self) -> str:
        return self.key.namespace


def views(engine: Engine) -> list[PodView]:
    """Return the node's pods, and those whose name another container has."""
    found = []
    for state in engine.registry.states():
        attachment = state.heard.attachment
        if attachment is None or attachment.uid is None or attachment.kubernetes_name is None:
            continue
        links = _links(engine, state)
        found.append(
            PodView(
                key=state.key,
                uid=attachment.uid,
                name=attachment.kubernetes_name,
                attachment=attachment,
                links=links,
                ends=_ends(state, links),
                address=engine.node.address,
                superseded=state.progress.memory.superseded,
                stands_by=state.progress.memory.stands_by,
                trouble=None if engine.etcd.is_away else state.trouble,
                trouble_since=state.progress.last_error_at,
                is_settled=state.progress.looked or not engine.node.address,
            )
        )
    # A sandbox that was made anew, whose DEL before has not come yet, is the same pod.
    known = {view.uid for view in found}
    for attachment in engine.registry.replaced():
        if attachment.uid in known:
            continue
        if attachment.uid is not None and attachment.kubernetes_name is not None:
            known.add(attachment.uid)
            key = PodKey(attachment.namespace, attachment.pod)
            name = attachment.kubernetes_name
            holder = engine.registry.get(key)
            held_by = None if holder is None else holder.heard.attachment
            found.append(
                PodView(
                    key,
                    attachment.uid,
                    name,
                    attachment,
                    (),
                    (),
                    address=engine.node.address,
                    superseded=True,
                    stands_by=engine.registry.stands_by(attachment),
                    holder=None if held_by is None else held_by.kubernetes_name,
                )
            )
    return found


def _links(engine: Engine, state: PodState) -> tuple[LinkStatus, ...]:
    """Return a pod's links; one that is refused, here or at its far pod, is of no kind."""
    links = engine.status.links(state.key)
    refused = set(state.inside.refused)
    return tuple(
        replace(link, kind=None) if link.state == ERROR and link.ifname in refused else link
        for link in links
    )


def _ends(state: PodState, links: tuple[LinkStatus, ...]) -> tuple[End, ...]:
    ends = []
    found = dict(state.inside.found or {})
    macs = {end.ifname: end.interface.mac for end in state.ends}
    for link in links:
        there = found.get(link.ifname)
        if there is None or not there.ours:
            continue
        ends.append(
            End(
                link=f"{state.key.name}:{link.ifname}"
                if link.primary
                else f"{link.peer.rpartition(':')[2]}:{link.peer_ifname}",
                ifname=there.ifname,
                address=link.address,
                mac=macs.get(link.ifname) or hardware_address(state.key, link.ifname),
                mtu_bytes=there.mtu_bytes,
            )
        )
    return tuple(ends)
