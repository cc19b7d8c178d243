"""What every kind of interface can be asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ratchet.cni.dataclasses import dataclass
from ratchet_child.kernel.netns import Namespace
from ratchet_child.kernel.rtnetlink import LinkMessage
from ratchet_child.model.interfaces import Found, Interface, Setting


class VniInUseError(Exception):
    """Another vxlan device that this node's namespace has made uses the VNI and port.

    `visible`: it is in the node's own namespace, so it belongs to somebody else for sure. If not,
    it may be ours, in a namespace that is being taken down.
    """

    def __init__(self, vni: int, visible: bool) -> None:
        super().__init__(f"VNI {vni} is in use on this node")
        self.vni = vni
        self.visible = visible


@dataclass(frozen=True, slots=True)
class Site:
    """Where an interface is to be: the namespace, what it should be, and what is there now."""

    namespace: Namespace
    wanted: Interface
    found: Found | None

    @property
    def ifname(self) -> str:
        """The name of the interface in its namespace, which the pod may have changed."""
        return self.wanted.ifname if self.found is None else self.found.ifname


class Kind(Protocol):
    """One kind of interface.

    `makes_both_ends`: the kernel makes both ends of the cable at once, and both are in pods.
    Such a kind is given both sites; any other one is given None as the far site.
    """

    name: str  # IFLA_INFO_KIND, but for a host's end, which is a veth
    makes_both_ends: bool

    def read(self, link: LinkMessage) -> object:
        """Return what this kind has to know of an interface of its own; see `Found.details`."""

    def is_same(self, here: Site, there: Site | None) -> bool:
        """Say whether what was found is the wanted interface, up to what can be changed on it.

        *Raises* KernelError.
        """

    def adjustments(self, here: Site) -> tuple[Setting, ...]:
        """Return what plugs the cable in, of an interface that is the wanted one."""

    def unplugging(self, found: Found) -> tuple[Setting, ...]:
        """Return what pulls the cable out of an interface, if it is not out already."""

    def make(self, here: Site, there: Site | None) -> None:
        """Make the interface, where nothing has its name. *Raises* KernelError or VniInUseError."""

    def admit(self, here: Site) -> None:
        """Have the node let the cable's frames pass. It is not plugged in before.

        *Raises* KernelError. *Safe to call twice.*
        """

    def dismiss(self, found: Found, *, is_removed: bool) -> None:
        """Have the node let no frame pass of an interface that was unplugged or removed.

        *Raises* KernelError. *Safe to call twice.*
        """

    def settle(self, here: Site, there: Site | None) -> None:
        """Do what is left to do once the interface is up."""


def removed(kinds: Mapping[str, Kind], found: Found) -> None:
    """Have the node let no frame pass of an interface that was removed, of whatever kind."""
    kind = kinds.get(found.kind or "")
    if kind is not None:
        kind.dismiss(found, is_removed=True)
