"""Which pods leave their name to another one that is there: those that are not ready yet.

A Deployment starts its second pod before it ends the first one, and both have one
`ratchet.pod_name`. If the second one is broken, the first one has to keep its links. So a pod whose
name to other pods is not its own in Kubernetes takes that name from nobody until all of its
containers have been ready for a while: one that crashes again and again is ready in between.

A pod with its own name in Kubernetes is the only one of that name, and is needed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ratchet.attachments import Attachment
from ratchet_child.agent.seen import SeenPods
from ratchet_child.model.clock import Clock
from ratchet_child.model.keys import PodKey

READY_S = 5.0


class Standing:
    """`stands_by` may be asked from any thread, the rest from one."""

    def __init__(self, seen: SeenPods, clock: Clock, knows: Callable[[], bool]) -> None:
        """`knows`: whether the API server has told this process which pods there are."""
        self._seen = seen
        self._clock = clock
        self._knows = knows
        self._before: dict[str, bool] = {}  # by container
        self._due: float | None = None

    def stands_by(self, attachment: Attachment) -> bool:
        """Say whether a container takes its pod's name from no other container."""
        return self._due_of(attachment) is not None

    def changed(self, attachments: Iterable[Attachment]) -> set[PodKey]:
        """Return the names of whose containers one is new, or stands by now, or no longer."""
        now, found, dues = self._clock.time(), {}, []
        keys = set()
        for one in attachments:
            if not _shares_name(one):
                continue
            due = self._due_of(one)
            found[one.container_id] = due is not None
            if due is not None and due > now:
                dues.append(due)
            # What was decided when it was attached may be as old as that.
            if self._before.get(one.container_id) != found[one.container_id]:
                keys.add(PodKey(one.namespace, one.pod))
        self._before, self._due = found, min(dues, default=None)
        return keys

    def forget(self) -> None:
        """Have all names told again, to somebody who has not heard of any."""
        self._before = {}

    def next_due(self) -> float | None:
        """Return the moment (seconds since the epoch) at which one will stand by no longer."""
        return self._due

    def _due_of(self, attachment: Attachment) -> float | None:
        """Return until when it stands by, 0 where nobody knows; None when it does not."""
        if attachment.uid is None or not (_shares_name(attachment) and self._knows()):
            return None
        pod = self._seen.get(attachment.uid)
        since = None if pod is None else pod.ready_since
        if since is None:
            return 0.0
        due = since + READY_S
        # A clock that was set back must not keep it waiting for longer than that.
        return due if 0.0 < due - self._clock.time() <= READY_S + 1.0 else None


def _shares_name(attachment: Attachment) -> bool:
    """Say whether Kubernetes may have other pods of a container's name."""
    return attachment.kubernetes_name not in (None, attachment.pod)
