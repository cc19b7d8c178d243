"""A short run of the fuzzing, and the proof that its checks can fail.

`make fuzz` is the long run, with a new seed each time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ratchet import boot, docker, kubeconfig, label_values, labels, links, log, messages, pods
from ratchet.cni import codec, invoke, result, skel
from ratchet.config import Config
from ratchet.errors import PodUnknownError
from ratchet.undo import Undo
from ratchet_child.pairing import v010
from ratchet_child.store import answers
from tests.fuzz.mutate import Mutator
from tests.fuzz.runner import BrokenError, Target, run
from tests.fuzz.targets import TARGETS

SEED = 1
SECONDS = {"parser": 0.3, "request": 1.5, "process": 1.0, "etcd": 1.0, "child": 3.0}
BY_NAME = {one.name: one for one in TARGETS}


def with_marks(one: Target) -> Any:
    return pytest.param(one, id=one.name, marks=[pytest.mark.root] if one.kind == "child" else [])


@pytest.mark.parametrize("one", [with_marks(one) for one in TARGETS])
def test_hostile_input_does_no_harm(one: Target) -> None:
    if one.kind == "child" and shutil.which("etcd") is None:
        if os.environ.get("RATCHET_REQUIRE_ROOT") == "1":
            pytest.fail("no program etcd")
        pytest.skip("no program etcd")
    # A parser's seconds are those of the processor: beside other tests it gets as many inputs.
    clock = time.thread_time if one.kind == "parser" else time.monotonic
    report = run(one, seed=SEED, inputs=10**6, seconds=SECONDS[one.kind], clock=clock)
    assert report.inputs


@pytest.mark.parametrize("one", TARGETS, ids=lambda one: one.name)
def test_input_is_a_function_of_seed_and_number(one: Target) -> None:
    def made(seed: int) -> list[str]:
        return [repr(one.make(Mutator(Random(f"{seed}/{one.name}/{n}")))) for n in range(30)]

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_an_engine_whose_answer_has_no_end_is_cut_off(tmp_path: Path) -> None:
    """A chunk of the length -1 is read to the end of the connection, which never comes."""
    path = str(tmp_path / "docker.sock")
    sent = 0

    def serve() -> None:
        nonlocal sent
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n")
            while sent < 10 * docker.MAX_RECEIVED_BYTES:
                sent += connection.send(bytes(1 << 16))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(PodUnknownError):
            docker.read_container(path, "c1", 5.0)
        server.join()
    assert sent < 2 * docker.MAX_RECEIVED_BYTES


# The checks must be able to fail


def pass_through(value: Any, *_: Any, **__: Any) -> Any:
    return value


def nothing(*_: Any, **__: Any) -> None:
    pass


SABOTAGE: tuple[tuple[str, object, str, Any], ...] = (
    ("json", codec, "_finite", float),
    ("json", codec, "_is_too_deep", lambda _: False),
    ("result", result, "_address", lambda obj, key: obj.get(key)),
    ("environment", skel, "_check_attachment", nothing),
    ("environment", skel, "error", lambda exc, spoken: str(exc).encode()),
    ("cni-args", pods, "is_kubernetes_name", lambda _: True),
    ("find-pod", pods, "_words", pass_through),
    ("labels", label_values, "check_ifname", nothing),
    ("labels", labels, "_check_together", nothing),
    ("label-address", label_values, "_IPV4_PREFIX_LEN", 25),
    ("kubeconfig", kubeconfig, "_server", lambda cluster: cluster.text("server", needed=True)),
    ("engine-answer", docker, "is_namespace", lambda _: True),
    ("configuration", Config, "settings", lambda _: {}),
    ("declaration", links, "is_new_ifname", lambda _: True),
    ("association", v010, "is_new_ifname", lambda _: True),
    ("child-request", messages, "shown", repr),
    ("log-line", log, "_quoted", pass_through),
    ("request", Undo, "__exit__", nothing),
    ("request", boot, "require", lambda *_: 1 / 0),
    ("lying-plugin", invoke, "_failure", lambda *_: 1 / 0),
    ("lying-etcd", answers, "number", pass_through),
)


@pytest.mark.parametrize(
    ("name", "owner", "attribute", "instead"),
    SABOTAGE,
    ids=[f"{name} {attribute}" for name, _, attribute, _ in SABOTAGE],
)
def test_a_broken_product_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    owner: object,
    attribute: str,
    instead: Callable[..., Any],
) -> None:
    monkeypatch.setattr(owner, attribute, instead)
    with pytest.raises(BrokenError) as broken:
        run(BY_NAME[name], seed=SEED, inputs=4000)
    number = str(broken.value).split("--start ")[1].split()[0]
    with pytest.raises(BrokenError):  # the one input is enough to see it again
        run(BY_NAME[name], seed=SEED, start=int(number), inputs=1)
