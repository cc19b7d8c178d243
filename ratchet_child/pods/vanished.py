"""Attachments whose DEL never comes: their network namespace is gone, and stays so.

containerd sends neither CHECK nor GC, and forgets a sandbox whose state it has lost. A namespace
that is not there, or that is another one by now, holds no pod, so after a while the record is
marked deleted as a DEL does it. The boot network's DEL, which is the parents' business, is kept in
mind: a DEL that comes late after all, or a GC, runs it.
"""

from __future__ import annotations

from ratchet import log
from ratchet.attachments import Attachment, Directory
from ratchet.errors import RatchetError
from ratchet_child.kernel.netns import Namespaces
from ratchet_child.model.clock import Clock
from ratchet_child.pods.registry import Registry

# For a DEL that is on its way: some runtimes take the namespace down first.
LATE_S = 10.0


class Vanished:
    """Looked at by one thread, every few seconds."""

    def __init__(
        self, directory: Directory, registry: Registry, clock: Clock, namespaces: Namespaces
    ) -> None:
        self._namespaces = namespaces
        self._directory = directory
        self._registry = registry
        self._clock = clock
        self._since: dict[str, float] = {}  # by attachment, monotonic seconds

    def sweep(self) -> None:
        """Hand over the records of those that have been gone for long enough."""
        now = self._clock.monotonic()
        gone = {
            one.name: one
            for one in self._candidates()
            if not self._namespaces.exist(one.netns, one.netns_identity)
        }
        self._since = {name: self._since.get(name, now) for name in gone}
        for name, attachment in gone.items():
            if now - self._since[name] >= LATE_S:
                self._hand_over(attachment)

    def _candidates(self) -> list[Attachment]:
        found = [
            state.heard.attachment
            for state in self._registry.states()
            if state.heard.attachment is not None and state.progress.vanished == state.container
        ]
        return [*found, *self._registry.replaced()]

    def _hand_over(self, attachment: Attachment) -> None:
        container, ifname = attachment.container_id, attachment.ifname
        try:
            record = self._directory.read(container, ifname)
            if record is not None and record.boot is not None:
                self._directory.keep_boot(container, ifname)
            if self._directory.mark_deleted(container, ifname):
                log.warning(
                    "no DEL has come for a pod whose network namespace is gone, is detached",
                    pod=attachment.pod_in_logs,
                    container=container,
                )
        except RatchetError as error:
            log.warning("will try again", container=container, error=str(error))
        else:
            self._registry.deleted(attachment.name)
