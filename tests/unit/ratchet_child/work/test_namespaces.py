"""A namespace whose pod has gone is cleaned so that an end may come at any moment."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ratchet.errors import KernelError
from ratchet_child.kernel.devices import Devices
from ratchet_child.kernel.kinds.api import Kind
from ratchet_child.kernel.netns import Namespace, Namespaces
from ratchet_child.model.clock import SystemClock
from ratchet_child.model.interfaces import Found, Label
from ratchet_child.model.keys import PodKey, Published
from ratchet_child.pods.state import Gone, PodState
from ratchet_child.work.namespaces import PodNamespaces
from ratchet_child.work.panel import Panel

POD = PodKey("default", "a")
FAR = PodKey("default", "b")


class Kernel:
    """What is asked of a namespace with two interfaces: a tunnel's end, and then a leg."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.interfaces = [
            Found("in1", 1, "vxlan", ours=True, up=True, label=Label("in1", "a:in1")),
            Found("in2", 2, "veth", ours=True, up=True, label=Label("in2", "a:in2")),
        ]

    def found(self, _namespace: object) -> list[Found]:
        return self.interfaces

    def remove(self, _namespace: object, index: int) -> None:
        self.done.append(f"remove {index}")

    def set_down(self, _namespace: object, index: int) -> None:
        self.done.append(f"down {index}")


class Keeper:
    def __init__(self) -> None:
        self.names: list[str] = []

    def keep(self, name: str, _fd: int) -> None:
        self.names.append(name)

    def drop(self, name: str) -> None:
        self.names.remove(name)

    def kept(self) -> dict[str, int]:
        return {}


class Opened:
    identity = (1, 2)
    fd = 9
    is_closed = False

    def close(self) -> None:
        self.is_closed = True


def far_pod() -> PodState:
    """Return the pod at the other end of the leg, which is there."""
    state = PodState(FAR, deque(), SystemClock())
    state.inside.given["in2"] = cast(Any, SimpleNamespace(label=Label("in2", "a:in2")))
    return state


@pytest.mark.parametrize("is_ending", [False, True], ids=["to its end", "interrupted"])
def test_legs_are_parked_before_anything_is_removed(is_ending: bool) -> None:
    """What was not parked goes with the namespace, and the end of a pod that lives with it."""
    kernel, keeper, opened = Kernel(), Keeper(), Opened()

    def must_go_on() -> None:
        if is_ending:
            raise KernelError("go on", "this child ends")

    devices = cast(Devices, kernel)
    kinds = {
        "veth": cast(Kind, SimpleNamespace(makes_both_ends=True, dismiss=lambda *_, **__: None)),
        "vxlan": cast(Kind, SimpleNamespace(makes_both_ends=False, dismiss=lambda *_, **__: None)),
    }
    panel = Panel(devices, keeper, cast(Any, None), cast(Any, None))
    far = far_pod()
    spaces = PodNamespaces(devices, kinds, cast(Namespaces, None), panel, lambda _: far, must_go_on)
    state = PodState(POD, deque(), SystemClock())
    state.inside.namespace, state.inside.opened = cast(Namespace, opened), "c1"
    gone = Gone("c1", Published("c1", (("b", "in2"),)), "10.0.0.1", None, None)
    if is_ending:
        with pytest.raises(KernelError):
            spaces.clean(gone, state, set())
        assert kernel.done == ["down 2"]
    else:
        spaces.clean(gone, state, set())
        assert kernel.done == ["down 2", "remove 1"]
    assert keeper.names == ["leg default a:in2 2"]
    assert not opened.is_closed  # the leg waits in it
    assert not state.is_open()
