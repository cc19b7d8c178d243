"""A router as its configuration needs it. Pure data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ratchetctl.topo.model import Interface

HELLO_S, DEAD_S = 1, 4
RETRANSMIT_S = 1  # what the neighbour was not ready for
KEEPALIVE_S, HOLD_S = 3, 9

OSPF, ISIS, BGP = "ospf", "isis", "bgp"
PROTOCOLS = (OSPF, ISIS, BGP)


@dataclass(frozen=True, slots=True)
class Port:
    """An interface with a link: its address, and the router at the other end if there is one.

    `peer_address` None: a BGP session by the interface alone (unnumbered).
    """

    ifname: str
    address: Interface | None
    peer: str | None = None
    peer_as: int = 0
    peer_address: Interface | None = None

    @property
    def is_passive(self) -> bool:
        """Whether no router is at the other end, but the network is to be known."""
        return self.peer is None

    @property
    def version(self) -> int:
        """The IP version of its address; 4 where it has none."""
        return self.address.version if self.address else 4


@dataclass(frozen=True, slots=True)
class Router:
    """One node and everything that its neighbours and it have to agree on."""

    name: str
    protocol: str
    router_id: str
    as_number: int
    loopbacks: tuple[Interface, ...]
    ports: tuple[Port, ...]

    def has(self, version: int) -> bool:
        """Say whether this IP version is routed: the router has a loopback address of it."""
        return any(one.version == version for one in self.loopbacks)

    def networks(self, version: int) -> Iterator[str]:
        """Yield what the router itself announces: its loopbacks and the networks of its links."""
        yield from (str(one) for one in self.loopbacks if one.version == version)
        for port in self.ports:
            if port.address is not None and port.address.version == version:
                yield str(port.address.network)
