"""What two topologies differ in. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ratchetctl.topo.model import Link, Node, Topology, Uplink


@dataclass(frozen=True, slots=True)
class Difference:
    """Nodes and links that are only in one of two topologies, and nodes that are not alike."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[tuple[str, tuple[str, ...]], ...]
    new_links: tuple[Link | Uplink, ...]
    old_links: tuple[Link | Uplink, ...]

    def __bool__(self) -> bool:
        return any((self.added, self.removed, self.changed, self.new_links, self.old_links))

    def lines(self) -> list[str]:
        """Return one line for each difference: + what is new, - what is gone, ~ what changed."""
        return [
            *(f"- {_shown(link)}" for link in self.old_links),
            *(f"- node {name}" for name in self.removed),
            *(f"+ node {name}" for name in self.added),
            *(f"~ node {name}: {', '.join(what)}" for name, what in self.changed),
            *(f"+ {_shown(link)}" for link in self.new_links),
        ]


def diff(old: Topology, new: Topology) -> Difference:
    before = {node.name: node for node in old.nodes}
    after = {node.name: node for node in new.nodes}
    links_before = set(map(_either_way, old.all_links))
    links_after = set(map(_either_way, new.all_links))
    changed = []
    for name, node in after.items():
        if name in before and (what := _changed(before[name], node)):
            changed.append((name, what))
    return Difference(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(changed),
        new_links=tuple(link for link in new.all_links if _either_way(link) not in links_before),
        old_links=tuple(link for link in old.all_links if _either_way(link) not in links_after),
    )


def _changed(old: Node, new: Node) -> tuple[str, ...]:
    return tuple(
        field.name
        for field in fields(Node)
        if field.compare and getattr(old, field.name) != getattr(new, field.name)
    )


def _either_way(link: Link | Uplink) -> object:
    """Return the link without regard to which end declares it."""
    ends = sorted(
        (end.node, end.ifname, *map(str, (end.address, end.mac, end.impairment)))
        for end in link.ends
    )
    far = (link.kind, link.device, link.address) if isinstance(link, Uplink) else ()
    return (*ends, *far, link.mtu)


def _shown(link: Link | Uplink) -> str:
    ends = [
        " ".join(filter(None, (end.node, end.ifname, str(end.address or "")))) for end in link.ends
    ]
    if isinstance(link, Uplink):
        ends.append(f"{link.kind} {link.device}")
    return f"link {' -- '.join(ends)}"
