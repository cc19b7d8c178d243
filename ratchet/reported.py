"""The address that a pod without one of its boot network's reports to the runtime.

The runtime makes it the pod's IP, and Kubernetes puts that into EndpointSlices: what is sent to a
Service then goes there. A pod's author writes it into a label, so it may not be just any address.
Those that mean something else on every node are refused: loopback, multicast, link-local, and what
the node itself has. What is left is as free as a pod's network is, unless `public_ip_networks` says
which networks it has to be of.

The kernel is asked for the node's addresses, as its table knows them (ip-route(8), type local): a
name service or an interface's list would have neither those of a whole prefix nor those of a proxy.
"""

from __future__ import annotations

import _socket
import sys

from ratchet.cni.ip import Address, Host
from ratchet.cni.result import link_local
from ratchet.errors import KernelError, LabelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ratchet.config import Config
    from ratchet.labels import Wiring

LABEL = "ratchet.public_ip"
ALLOWED = (
    "an address that is not link-local, loopback or multicast, and that the node does not have"
)

_LINK_LOCAL = (Address.parse("169.254.0.0/16"), Address.parse("fe80::/10"))  # RFC 3927, RFC 4291
_THIS_NETWORK = Address.parse("0.0.0.0/8")  # RFC 1122 §3.2.1.3
_COMPATIBLE = Address.parse("::/96")  # RFC 4291 §2.5.5.1: an IPv4 address, of old
_NAT64 = Address.parse("64:ff9b::/96")  # RFC 6052 §2.1
_BROADCAST = Host.parse("255.255.255.255")

# rtnetlink(7), linux/rtnetlink.h
_RTM_GETROUTE, _NLM_F_REQUEST, _NLMSG_ERROR, _RTA_DST = 26, 1, 2, 1
_NETLINK_ROUTE = 0
_RTN_LOCAL, _RTN_MULTICAST = 2, 5  # broadcast and anycast lie between them
_NLMSG_BYTES, _TYPE_OFFSET = 16, 16 + 7
_ANSWER_BYTES = 8192
_TIMEOUT_S = 5.0

_MOST_TRIES = 20  # to make an address up


def check(config: Config, wiring: Wiring) -> None:
    """Refuse a label that names an address which no pod may report. Raises LabelError."""
    address = wiring.public_ip
    if address is None:
        return
    if not _is_in(address.ip, config.public_ip_networks):
        networks = ", ".join(config.public_ip_networks or ())
        raise LabelError(
            LABEL, str(address.ip), f"an address of public_ip_networks: {networks or 'none'}"
        )
    if not _is_harmless(config, address.ip):
        raise LabelError(LABEL, str(address.ip), ALLOWED)


def choose(
    config: Config, public_ip: Address | None, addresses: list[Address], container_id: str
) -> Address:
    """Return what the pod reports: its label's, the first link's that may be, or one made up.

    A link may have any address: it is the pod's own network. It is only not told to the runtime.
    """
    if public_ip is not None:  # which was checked before anything was changed
        return public_ip
    for address in addresses:
        if is_allowed(config, address.ip):
            return address
    made_up, tries = link_local(container_id), 0
    while is_nodes_own(config, made_up.ip) and tries < _MOST_TRIES:
        tries += 1
        made_up = link_local(f"{container_id} {tries}")
    return made_up


def is_allowed(config: Config, host: Host) -> bool:
    """Tell whether a pod may report an address. Raises KernelError."""
    return _is_in(host, config.public_ip_networks) and _is_harmless(config, host)


def _is_harmless(config: Config, host: Host) -> bool:
    """Tell whether an address, and what a NAT64 makes of it, means one other host everywhere."""
    return not any(
        _is_special(one) or is_nodes_own(config, one)
        for one in dict.fromkeys((host, _translated(host)))
    )


def _is_special(host: Host) -> bool:
    return (
        host.is_unspecified
        or host.is_loopback
        or host.is_multicast
        or host.is_ipv4_mapped
        or host == _BROADCAST
        or any(_is_of(host, network) for network in (*_LINK_LOCAL, _THIS_NETWORK, _COMPATIBLE))
    )


def _translated(host: Host) -> Host:
    """Return the IPv4 address that a NAT64 makes of an address; any other as it is."""
    is_translated = host.version == 6 and _is_of(host, _NAT64)
    return Host(host.packed[-4:]) if is_translated else host


def _is_in(host: Host, networks: tuple[str, ...] | None) -> bool:
    return networks is None or any(_is_of(host, Address.parse(one)) for one in networks)


def _is_of(host: Host, network: Address) -> bool:
    same_version = host.version == network.version
    return same_version and Address(host, network.prefix_len).network == network.network


def is_nodes_own(config: Config, host: Host) -> bool:
    """Tell whether the node takes what is sent to an address for itself. Raises KernelError."""
    if config.parent_address is not None and Host.parse(config.parent_address) == host:
        return True  # one that is translated on its way stands on no interface
    try:
        kind = _route_type(host)
    except OSError as exc:
        reason = exc.strerror or repr(exc)
        raise KernelError(f"ask whether {host} is an address of the node", reason) from exc
    return kind is not None and _RTN_LOCAL <= kind <= _RTN_MULTICAST


def _route_type(host: Host) -> int | None:
    """Return the type of the route to an address; None where there is no route. Raises OSError."""
    family = _socket.AF_INET if host.version == 4 else _socket.AF_INET6
    order = sys.byteorder
    attribute = (4 + len(host.packed)).to_bytes(2, order) + _RTA_DST.to_bytes(2, order)
    body = bytes((family, len(host.packed) * 8)) + bytes(10) + attribute + host.packed
    header = (_NLMSG_BYTES + len(body)).to_bytes(4, order)
    header += _RTM_GETROUTE.to_bytes(2, order) + _NLM_F_REQUEST.to_bytes(2, order)
    header += (1).to_bytes(4, order) + bytes(4)
    sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, _NETLINK_ROUTE)
    try:
        sock.settimeout(_TIMEOUT_S)
        sock.bind((0, 0))
        sock.sendall(header + body)
        answer = sock.recv(_ANSWER_BYTES)
    finally:
        sock.close()
    if len(answer) <= _TYPE_OFFSET or int.from_bytes(answer[4:6], order) == _NLMSG_ERROR:
        return None
    return answer[_TYPE_OFFSET]
