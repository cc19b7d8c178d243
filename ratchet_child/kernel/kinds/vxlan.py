"""A cable to another node: a vxlan device with one far end (RFC 7348).

It is made from the node's namespace, where its UDP socket stays, straight into the pod's. A VNI and
port can be used once in each namespace that devices are made from, wherever they are moved to.
"""

from __future__ import annotations

import errno

from ratchet.cni.dataclasses import dataclass
from ratchet.cni.ip import Host
from ratchet.errors import KernelError
from ratchet_child.kernel import rtnetlink, tunnel
from ratchet_child.kernel.devices import RTM_GETLINK, Devices, index_of, must
from ratchet_child.kernel.guard import Guard
from ratchet_child.kernel.kinds.api import Site, VniInUseError
from ratchet_child.kernel.rtnetlink import LinkMessage
from ratchet_child.model.interfaces import Found, Plug, SetLocal, SetRemote, Setting, Unplug, Vxlan

_RTM_GETROUTE = 26
_OVERHEAD_BYTES = {4: 50, 6: 70}  # RFC 7348 §5: the headers around a frame


@dataclass(frozen=True, slots=True)
class FoundVxlan:
    """A tunnel's end: `lower` is the index of the device below it, in the node's namespace.

    `local` is the address that it sends from, None for the kernel's choice, and `source_ports` are
    the ports, first and last.
    """

    vni: int | None
    remote: Host | None
    port: int | None
    lower: int | None
    local: Host | None = None
    source_ports: tuple[int, int] | None = None
    is_plugged: bool = True


class VxlanKind:
    """A `Kind`."""

    name = "vxlan"
    makes_both_ends = False

    def __init__(
        self,
        devices: Devices,
        *,
        port: int,
        parent_interface: str | None,
        sender: Host | None = None,
        guard: Guard | None = None,
    ) -> None:
        """Make tunnels of this node.

        Without `parent_interface` they have no lower device. `sender` is the node's address that
        they send from, None for the kernel's choice. `guard` lets their frames pass.
        """
        self._devices = devices
        self._port = port
        self._parent_interface = parent_interface
        self._sender = sender
        self._guard = guard

    def read(self, link: LinkMessage) -> FoundVxlan:
        return FoundVxlan(*tunnel.read(link.data), link.is_plugged)

    def is_same(self, here: Site, there: Site | None) -> bool:  # noqa: ARG002 - see `Kind`
        medium = _medium(here)
        found = None if here.found is None else here.found.details
        if not isinstance(found, FoundVxlan) or found.remote is None:
            return False
        # The kernel changes both addresses in place, but not a VNI, a port or a family.
        wanted = (medium.vni, self._port, self._lower())
        return (
            wanted == (found.vni, found.port, found.lower)
            and found.remote.version == medium.remote.version
        )

    def adjustments(self, here: Site) -> tuple[Setting, ...]:
        found = None if here.found is None else here.found.details
        if not isinstance(found, FoundVxlan):
            return ()
        medium = _medium(here)
        local = self._local(medium.remote)
        sender: tuple[Setting, ...] = ()
        if local != found.local:
            none = Host(bytes(len(medium.remote.packed)))
            # The kernel keeps the sender with its route to a far node, until it has another one.
            sender = (SetLocal(local or none), SetRemote(none))
        is_right = found.remote == medium.remote and not sender
        if here.wanted.is_pulled:
            out = (Unplug(),) if found.is_plugged else ()
            return out if is_right else (*out, *sender, SetRemote(medium.remote))
        if is_right:
            return () if found.is_plugged else (Plug(),)
        # Pulled out first: with the carrier go the neighbours that were at the other node.
        out = (Unplug(),) if found.is_plugged else ()
        return (*out, *sender, SetRemote(medium.remote), Plug())

    def unplugging(self, found: Found) -> tuple[Setting, ...]:
        details = found.details
        return (Unplug(),) if isinstance(details, FoundVxlan) and details.is_plugged else ()

    def make(self, here: Site, there: Site | None) -> None:  # noqa: ARG002 - see `Kind`
        medium = _medium(here)
        message = self._devices.new(here.namespace, here.wanted)
        lower, local = self._lower(), self._local(medium.remote)
        if lower is None and here.wanted.mtu_bytes is None:
            # Without a lower device the kernel takes 1,500 bytes, whatever fits.
            message += rtnetlink.mtu_attribute(self._mtu_towards(medium.remote))
        ports = None if self._guard is None else self._guard.ports
        message += tunnel.new(medium.vni, medium.remote, lower, self._port, local, ports)
        code = self._devices.make(message)
        ifname = here.wanted.ifname
        if code == errno.EEXIST and index_of(here.namespace.netlink, ifname) is None:
            raise VniInUseError(medium.vni, self._is_visible(medium.vni))
        what = f"make vxlan {ifname} with VNI {medium.vni} to {medium.remote}"
        must(f"{what} in {here.namespace.path}", code)

    def admit(self, here: Site) -> None:
        medium = _medium(here)
        if self._guard is not None:
            self._guard.admit((self._port, medium.vni), medium.remote)

    def dismiss(self, found: Found, *, is_removed: bool) -> None:
        details = found.details
        if self._guard is None or not isinstance(details, FoundVxlan):
            return
        if details.port is not None and details.vni is not None:
            tunnel = details.port, details.vni
            if is_removed:
                self._guard.forget(tunnel)
            else:
                self._guard.admit(tunnel, None)

    def settle(self, here: Site, there: Site | None) -> None:
        """Do nothing: a tunnel's end has its carrier at once."""

    def _local(self, remote: Host) -> Host | None:
        one = self._sender
        return one if one is not None and one.version == remote.version else None

    def _lower(self) -> int | None:
        """Return the index of the node's interface under the tunnels. *Raises* KernelError."""
        if self._parent_interface is None:
            return None
        index = index_of(self._devices.node, self._parent_interface)
        if index is None:
            raise KernelError(
                f"find parent_interface {self._parent_interface!r}",
                "this node has no interface of that name",
            )
        return index

    def _mtu_towards(self, remote: Host) -> int:
        """Return what fits into a tunnel by the device of its route. *Raises* KernelError."""
        node = self._devices.node
        what = f"find the route to {remote}"
        try:
            answers = node.get(_RTM_GETROUTE, rtnetlink.route_to(remote))
            oif = rtnetlink.route_device(answers[0])
            link = node.get(RTM_GETLINK, rtnetlink.interface(oif))
        except (OSError, IndexError) as error:
            raise KernelError(what, str(error)) from error
        overhead = _OVERHEAD_BYTES[remote.version]
        return rtnetlink.read_link(link[0]).mtu_bytes - overhead

    def _is_visible(self, vni: int) -> bool:
        """Say whether a device in the node's own namespace has the VNI."""
        for answer in self._devices.node.dump(RTM_GETLINK, rtnetlink.every_link()):
            link = rtnetlink.read_link(answer)
            if link.kind == self.name:
                found = self.read(link)
                if found.vni == vni and found.port == self._port:
                    return True
        return False


def _medium(site: Site) -> Vxlan:
    medium = site.wanted.medium
    assert isinstance(medium, Vxlan), "the kind is chosen by the medium"  # noqa: S101 - see `Kind`
    return medium
