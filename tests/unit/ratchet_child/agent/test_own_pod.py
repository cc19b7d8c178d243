"""What the agent tells on its own pod, and which checks it begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ratchet import annotations as told
from ratchet.annotations import Asked, Heard, NodeTold
from ratchet.cni.dataclasses import replace
from ratchet_child.agent import own_pod
from ratchet_child.agent.errors import AwayError, ForbiddenError
from ratchet_child.agent.own_pod import OwnPod
from ratchet_child.agent.seen import SeenPods
from tests.unit.ratchet_child.agent.pods import seen

NODE = NodeTold("0.2.0", "net", "10.0.0.1", "eth0", 4789, 1450)
ASKED = Asked("s" * 32, ("10.0.0.2",))


class Server:
    def __init__(self) -> None:
        self.pods = SeenPods()
        self.pods.put(seen({}, has_address=True))
        self.error: Exception | None = None
        self.patches: list[dict[str, str]] = []

    def post(self, path: str, body: Mapping[str, Any], needs: str) -> dict[str, Any]:
        raise AssertionError(path)

    def patch(self, path: str, body: Mapping[str, Any], needs: str) -> dict[str, Any]:
        assert path == "/api/v1/namespaces/default/pods/a/status"
        assert body["metadata"]["uid"] == "u1"
        if self.error is not None:
            raise self.error
        self.patches.append(dict(body["metadata"]["annotations"]))
        return {}

    def shows(self, **values: str) -> None:
        """Have the watch bring the pod with what was written, or asked."""
        pod = self.pods.get("u1")
        assert pod is not None
        self.pods.put(replace(pod, told={**pod.told, **values}))


class FakeCheck:
    begun: list[FakeCheck]

    def __init__(
        self, asked: Asked, address: str, port: int, mtu: int | None, on_end: object
    ) -> None:
        self.number = asked.number
        self.asked, self.address, self.port, self.mtu = asked, address, port, mtu
        self.result: Heard | None = None
        FakeCheck.begun.append(self)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def own(server: Server, monkeypatch: pytest.MonkeyPatch) -> OwnPod:
    FakeCheck.begun = []
    monkeypatch.setattr(own_pod, "Check", FakeCheck)
    return OwnPod("u1", server, server.pods, lambda: None)


def test_the_node_is_told_once(own: OwnPod, server: Server) -> None:
    own.tell(NODE, 10.0)
    assert server.patches == [{told.NODE: NODE.dumps()}]
    own.tell(NODE, 11.0)
    server.shows(**{told.NODE: NODE.dumps()})
    assert own.tell(NODE, 12.0) is None
    assert len(server.patches) == 1


def test_what_passes_soon_is_not_told(own: OwnPod, server: Server) -> None:
    own.tell(NODE, 10.0)
    server.shows(**{told.NODE: NODE.dumps()})
    away = replace(NODE, etcd="away")
    assert own.tell(away, 11.0) == 13.0
    own.tell(NODE, 12.0)
    assert len(server.patches) == 1
    own.tell(away, 13.0)
    own.tell(away, 15.0)
    assert server.patches[1:] == [{told.NODE: away.dumps()}]


def test_nothing_is_told_of_a_pod_that_is_not_known(server: Server) -> None:
    assert OwnPod("u2", server, server.pods, lambda: None).tell(NODE, 10.0) is None
    assert server.patches == []


def test_a_right_that_is_missing_is_not_asked_for_again_at_once(
    own: OwnPod, server: Server
) -> None:
    server.error = ForbiddenError("patch pods/status")
    assert own.tell(NODE, 10.0) == 70.0
    server.error = AwayError("away")
    assert own.tell(NODE, 11.0) == 70.0
    with pytest.raises(AwayError):
        own.tell(NODE, 70.0)
    server.error = None
    own.tell(NODE, 71.0)
    assert len(server.patches) == 1


def test_a_check_is_done_once_and_told_when_it_is_over(own: OwnPod, server: Server) -> None:
    server.shows(**{told.NODE: NODE.dumps(), told.ASKED: ASKED.dumps()})
    own.tell(NODE, 10.0)
    own.tell(NODE, 11.0)
    (check,) = FakeCheck.begun
    assert (check.asked, check.address, check.port, check.mtu) == (ASKED, "10.0.0.1", 4789, 1450)
    assert server.patches == []
    check.result = Heard(check.number, silent=("10.0.0.2",))
    own.tell(NODE, 19.0)
    assert server.patches == [{told.HEARD: check.result.dumps()}]
    server.shows(**{told.HEARD: check.result.dumps()})
    own.tell(NODE, 20.0)
    # Another one, while the first is not over, begins after it.
    again = Asked("t" * 32, ("10.0.0.3",))
    server.shows(**{told.ASKED: again.dumps()})
    own.tell(NODE, 21.0)
    assert [one.asked for one in FakeCheck.begun] == [ASKED, again]


def test_what_the_agent_before_has_answered_is_not_done_again(own: OwnPod, server: Server) -> None:
    answered = Heard(ASKED.number).dumps()
    server.shows(**{told.ASKED: ASKED.dumps(), told.HEARD: answered})
    own.tell(NODE, 10.0)
    assert FakeCheck.begun == []


@pytest.mark.parametrize("text", ["no", "{}", '{"secret":"s","peers":[]}'])
def test_what_is_not_understood_does_no_harm(own: OwnPod, server: Server, text: str) -> None:
    server.shows(**{told.ASKED: text})
    own.tell(NODE, 10.0)
    assert FakeCheck.begun == []
    assert server.patches == [{told.NODE: NODE.dumps()}]
