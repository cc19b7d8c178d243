"""An uplink to the node itself: a veth pair with one end in the node's own namespace (veth(4)).

Both ends are made in one message, and both carry Ratchet's mark. The end at the node is up and has
its address before the pod's end is handed over; after that it is the node's administrator's.
"""

from __future__ import annotations

import errno

from ratchet.errors import KernelError
from ratchet_child.kernel import rtnetlink
from ratchet_child.kernel.devices import (
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    Devices,
    must,
)
from ratchet_child.kernel.kinds.api import Site
from ratchet_child.kernel.kinds.veth import FoundVeth
from ratchet_child.kernel.netns import NLM_F_CREATE
from ratchet_child.kernel.rtnetlink import MARK, LinkMessage
from ratchet_child.model.interfaces import Found, HostVeth, Setting


class HostKind:
    """A `Kind`. To the kernel it is a veth, so that is who reads it."""

    name = "host"
    makes_both_ends = False

    def __init__(self, devices: Devices) -> None:
        self._devices = devices

    def read(self, link: LinkMessage) -> FoundVeth:
        return FoundVeth(link.link, link.link_nsid)

    def is_same(self, here: Site, there: Site | None) -> bool:  # noqa: ARG002 - see `Kind`
        """Say whether the far end is the node's interface, with the address that it should have."""
        found = None if here.found is None else here.found.details
        if here.found is None or not isinstance(found, FoundVeth):
            return False
        end = self._end(_medium(here).device)
        if end is None or (end.index, end.link) != (found.peer_index, here.found.index):
            return False
        address = _medium(here).device_address
        return address is None or address in self._addresses(end.index)

    def adjustments(self, here: Site) -> tuple[Setting, ...]:  # noqa: ARG002 - see `Kind`
        return ()

    def unplugging(self, found: Found) -> tuple[Setting, ...]:  # noqa: ARG002 - see `Kind`
        return ()

    def make(self, here: Site, there: Site | None) -> None:  # noqa: ARG002 - see `Kind`
        device = _medium(here).device
        what = f"make {here.wanted.ifname} in {here.namespace.path} with {device} at the node"
        message = self._devices.new(here.namespace, here.wanted)
        message += rtnetlink.veth(rtnetlink.new_here(device, MARK))
        code = self._devices.make(message)
        if code == errno.EEXIST and self._end(device) is not None:
            raise KernelError(what, f"this node has an interface {device} already")
        must(what, code)
        self._hand_over(here)

    def admit(self, here: Site) -> None:
        """Do nothing: its frames meet no guard."""

    def dismiss(self, found: Found, *, is_removed: bool) -> None:
        """Do nothing: its frames meet no guard."""

    def settle(self, here: Site, there: Site | None) -> None:  # noqa: ARG002 - see `Kind`
        # Once more: a child may have been killed between the two ends.
        self._hand_over(here)
        self._devices.settle(here.namespace, here.ifname)

    def _hand_over(self, here: Site) -> None:
        """Bring the node's end up, with its address. *Raises* KernelError. *Safe to call twice.*"""
        medium = _medium(here)
        end = self._end(medium.device)
        if end is None:
            raise KernelError(f"bring up {medium.device} at the node", "it has gone")
        requests = [(RTM_NEWLINK, 0, rtnetlink.up(end.index, str(here.wanted.label)))]
        if here.wanted.mtu_bytes is not None:
            requests.append((RTM_NEWLINK, 0, rtnetlink.mtu(end.index, here.wanted.mtu_bytes)))
        codes = self._devices.node.request(*requests)
        must(f"bring up {medium.device} at the node", codes[0])
        if medium.device_address is not None:
            body = rtnetlink.address(end.index, medium.device_address)
            code = self._devices.node.request((RTM_NEWADDR, NLM_F_CREATE, body))[0]
            if code != errno.EEXIST:
                must(f"give {medium.device} at the node {medium.device_address}", code)

    def _end(self, device: str) -> LinkMessage | None:
        """Return the node's interface of that name."""
        try:
            answers = self._devices.node.get(RTM_GETLINK, rtnetlink.link_named(device))
        except OSError:
            return None
        return rtnetlink.read_link(answers[0])

    def _addresses(self, index: int) -> set[object]:
        answers = self._devices.node.dump(RTM_GETADDR, rtnetlink.every_address())
        found = (rtnetlink.read_address(answer) for answer in answers)
        return {one.address for one in found if one is not None and one.index == index}


def _medium(site: Site) -> HostVeth:
    medium = site.wanted.medium
    assert isinstance(medium, HostVeth), "the kind is chosen by the medium"  # noqa: S101 - see `Kind`
    return medium
