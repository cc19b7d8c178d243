"""The kernel of the model: namespaces with interfaces, as `ratchet_child.ends` sees them.

Interfaces outlive the processes that made them, a veth goes with its far end, a VNI can be used
once by each node, and a namespace takes its interfaces with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ratchet.cni.ip import Address, Host
from ratchet_child.kernel.devices import VniInUseError
from ratchet_child.model.plan import Found

PORT = 4789
LOWER = 2


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


class Kernel:
    """One node's `ratchet_child.kernel.devices.Devices`. `before` is called ahead of a change."""

    def __init__(self, spaces: Spaces, node: str, before: Callable[[], None]) -> None:
        self._spaces = spaces
        self._node = node
        self._before = before
        self.foreign_vnis: set[int] = set()

    def close(self) -> None:
        pass

    def lower(self, ifname: str) -> int:
        return LOWER

    def found(self, namespace: Namespace) -> dict[str, Found]:
        return {ifname: _found(device) for ifname, device in namespace.space.devices.items()}

    def find(self, namespace: Namespace, ifname: str) -> Found | None:
        device = namespace.space.devices.get(ifname)
        return None if device is None else _found(device)

    def are_joined(self, a: Namespace, end_a: Found, b: Namespace, end_b: Found) -> bool:
        return a.space.devices[end_a.ifname].far == (b.space, end_b.ifname)

    def make_veth(
        self,
        a: Namespace,
        ifname_a: str,
        address_a: Address | None,
        _mac_a: str,
        b: Namespace,
        ifname_b: str,
        address_b: Address | None,
        _mac_b: str,
    ) -> None:
        self._before()
        assert ifname_a not in a.space.devices and ifname_b not in b.space.devices
        for space, ifname, far in (
            (a.space, ifname_a, (b.space, ifname_b)),
            (b.space, ifname_b, (a.space, ifname_a)),
        ):
            space.devices[ifname] = Device(
                ifname, self._spaces.next_index(), "veth", self._node, far=far
            )
        self.finish(a, ifname_a, address_a)
        self.finish(b, ifname_b, address_b)

    def make_vxlan(
        self,
        namespace: Namespace,
        ifname: str,
        address: Address | None,
        _mac: str,
        vni: int,
        remote: Host,
        lower_index: int,
    ) -> None:
        self._before()
        assert ifname not in namespace.space.devices and lower_index == LOWER
        if vni in self.foreign_vnis:
            raise VniInUseError(vni, visible=True)
        if self._spaces.uses(self._node, vni):
            raise VniInUseError(vni, visible=False)
        namespace.space.devices[ifname] = Device(
            ifname, self._spaces.next_index(), "vxlan", self._node, vni=vni, remote=remote
        )
        self.finish(namespace, ifname, address)

    def settle(self, namespace: Namespace, ifname: str) -> None:
        """Carriers come at once here."""

    def finish(self, namespace: Namespace, ifname: str, address: Address | None) -> None:
        self._before()
        device = namespace.space.devices[ifname]
        device.up = True
        if address is not None:
            device.addresses.add(address)

    def remove(self, namespace: Namespace, ifname: str) -> None:
        self._before()
        self._spaces.drop(namespace.space, ifname)


def _found(device: Device) -> Found:
    return Found(
        ifname=device.ifname,
        index=device.index,
        kind=device.kind,
        ours=True,
        up=device.up,
        addresses=frozenset(device.addresses),
        vni=device.vni,
        remote=device.remote,
        port=PORT if device.kind == "vxlan" else None,
        lower=LOWER if device.kind == "vxlan" else None,
    )
