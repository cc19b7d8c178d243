"""The kernel of the model: namespaces with interfaces, as `ratchet_child.work.ends` sees them.

Interfaces outlive the processes that made them, a veth goes with its far end, a VNI can be used
once by each node, and a namespace takes its interfaces with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ratchet.cni.ip import Address, Host
from ratchet.errors import KernelError
from ratchet.netns import Identity
from ratchet_child.kernel.devices import Applied
from ratchet_child.kernel.kinds.api import VniInUseError
from ratchet_child.model.interfaces import (
    AddAddress,
    Found,
    HandOver,
    Label,
    Plug,
    RemoveAddress,
    SetLocal,
    SetMtu,
    SetRemote,
    Setting,
    Unplug,
)


@dataclass(slots=True, eq=False)
class Device:
    ifname: str
    index: int
    kind: str
    node: str  # whose kernel socket or veth it is
    up: bool = False
    addresses: set[Address] = field(default_factory=set)
    far: tuple[Space, str] | None = None
    vni: int | None = None
    remote: Host | None = None
    mtu_bytes: int = 1500
    label: Label | None = None
    is_plugged: bool = True

    @property
    def has_carrier(self) -> bool:
        """Whether a frame can go out: a veth needs the other leg, a tunnel its plug."""
        if self.far is not None:
            space, ifname = self.far
            return self.up and space.devices[ifname].up
        return self.up and self.is_plugged


@dataclass(slots=True, eq=False)
class Space:
    """A network namespace."""

    path: str
    number: int
    node: str
    devices: dict[str, Device] = field(default_factory=dict)
    holders: int = 0


class Spaces:
    """All namespaces that exist, by path."""

    def __init__(self) -> None:
        self.by_path: dict[str, Space] = {}
        self._number = 10
        self.held: dict[int, Space] = {}  # namespaces without a path that somebody holds open
        self.news: list[tuple[Space, int, bool]] = []  # interface and whether it has gone

    def add(self, path: str, node: str) -> None:
        self._number += 1
        self.by_path[path] = Space(path, self._number, node)

    def remove(self, path: str) -> None:
        """*Safe to call twice.* A namespace that is held open lives on."""
        space = self.by_path.pop(path, None)
        if space is not None:
            self.release(space)

    def release(self, space: Space) -> None:
        """A namespace goes when it has neither a path nor a holder."""
        if space.holders == 0 and self.by_path.get(space.path) is not space:
            for ifname in list(space.devices):
                self.drop(space, ifname)

    def drop(self, space: Space, ifname: str) -> None:
        device = space.devices.pop(ifname, None)
        if device is None:
            return
        self.news.append((space, device.index, True))
        if device.far is not None:
            far_space, far_ifname = device.far
            far = far_space.devices.pop(far_ifname, None)
            if far is not None:
                self.news.append((far_space, far.index, True))

    def all(self) -> list[Space]:
        """Every namespace that exists, with or without a path."""
        return [*self.by_path.values(), *self.held.values()]

    def next_index(self) -> int:
        self._number += 1
        return self._number

    def uses(self, node: str, vni: int) -> bool:
        return any(
            device.vni == vni and device.node == node
            for space in self.all()
            for device in space.devices.values()
        )


class Namespace:
    """An open namespace, as `ratchet_child.netns.Namespace`."""

    def __init__(self, spaces: Spaces, path: str) -> None:
        self.path = path
        self.fd = 9
        self.space = spaces.by_path[path]
        self.identity = (0, self.space.number)
        self._spaces = spaces
        self.space.holders += 1
        spaces.held[id(self.space)] = self.space

    def is_current(self) -> bool:
        return self._spaces.by_path.get(self.path) is self.space

    def close(self) -> None:
        if self.fd < 0:
            return
        self.fd = -1
        self.space.holders -= 1
        if not self.space.holders:
            del self._spaces.held[id(self.space)]
            self._spaces.release(self.space)


class Monitor:
    """The model tells the engine of lost interfaces itself."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace

    def close(self) -> None:
        pass


class Namespaces:
    """A machine's namespaces, as `ratchet_child.kernel.netns.Namespaces`."""

    def __init__(self, spaces: Spaces) -> None:
        self._spaces = spaces

    def exist(self, path: str, known: Identity | None) -> bool:
        return path in self._spaces.by_path

    def open(self, path: str, known: Identity | None) -> Namespace:
        return Namespace(self._spaces, path)

    def make(self) -> Namespace:
        """No container lives on after its DEL here, so that no leg needs another place."""
        raise AssertionError("a namespace was made")

    def monitor(self, namespace: Namespace) -> Monitor:
        return Monitor(namespace)


