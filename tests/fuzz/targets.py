"""All targets, and how many inputs each gets in a long run."""

from __future__ import annotations

from tests.fuzz import (
    child_socket,
    cni_parsers,
    lying_etcd,
    pod_parsers,
    shared_parsers,
    whole_requests,
)
from tests.fuzz.runner import Target

TARGETS: tuple[Target, ...] = (
    *cni_parsers.TARGETS,
    *pod_parsers.TARGETS,
    *shared_parsers.TARGETS,
    *whole_requests.TARGETS,
    *lying_etcd.TARGETS,
    *child_socket.TARGETS,
)
# Of each kind, in a long run.
INPUTS = {"parser": 1_200_000, "request": 60_000, "process": 1_500, "etcd": 4_000, "child": 1_000}


def shares(factor: float) -> dict[str, int]:
    """How many inputs each target gets in a run that is so much longer than the long one."""
    whole = {
        kind: sum(one.share for one in TARGETS if one.kind == kind)
        for kind in {one.kind for one in TARGETS}
    }
    return {
        one.name: max(1, round(factor * INPUTS[one.kind] * one.share / whole[one.kind]))
        for one in TARGETS
    }
