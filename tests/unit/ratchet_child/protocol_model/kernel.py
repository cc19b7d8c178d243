"""The kernel of the model: namespaces with interfaces, as `ratchet_child.work.ends` sees them.

Interfaces outlive the processes that made them, a veth goes with its far end, a VNI can be used
once by each node, and a namespace takes its interfaces with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ratchet.cni.ip import Address, Host
from ratchet_child.kernel.kinds.api import VniInUseError
from ratchet_child.model.interfaces import (
    AddAddress,
    Found,
    RemoveAddress,
    SetMtu,
    Setting,
    SetUp,
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


@dataclass(slots=True, eq=False)
class Space:
    """A network namespace."""

    path: str
    number: int
    node: str
    devices: dict[str, Device] = field(default_factory=dict)


class Spaces:
    """All namespaces that exist, by path."""

    def __init__(self) -> None:
        self.by_path: dict[str, Space] = {}
        self._number = 10
        self.lost: list[tuple[Space, str]] = []  # interfaces that have gone, not yet told

    def add(self, path: str, node: str) -> None:
        self._number += 1
        self.by_path[path] = Space(path, self._number, node)

    def remove(self, path: str) -> None:
        """*Safe to call twice.*"""
        space = self.by_path.pop(path, None)
        for ifname in list(space.devices) if space is not None else ():
            assert space is not None
            self.drop(space, ifname)

    def drop(self, space: Space, ifname: str) -> None:
        device = space.devices.pop(ifname, None)
        if device is None:
            return
        self.lost.append((space, ifname))
        if device.far is not None:
            far_space, far_ifname = device.far
            if far_space.devices.pop(far_ifname, None) is not None:
                self.lost.append((far_space, far_ifname))

    def next_index(self) -> int:
        self._number += 1
        return self._number

    def uses(self, node: str, vni: int) -> bool:
        return any(
            device.vni == vni and device.node == node
            for space in self.by_path.values()
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

    def is_current(self) -> bool:
        return self._spaces.by_path.get(self.path) is self.space

    def close(self) -> None:
        self.fd = -1


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

    def exist(self, path: str) -> bool:
        return path in self._spaces.by_path

    def open(self, path: str) -> Namespace:
        return Namespace(self._spaces, path)

    def monitor(self, namespace: Namespace) -> Monitor:
        return Monitor(namespace)

    def own_identity(self) -> tuple[int, int]:
        return (0, 0)


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

    def found(self, namespace: Namespace) -> dict[str, Found]:
        return {ifname: _found(device) for ifname, device in namespace.space.devices.items()}

    def find(self, namespace: Namespace, ifname: str) -> Found | None:
        device = namespace.space.devices.get(ifname)
        return None if device is None else _found(device)

    def apply(self, namespace: Namespace, ifname: str, settings: Iterable[Setting]) -> list[str]:
        self.before()
        device = namespace.space.devices[ifname]
        for one in settings:
            match one:
                case SetUp():
                    device.up = True
                case AddAddress():
                    device.addresses.add(one.address)
                case RemoveAddress():
                    device.addresses.discard(one.address)
                case SetMtu():
                    device.mtu_bytes = one.mtu_bytes
        return []

    def remove(self, namespace: Namespace, ifname: str) -> None:
        self.before()
        self.spaces.drop(namespace.space, ifname)


class _VethKind:
    name = "veth"
    makes_both_ends = True

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def is_same(self, here: Any, there: Any) -> bool:
        device = here.namespace.space.devices[here.wanted.ifname]
        return bool(device.far == (there.namespace.space, there.wanted.ifname))

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

    def settle(self, here: Any, there: Any) -> None:
        """Carriers come at once here."""


class _VxlanKind:
    name = "vxlan"
    makes_both_ends = False

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def is_same(self, here: Any, there: Any) -> bool:
        found, medium = here.found, here.wanted.medium
        return bool(found.details == (medium.vni, medium.remote))

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
        details=(device.vni, device.remote) if device.kind == "vxlan" else None,
    )
