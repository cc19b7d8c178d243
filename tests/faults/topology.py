"""The pods of a run, and their links. Pure: a function of the seed alone."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

LINKS_PER_POD = 1.6
BUSIEST_POD = 6  # links, declared and received
WITH_MTU, WITH_RATE, WITH_MACVLAN, WITH_HOST = 0.2, 0.3, 0.25, 0.2
MTU = 1300
RATES_KBIT = (800, 5000, 50000)
CARD = "eth0"  # of every node: macvlans are on it
OUTSIDE = "10.98.0.254"  # what is on the nodes' network and no node
MACVLAN, HOST = "macvlan", "host"


@dataclass(frozen=True, order=True)
class PodId:
    """A pod as Kubernetes names it."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """The pod as it stands in keys."""
        return self.name if self.namespace == "default" else f"{self.namespace}:{self.name}"


@dataclass(frozen=True)
class Properties:
    """What a link may have besides: an MTU at both ends, and a rate of what each end sends."""

    mtu: int | None = None
    rate_kbit: int | None = None
    pair_rate_kbit: int | None = None

    def seen_from_pair(self) -> Properties:
        return Properties(self.mtu, self.pair_rate_kbit, self.rate_kbit)


@dataclass(frozen=True)
class Link:
    """A link that a pod declares."""

    primary: PodId
    ifname: str
    address: str | None
    pair: PodId
    pair_ifname: str
    pair_address: str | None
    properties: Properties = Properties()

    def seen_from_pair(self) -> Link:
        """The same cable, as its other pod declares it."""
        return Link(
            *(self.pair, self.pair_ifname, self.pair_address),
            *(self.primary, self.ifname, self.address),
            self.properties.seen_from_pair(),
        )


@dataclass(frozen=True)
class Uplink:
    """A link of one pod with its node. `device` is below a macvlan, or a host link's other end."""

    pod: PodId
    ifname: str
    kind: str
    device: str
    address: str
    device_address: str | None = None
    properties: Properties = Properties()


@dataclass(frozen=True)
class Topology:
    pods: tuple[PodId, ...]
    links: tuple[Link, ...]
    uplinks: tuple[Uplink, ...] = ()

    def declared_by(self, pod: PodId) -> list[Link]:
        return [link for link in self.links if link.primary == pod]

    def labels(self, pod: PodId) -> dict[str, str]:
        """The labels of a pod, with what labels cannot hold left to `annotations`."""
        return {key: value for key, value in self._fields(pod).items() if _is_label(value)}

    def annotations(self, pod: PodId) -> dict[str, str]:
        return {key: value for key, value in self._fields(pod).items() if not _is_label(value)}

    def _fields(self, pod: PodId) -> dict[str, str]:
        fields = {"ratchet": "true", "ratchet.primary": "false"}
        declared = [
            *map(_link_fields, self.declared_by(pod)),
            *(_uplink_fields(one) for one in self.uplinks if one.pod == pod),
        ]
        for number, one in enumerate(declared, 1):
            prefix = "ratchet." if number == 1 else f"ratchet.{number}."
            fields[f"{prefix}primary"] = "true"
            fields |= {f"{prefix}{name}": value for name, value in one.items()}
        return fields


def _link_fields(link: Link) -> dict[str, str]:
    fields = {
        "local_ifname": link.ifname,
        "pair_name": link.pair.name,
        "pair_ifname": link.pair_ifname,
    }
    if link.address is not None and link.pair_address is not None:
        fields |= {"local_ip": link.address, "pair_ip": link.pair_address}
    said = link.properties
    if said.rate_kbit is not None and said.rate_kbit == said.pair_rate_kbit:
        fields["rate"] = f"{said.rate_kbit}kbit"
    else:
        for end, rate in (("local", said.rate_kbit), ("pair", said.pair_rate_kbit)):
            if rate is not None:
                fields[f"{end}_rate"] = f"{rate}kbit"
    return fields | _mtu_field(said)


