"""Addresses for links and loopbacks that have none. Pure and deterministic.

The same topology gets the same addresses every time, and none that the file gives away already:
networks that a given address lies in are skipped.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from ratchetctl.errors import TopologyError
from ratchetctl.topo.model import End, Interface, Link, Topology

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Private (RFC 1918) and local (RFC 4193); nothing of them is the simulator's own.
LINKS = {4: "10.0.0.0/9", 6: "fd00:0:0:1::/64"}
LOOPBACKS = {4: "10.128.0.0/12", 6: "fd00:0:0:2::/64"}


def hand_out(
    topology: Topology,
    version: int,
    prefix_len: int | None = None,
    pool: str | None = None,
    chosen: Callable[[Link], bool] = lambda _: True,
) -> Topology:
    """Give both ends of every (chosen) link without addresses one each, of IP version 4 or 6.

    A link gets a /31 or /127 (RFC 3021, RFC 6164), or a network of `prefix_len`. A link with one
    address gets the other from the same network where there is room. Raises TopologyError when the
    pool is too small.
    """
    length = prefix_len or (31 if version == 4 else 127)
    most = 31 if version == 4 else 127
    if not 1 <= length <= most:
        raise TopologyError(
            f"--prefix-len {length}: a link of two IPv{version} addresses needs 1 to {most}"
        )
    # An IPv6 network's first address is that of its routers together (RFC 4291 §2.6.1).
    networks = _free(_network(pool or LINKS[version]), length, _given(topology), skip=version == 6)
    links = []
    for link in topology.links:
        if not chosen(link):
            links.append(link)
        elif link.first.address is None and link.second.address is None:
            network = next(networks, None)
            if network is None:
                raise TopologyError(
                    f"{topology.name}: {pool or LINKS[version]} is too small for so many links;"
                    " use a larger --pool"
                )
            links.append(_numbered(link, network))
        else:
            links.append(_completed(link))
    return replace(topology, links=tuple(links))


def hand_out_loopbacks(
    topology: Topology,
    version: int,
    pool: str | None = None,
    chosen: Collection[str] | None = None,
) -> Topology:
    """Give every node without a loopback address of this IP version one. Raises TopologyError.

    With `chosen`, only nodes of these names.
    """
    length = 32 if version == 4 else 128
    networks = _free(_network(pool or LOOPBACKS[version]), length, _given(topology), skip=1)
    nodes = []
    for node in topology.nodes:
        has_one = any(one.version == version for one in node.loopbacks)
        if has_one or (chosen is not None and node.name not in chosen):
            nodes.append(node)
            continue
        network = next(networks, None)
        if network is None:
            raise TopologyError(
                f"{topology.name}: {pool or LOOPBACKS[version]} is too small for so many nodes"
            )
        address = ipaddress.ip_interface(f"{network.network_address}/{length}")
        nodes.append(replace(node, loopbacks=(*node.loopbacks, address)))
    return replace(topology, nodes=tuple(nodes))


def parse_pool(text: str, version: int) -> str:
    """Check a pool that a person gave. Raises TopologyError."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise TopologyError(f"--pool {text!a}: {error}") from error
    if network.version != version:
        raise TopologyError(f"--pool {text}: must be a network of IPv{version}")
    return str(network)


def _network(text: str) -> Network:
    return ipaddress.ip_network(text)


def _given(topology: Topology) -> list[Network]:
    addresses = [end.address for link in topology.links for end in link.ends if end.address]
    addresses += [one for node in topology.nodes for one in node.loopbacks]
    return [one.network for one in addresses]


def _free(pool: Network, length: int, given: list[Network], skip: int = 0) -> Iterator[Network]:
    """Yield the pool's networks of this length, in order, that no given one overlaps."""
    if length < pool.prefixlen:
        return
    size = 1 << (pool.max_prefixlen - length)
    taken = sorted(
        (int(one.network_address), int(one.broadcast_address))
        for one in given
        if one.version == pool.version and one.overlaps(pool)
    )
    position, end = int(pool.network_address) + skip * size, int(pool.broadcast_address)
    number = 0
    while position + size - 1 <= end:
        while number < len(taken) and taken[number][1] < position:
            number += 1
        if number < len(taken) and taken[number][0] <= position + size - 1:
            # Past what is taken, at the next boundary.
            position += size * max(1, -(-(taken[number][1] + 1 - position) // size))
            continue
        yield _make(pool, position, length)
        position += size


def _make(pool: Network, position: int, length: int) -> Network:
    if isinstance(pool, ipaddress.IPv4Network):
        return ipaddress.IPv4Network((position, length))
    return ipaddress.IPv6Network((position, length))


def _numbered(link: Link, network: Network) -> Link:
    first = int(network.network_address) + (0 if network.num_addresses <= 2 else 1)
    return replace(
        link,
        first=_addressed(link.first, network, first),
        second=_addressed(link.second, network, first + 1),
    )


def _completed(link: Link) -> Link:
    """Give the end without an address the next one to the other's, if the network has one."""
    one, other = link.first.address, link.second.address
    if one is not None and other is not None:
        return link
    known = one or other
    if known is None or known.network.num_addresses < 2:
        return link
    network = known.network
    first = int(network.network_address) + (0 if network.num_addresses <= 2 else 1)
    made = first if int(known.ip) != first else first + 1
    end = _addressed(link.second if one else link.first, network, made)
    return replace(link, second=end) if one else replace(link, first=end)


def _addressed(end: End, network: Network, address: int) -> End:
    made: Interface
    if isinstance(network, ipaddress.IPv4Network):
        made = ipaddress.IPv4Interface((address, network.prefixlen))
    else:
        made = ipaddress.IPv6Interface((address, network.prefixlen))
    return replace(end, address=made)
