"""A pod is known by its UID, and what is not known is not known."""

from __future__ import annotations

from typing import Any

import pytest

from ratchet_child.agent.seen import Condition, SeenPod, SeenPods, read_pod

POD: dict[str, Any] = {
    "metadata": {
        "namespace": "default",
        "name": "a",
        "uid": "u1",
        "resourceVersion": "7",
        "labels": {"ratchet": "true", "ratchet.primary": "true", "app": "web", "ratchetx": "no"},
        "annotations": {"ratchet.2.local_ip": "10.0.0.1/8", "other": "x" * 10_000},
    },
    "spec": {"readinessGates": [{"conditionType": "ratchet/links"}]},
    "status": {
        "phase": "Running",
        "podIP": "10.1.1.1",
        "conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "ratchet/links", "status": "False", "reason": "LinkWaiting", "message": "m"},
        ],
    },
}


def pod(uid: str, name: str = "a", version: str = "1", *more: str) -> SeenPod:
    return SeenPod("default", name, (uid, *more), version, {"ratchet": uid}, {})


def test_what_is_kept_of_a_pod_is_what_is_asked_for() -> None:
    assert read_pod(POD) == SeenPod(
        namespace="default",
        name="a",
        uids=("u1",),
        version="7",
        labels={"ratchet": "true", "ratchet.primary": "true"},
        annotations={"ratchet.2.local_ip": "10.0.0.1/8"},
        has_gate=True,
        condition=Condition("False", "LinkWaiting", "m"),
        network_status=None,
        has_address=True,
        is_over=False,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"uid": None},
        {"uid": 5},
        {"name": ""},
        {"labels": {"a": 5}},
        {"labels": ["a"]},
        {"annotations": "a"},
        {"resourceVersion": 5},
    ],
)
def test_what_is_no_pod_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"string"):
        read_pod({**POD, "metadata": {**POD["metadata"], **change}})


@pytest.mark.parametrize("obj", [None, 5, [], {}, {"metadata": []}])
def test_what_is_no_object_is_an_error(obj: object) -> None:
    with pytest.raises(ValueError, match=r"string"):
        read_pod(obj)


@pytest.mark.parametrize(
    "part",
    [{"spec": 5}, {"status": []}, {"spec": {"readinessGates": 5}}, {"status": {"conditions": [5]}}],
)
def test_what_is_not_understood_beside_the_metadata_is_not_there(part: dict[str, Any]) -> None:
    assert read_pod({"metadata": POD["metadata"], **part}).labels["ratchet"] == "true"


def test_a_pod_made_anew_under_its_name_is_another_one() -> None:
    seen = SeenPods()
    seen.put(pod("u1"))
    assert seen.find("default", "a", "u1") == pod("u1")
    assert seen.find("default", "a", "u2") is None
    assert seen.find("default", "a", None) is None
    assert seen.find("default", "b", "u1") is None
    assert seen.find("other", "a", "u1") is None
    seen.put(pod("u2"))
    assert seen.find("default", "a", "u2") == pod("u2")


def test_a_static_pod_is_known_by_either_uid_and_outlives_its_mirror() -> None:
    metadata = {**POD["metadata"], "annotations": {"kubernetes.io/config.mirror": "static"}}
    mirror = read_pod({**POD, "metadata": metadata})
    assert mirror.uids == ("u1", "static")
    seen = SeenPods()
    seen.put(mirror)
    assert seen.find("default", "a", "static") == mirror
    other = pod("u9", "a", "8", "static")
    seen.put(other)
    seen.drop("u1")  # the DELETED of the mirror before may come later
    assert seen.find("default", "a", "static") == other


def test_a_list_takes_the_place_of_everything() -> None:
    seen = SeenPods()
    seen.put(pod("u1"))
    seen.put(pod("u2", "b"))
    seen.replace([pod("u2", "b", "5"), pod("u3", "c")])
    assert sorted(one.uid for one in seen.all()) == ["u2", "u3"]
    assert seen.find("default", "a", "u1") is None
    seen.drop("u1")
    assert len(seen) == 2


def test_the_revision_tells_of_labels_and_not_of_versions() -> None:
    seen = SeenPods()
    seen.put(pod("u1"))
    before = seen.revision
    seen.put(pod("u1", version="2"))
    assert seen.revision == before
    seen.put(SeenPod("default", "a", ("u1",), "3", {}, {}))
    assert seen.revision != before