class Kernel:
    """One node's `ratchet_child.kernel.devices.Devices`. `before` is called ahead of a change."""

    def __init__(self, spaces: Spaces, node: str, before: Callable[[], None]) -> None:
        self.spaces = spaces
        self.node = node
        self.before = before
        self.foreign_vnis: set[int] = set()

    def close(self) -> None:
        pass

    def kinds(self) -> dict[str, Any]:
        return {"veth": _VethKind(self), "vxlan": _VxlanKind(self)}

    def found(self, namespace: Namespace) -> list[Found]:
        return [_found(device) for device in namespace.space.devices.values()]

    def find(self, namespace: Namespace, which: str | int) -> Found | None:
        for device in namespace.space.devices.values():
            if which in (device.ifname, device.index):
                return _found(device)
        return None

    def apply(
        self, namespace: Namespace, ifname: str, settings: Iterable[Setting], index: int | None
    ) -> Applied:
        self.before()
        device = namespace.space.devices[ifname]
        for one in settings:
            match one:
                case HandOver():
                    device.up, device.label = True, one.label
                case AddAddress():
                    device.addresses.add(one.address)
                case RemoveAddress():
                    device.addresses.discard(one.address)
                case SetMtu():
                    device.mtu_bytes = one.mtu_bytes
                case SetRemote():
                    device.remote = one.remote
                case SetLocal():
                    pass
                case Plug():
                    device.is_plugged = True
                case Unplug():
                    device.is_plugged = False
        return Applied(device.index)

    def set_down(self, namespace: Namespace, index: int) -> None:
        self.before()
        self._device(namespace, index).up = False

    def move(
        self, here: Namespace, index: int, there: Namespace, ifname: str, mac: str | None = None
    ) -> None:
        self.before()
        device = self._device(here, index)
        assert ifname not in there.space.devices
        del here.space.devices[device.ifname]
        device.ifname, device.label, device.addresses = ifname, None, set()
        device.up, device.index = False, self.spaces.next_index()
        there.space.devices[ifname] = device
        assert device.far is not None
        far_space, far_ifname = device.far
        far_space.devices[far_ifname].far = (there.space, ifname)

    def remove(self, namespace: Namespace, index: int) -> None:
        self.before()
        for device in list(namespace.space.devices.values()):
            if device.index == index:
                self.spaces.drop(namespace.space, device.ifname)

    def moved_away(
        self, namespace: Namespace, besides: Namespace | None = None
    ) -> list[tuple[int, Found]]:
        """No pod moves interfaces here."""
        return []

    def remove_elsewhere(self, namespace: Namespace, nsid: int, index: int, ifname: str) -> None:
        """No pod moves interfaces here."""

    def _device(self, namespace: Namespace, index: int) -> Device:
        for device in namespace.space.devices.values():
            if device.index == index:
                return device
        raise KernelError(f"use interface {index}", "it has gone")


class _VethKind:
    name = "veth"
    makes_both_ends = True

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def is_same(self, here: Any, there: Any) -> bool:
        device = here.namespace.space.devices[here.wanted.ifname]
        return bool(device.far == (there.namespace.space, there.wanted.ifname))

    def adjustments(self, here: Any) -> tuple[Setting, ...]:
        return ()

    def unplugging(self, found: Found) -> tuple[Setting, ...]:
        return ()

    def make(self, here: Any, there: Any) -> None:
        kernel = self._kernel
        kernel.before()
        for site, far in ((here, there), (there, here)):
            space, ifname = site.namespace.space, site.wanted.ifname
            assert ifname not in space.devices
            space.devices[ifname] = Device(
                ifname,
                kernel.spaces.next_index(),
                "veth",
                kernel.node,
                far=(far.namespace.space, far.wanted.ifname),
            )

    def admit(self, here: Any) -> None:
        """There is no guard here."""

    def dismiss(self, found: Found, *, is_removed: bool) -> None:
        """The same."""

    def settle(self, here: Any, there: Any) -> None:
        """Carriers come at once here."""


class _VxlanKind:
    name = "vxlan"
    makes_both_ends = False

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def is_same(self, here: Any, there: Any) -> bool:
        found, medium = here.found, here.wanted.medium
        return found.details is not None and bool(found.details[0] == medium.vni)

    def adjustments(self, here: Any) -> tuple[Setting, ...]:
        _, remote, is_plugged = here.found.details
        wanted = here.wanted.medium.remote
        moved = () if remote == wanted else (SetRemote(wanted),)
        return moved if is_plugged else (*moved, Plug())

    def unplugging(self, found: Found) -> tuple[Setting, ...]:
        details: Any = found.details
        return (Unplug(),) if details[2] else ()

    def make(self, here: Any, there: Any) -> None:
        kernel, space, wanted = self._kernel, here.namespace.space, here.wanted
        vni = wanted.medium.vni
        kernel.before()
        assert wanted.ifname not in space.devices
        if vni in kernel.foreign_vnis:
            raise VniInUseError(vni, visible=True)
        if kernel.spaces.uses(kernel.node, vni):
            raise VniInUseError(vni, visible=False)
        space.devices[wanted.ifname] = Device(
            wanted.ifname,
            kernel.spaces.next_index(),
            "vxlan",
            kernel.node,
            vni=vni,
            remote=wanted.medium.remote,
        )

    def admit(self, here: Any) -> None:
        """There is no guard here."""

    def dismiss(self, found: Found, *, is_removed: bool) -> None:
        """The same."""

    def settle(self, here: Any, there: Any) -> None:
        """A tunnel's end has its carrier at once."""


def _found(device: Device) -> Found:
    return Found(
        ifname=device.ifname,
        index=device.index,
        kind=device.kind,
        ours=True,
        up=device.up,
        addresses=frozenset(device.addresses),
        given=frozenset(device.addresses),
        mtu_bytes=device.mtu_bytes,
        label=device.label,
        details=(device.vni, device.remote, device.is_plugged) if device.kind == "vxlan" else None,
    )
