"""The paths of the API."""

from __future__ import annotations

import pytest

from ratchetctl.api.resources import EVENTS, NODES, PODS, Resource, of


@pytest.mark.parametrize(
    ("resource", "namespace", "name", "path"),
    [
        (PODS, "blue", "r1", "/api/v1/namespaces/blue/pods/r1"),
        (PODS, "blue", None, "/api/v1/namespaces/blue/pods"),
        (PODS, None, None, "/api/v1/pods"),
        (NODES, "blue", "n1", "/api/v1/nodes/n1"),
        (EVENTS, "blue", None, "/apis/events.k8s.io/v1/namespaces/blue/events"),
        (PODS, "a/b", "c?d", "/api/v1/namespaces/a%2Fb/pods/c%3Fd"),
    ],
)
def test_an_object_has_its_path(
    resource: Resource, namespace: str | None, name: str | None, path: str
) -> None:
    assert resource.path(namespace, name) == path


def test_rbac_names_a_resource_with_its_group() -> None:
    assert (PODS.named, EVENTS.named) == ("pods", "events.events.k8s.io")
    assert of({"kind": "Pod"}) is PODS
