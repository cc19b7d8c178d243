"""A cable inside the node: a veth pair with one end in each pod (veth(4)).

Both ends are made where they belong, with their names, in one message. There is nothing to rename
or move, and a crash leaves either nothing or a whole pair.
"""

from __future__ import annotations

from ratchet.cni.dataclasses import dataclass
from ratchet_child.kernel import rtnetlink
from ratchet_child.kernel.devices import RTM_GETNSID, Devices, must
from ratchet_child.kernel.kinds.api import Site
from ratchet_child.kernel.rtnetlink import LinkMessage
from ratchet_child.model.interfaces import Found, Setting


@dataclass(frozen=True, slots=True)
class FoundVeth:
    """Where the far end of a veth interface is: its index, and the number of its namespace."""

    peer_index: int | None
    peer_nsid: int


class VethKind:
    """A `Kind`."""

    name = "veth"
    makes_both_ends = True

    def __init__(self, devices: Devices) -> None:
        self._devices = devices

    def read(self, link: LinkMessage) -> FoundVeth:
        return FoundVeth(link.link, link.link_nsid)

    def is_same(self, here: Site, there: Site | None) -> bool:
        """Say whether the two interfaces are each other's far end."""
        if there is None or here.found is None or there.found is None:
            return False
        one, other = here.found.details, there.found.details
        if not (isinstance(one, FoundVeth) and isinstance(other, FoundVeth)):
            return False
        if one.peer_index != there.found.index or other.peer_index != here.found.index:
            return False
        request = rtnetlink.nsid_of(there.namespace.fd)
        for answer in here.namespace.netlink.get(RTM_GETNSID, request):
            return rtnetlink.read_nsid(answer) == one.peer_nsid
        return False

    def adjustments(self, here: Site) -> tuple[Setting, ...]:  # noqa: ARG002 - see `Kind`
        return ()

    def unplugging(self, found: Found) -> tuple[Setting, ...]:  # noqa: ARG002 - see `Kind`
        """Nothing: the leg at the other end is down."""
        return ()

    def make(self, here: Site, there: Site | None) -> None:
        assert there is not None, "a veth has two ends on this node"  # noqa: S101 - see `Kind`
        far = self._devices.new(there.namespace, there.wanted)
        message = self._devices.new(here.namespace, here.wanted) + rtnetlink.veth(far)
        what = (
            f"make veth {here.wanted.ifname} in {here.namespace.path}"
            f" with {there.wanted.ifname} in {there.namespace.path}"
        )
        must(what, self._devices.make(message))

    def admit(self, here: Site) -> None:
        """Do nothing: the node sees no frame of a veth pair."""

    def dismiss(self, found: Found, *, is_removed: bool) -> None:
        """Do nothing, as above."""

    def settle(self, here: Site, there: Site | None) -> None:
        # The carrier comes with the second end.
        for site in (here, there):
            if site is not None:
                self._devices.settle(site.namespace, site.ifname)