def _uplink_fields(uplink: Uplink) -> dict[str, str]:
    fields = {
        "local_ifname": uplink.ifname,
        "kind": uplink.kind,
        "device": uplink.device,
        "local_ip": uplink.address,
    }
    if uplink.device_address is not None:
        fields["pair_ip"] = uplink.device_address
    if uplink.properties.rate_kbit is not None:
        fields["local_rate"] = f"{uplink.properties.rate_kbit}kbit"
    return fields | _mtu_field(uplink.properties)


def _mtu_field(said: Properties) -> dict[str, str]:
    return {} if said.mtu is None else {"mtu": str(said.mtu)}


def _is_label(value: str) -> bool:
    return not set(value) & set("/:")


def topology(seed: int, pods: int) -> Topology:
    """Some pods of one name in two namespaces; links at random, often several between two pods."""
    rng = random.Random(f"{seed}/topology")
    second = pods // 4
    names = tuple(
        [PodId("default", f"p{n}") for n in range(pods - second)]
        + [PodId("lab", f"p{n}") for n in range(second)]
    )
    used = dict.fromkeys(names, 0)
    links: list[Link] = []

    def ifname(pod: PodId) -> str:
        used[pod] += 1
        return f"to{used[pod]}"

    for number in range(1, round(pods * LINKS_PER_POD) + 1):
        free = [pod for pod in names if used[pod] < BUSIEST_POD]
        again = [link for link in links if {link.primary, link.pair} <= set(free)]
        if again and rng.random() < 0.3:
            two = rng.choice(again)
            primary, pair = rng.sample([two.primary, two.pair], 2)
        else:
            primary = rng.choice(free)
            others = [pod for pod in free if pod.namespace == primary.namespace and pod != primary]
            if not others:
                continue
            pair = rng.choice(others)
        form = rng.random()
        if form < 0.6:
            address, pair_address = f"10.20.{number}.1", f"10.20.{number}.2"
        elif form < 0.8:
            address, pair_address = f"fd20:{number:x}::1/64", f"fd20:{number:x}::2/64"
        else:
            address = pair_address = ""
        link = Link(
            primary, ifname(primary), address or None, pair, ifname(pair), pair_address or None
        )
        links.append(link)
        if rng.random() < 0.08:  # the other pod declares the same cable
            links.append(link.seen_from_pair())
    return Topology(names, *_with_properties(seed, names, links))


def _with_properties(
    seed: int, pods: tuple[PodId, ...], links: list[Link]
) -> tuple[tuple[Link, ...], tuple[Uplink, ...]]:
    """Give some links an MTU and rates, and some pods uplinks."""
    rng = random.Random(f"{seed}/properties")
    found: dict[tuple[PodId, str], Link] = {}
    for link in links:
        twin = found.get((link.pair, link.pair_ifname))
        if twin is not None and (twin.pair, twin.pair_ifname) == (link.primary, link.ifname):
            found[link.primary, link.ifname] = twin.seen_from_pair()
        else:
            found[link.primary, link.ifname] = replace(link, properties=_properties(rng))
    uplinks = []
    for number, pod in enumerate(pods, 1):
        if rng.random() < WITH_MACVLAN:
            own = replace(_properties(rng), pair_rate_kbit=None)
            uplinks.append(Uplink(pod, "out", MACVLAN, CARD, f"10.98.0.{number}", None, own))
        if rng.random() < WITH_HOST:
            own = replace(_properties(rng), pair_rate_kbit=None)
            ours, nodes = f"10.97.{number}.2", f"10.97.{number}.1"
            uplinks.append(Uplink(pod, "node", HOST, f"pod{number}", ours, nodes, own))
    return tuple(found.values()), tuple(uplinks)


def _properties(rng: random.Random) -> Properties:
    mtu = MTU if rng.random() < WITH_MTU else None
    if rng.random() >= WITH_RATE:
        return Properties(mtu)
    rate, pair_rate = rng.choice(RATES_KBIT), rng.choice((*RATES_KBIT, None))
    return Properties(mtu, rate, rate if rng.random() < 0.5 else pair_rate)
