"""What is wrong between the agent and the API server, said before a pod fails for it.

While a watch lasts, no pod waits for a right that was taken away or a token that is not renewed,
and nobody would notice. So the agent asks now and then which of its rights it still has
(SelfSubjectAccessReview, which every user may make), and looks at what its kubeconfig says.
"""

from __future__ import annotations

import random
from typing import Any, Protocol

from ratchet.cni.dataclasses import dataclass
from ratchet_child.agent.errors import ApiError, RefusedError
from ratchet_child.model.clock import Clock

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_EVERY_S = (480.0, 600.0)
_AGAIN_S = (20.0, 30.0)  # while something is missing, or nothing could be asked
_NAMELESS_S = 60.0
AWAY_S = 10.0  # an API server that restarts is not worth a word


@dataclass(frozen=True, slots=True)
class Right:
    """A verb on a resource, as RBAC has them."""

    verb: str
    resource: str
    group: str = ""
    subresource: str = ""
    of_node: bool = False
    """Whether it is needed for the pods of this node only, which is all that a kubelet may read."""

    def __str__(self) -> str:
        full = f"{self.group}/{self.resource}" if self.group else self.resource
        return (
            f"{self.verb} {full}/{self.subresource}" if self.subresource else f"{self.verb} {full}"
        )

    def to_json(self, node: str) -> dict[str, Any]:
        named: dict[str, Any] = {"verb": self.verb, "group": self.group, "resource": self.resource}
        if self.subresource:
            named["subresource"] = self.subresource
        if self.of_node:  # API servers before 1.31 do not know it, and ignore it
            named["fieldSelector"] = {"rawSelector": f"spec.nodeName={node}"}
        return named


READING: tuple[Right, ...] = (
    Right("get", "pods"),
    Right("list", "pods", of_node=True),
    Right("watch", "pods", of_node=True),
)
EVENTS = tuple(Right(verb, "events", "events.k8s.io") for verb in ("create", "patch"))
STATUS = (Right("patch", "pods", subresource="status"),)


class Asking(Protocol):
    """What is used of a `Connection`."""

    def post(self, path: str, body: Any, needs: str) -> dict[str, Any]: ...


class Rights:
    """Which of its rights the agent has, for one thread."""

    def __init__(self, rights: tuple[Right, ...], clock: Clock, who: str, node: str) -> None:
        """`who` is the kubeconfig, for the error's sentence, and `node` the node's name."""
        self._rights = rights
        self._clock = clock
        self._who = who
        self._node = node
        self._due = 0.0  # monotonic seconds
        self.missing: tuple[Right, ...] = ()

    @property
    def due(self) -> float:
        return self._due

    def hurry(self) -> None:
        """Have them asked for soon: something was refused."""
        self._due = min(self._due, self._clock.monotonic() + 1.0)

    def review(self, connection: Asking) -> bool:
        """Ask for each right, if it is time; say whether one that was missing is there again.

        *Blocks at most* a few requests.
        """
        now = self._clock.monotonic()
        if now < self._due:
            return False
        before = self.missing
        missing = []
        spread = _EVERY_S
        try:
            for right in self._rights:
                body = {
                    "apiVersion": "authorization.k8s.io/v1",
                    "kind": "SelfSubjectAccessReview",
                    "spec": {"resourceAttributes": right.to_json(self._node)},
                }
                answer = connection.post(REVIEWS, body, "create selfsubjectaccessreviews")
                status = answer.get("status")
                if isinstance(status, dict) and status.get("allowed") is False:
                    missing.append(right)
            self.missing = tuple(missing)
        except RefusedError:
            spread = _AGAIN_S  # the watch says why
        except ApiError:
            spread = _AGAIN_S
        if self.missing:
            spread = _AGAIN_S
        self._due = now + random.uniform(*spread)  # noqa: S311
        return not set(before) <= set(self.missing)

    def trouble(self) -> str | None:
        if not self.missing:
            return None
        named = ", ".join(map(str, self.missing))
        return f"RBAC: the user of {self._who} lacks the right to {named}"


@dataclass(frozen=True, slots=True)
class Watched:
    """How the watch is: `error` while it fails, and for how long nothing was told."""

    error: ApiError | None
    lost_for_s: float


def name_trouble(node: str, known: int | None, oldest_s: float | None) -> str | None:
    """Return what is wrong with the node's name.

    `known` pods were listed for it (None: nothing was), and the oldest of those that Kubernetes has
    attached here has been here for `oldest_s` (None: there is none).
    """
    if known != 0 or oldest_s is None or oldest_s < _NAMELESS_S:
        return None
    return (
        f"the API server has no pod on a node {node}, and pods are attached here: check "
        f"--node-name or NODE_NAME"
    )


def troubles(watch: Watched, *others: str | None) -> tuple[str, ...]:
    """Return all that is wrong, each in a sentence."""
    found = [one for one in others if one is not None]
    if watch.error is not None and (
        isinstance(watch.error, RefusedError) or watch.lost_for_s >= AWAY_S
    ):
        found.append(f"pods are not watched: {watch.error}")
    return tuple(dict.fromkeys(found))
