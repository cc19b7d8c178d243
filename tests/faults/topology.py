"""The pods of a run, and their links. Pure: a function of the seed alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

LINKS_PER_POD = 1.6
BUSIEST_POD = 6  # links, declared and received


@dataclass(frozen=True, order=True)
class PodId:
    """A pod as Kubernetes names it."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """The pod as it stands in keys."""
        return self.name if self.namespace == "default" else f"{self.namespace}:{self.name}"


@dataclass(frozen=True)
class Link:
    """A link that a pod declares."""

    primary: PodId
    ifname: str
    address: str | None
    pair: PodId
    pair_ifname: str
    pair_address: str | None


@dataclass(frozen=True)
class Topology:
    pods: tuple[PodId, ...]
    links: tuple[Link, ...]

    def declared_by(self, pod: PodId) -> list[Link]:
        return [link for link in self.links if link.primary == pod]

    def labels(self, pod: PodId) -> dict[str, str]:
        """The labels of a pod, with what labels cannot hold left to `annotations`."""
        return {key: value for key, value in self._fields(pod).items() if _is_label(value)}

    def annotations(self, pod: PodId) -> dict[str, str]:
        return {key: value for key, value in self._fields(pod).items() if not _is_label(value)}

    def _fields(self, pod: PodId) -> dict[str, str]:
        fields = {"ratchet": "true", "ratchet.primary": "false"}
        for number, link in enumerate(self.declared_by(pod), 1):
            prefix = "ratchet." if number == 1 else f"ratchet.{number}."
            fields[f"{prefix}primary"] = "true"
            fields[f"{prefix}local_ifname"] = link.ifname
            fields[f"{prefix}pair_name"] = link.pair.name
            fields[f"{prefix}pair_ifname"] = link.pair_ifname
            if link.address is not None and link.pair_address is not None:
                fields[f"{prefix}local_ip"] = link.address
                fields[f"{prefix}pair_ip"] = link.pair_address
        return fields


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
            links.append(
                Link(
                    *(link.pair, link.pair_ifname, link.pair_address),
                    *(link.primary, link.ifname, link.address),
                )
            )
    return Topology(names, tuple(links))
