"""An uplink to what one of the node's interfaces is connected with: a macvlan in bridge mode.

The pod has a MAC address of its own on that network, and reaches other pods' macvlans of the same
interface directly. It does not reach the node itself: that is what macvlan is like.
"""

from __future__ import annotations

from ratchet.cni.dataclasses import dataclass
from ratchet.errors import KernelError
from ratchet_child.kernel import rtnetlink
from ratchet_child.kernel.devices import Devices, index_of, must
from ratchet_child.kernel.kinds.api import Site
from ratchet_child.kernel.rtnetlink import LinkMessage
from ratchet_child.model.interfaces import Found, Macvlan, Plug, Setting, Unplug


@dataclass(frozen=True, slots=True)
class FoundMacvlan:
    """A macvlan: `lower` is the index of the node's interface below it."""

    lower: int | None
    mode: int | None
    is_plugged: bool = True


class MacvlanKind:
    """A `Kind`."""

    name = "macvlan"
    makes_both_ends = False

    def __init__(self, devices: Devices) -> None:
        self._devices = devices

    def read(self, link: LinkMessage) -> FoundMacvlan:
        return FoundMacvlan(link.link, rtnetlink.macvlan_mode(link.data), link.is_plugged)

    def is_same(self, here: Site, there: Site | None) -> bool:  # noqa: ARG002 - see `Kind`
        found = None if here.found is None else here.found.details
        if not isinstance(found, FoundMacvlan):
            return False
        return (found.lower, found.mode) == (self._lower(here), rtnetlink.BRIDGE_MODE)

    def adjustments(self, here: Site) -> tuple[Setting, ...]:
        found = None if here.found is None else here.found.details
        return () if not isinstance(found, FoundMacvlan) or found.is_plugged else (Plug(),)

    def unplugging(self, found: Found) -> tuple[Setting, ...]:
        details = found.details
        return (Unplug(),) if isinstance(details, FoundMacvlan) and details.is_plugged else ()

    def make(self, here: Site, there: Site | None) -> None:  # noqa: ARG002 - see `Kind`
        message = self._devices.new(here.namespace, here.wanted)
        message += rtnetlink.macvlan(self._lower(here))
        what = f"make macvlan {here.wanted.ifname} of {_medium(here).device}"
        must(f"{what} in {here.namespace.path}", self._devices.make(message))

    def admit(self, here: Site) -> None:
        """Do nothing: its frames meet no guard."""

    def dismiss(self, found: Found, *, is_removed: bool) -> None:
        """Do nothing: its frames meet no guard."""

    def settle(self, here: Site, there: Site | None) -> None:  # noqa: ARG002 - see `Kind`
        self._devices.settle(here.namespace, here.ifname)

    def _lower(self, here: Site) -> int:
        """Return the index of the node's interface. *Raises* KernelError."""
        device = _medium(here).device
        index = index_of(self._devices.node, device)
        if index is None:
            raise KernelError(
                f"make macvlan {here.wanted.ifname}",
                f"this node has no interface {device}, which the link's device names",
            )
        return index


def _medium(site: Site) -> Macvlan:
    medium = site.wanted.medium
    assert isinstance(medium, Macvlan), "the kind is chosen by the medium"  # noqa: S101 - see `Kind`
    return medium
