"""What the agent tells of its node on its own pod, and what it is asked there.

Who may list the agents' pods can see how all nodes are, and needs neither a port of the node nor a
shell in a privileged pod. Who may write on their status can have the way between nodes checked.
Everything is for the agent's thread, but for the check itself.
"""

from __future__ import annotations

from collections.abc import Callable

from ratchet import annotations as told
from ratchet import log
from ratchet.annotations import Asked, Heard, NodeTold
from ratchet.cni.dataclasses import dataclass, field
from ratchet_child.agent.checking import Check
from ratchet_child.agent.errors import ApiError, AwayError, ForbiddenError, RefusedError
from ratchet_child.agent.reporter import PATCH_STATUS, Writing
from ratchet_child.agent.seen import SeenPod, SeenPods

_SETTLES_S = 2.0
_AGAIN_S = 60.0  # before what was written and is not seen is written again


@dataclass(slots=True)
class OwnPod:
    """The agent's own pod, by its UID. `on_end` is called when a check is over, from any thread."""

    uid: str
    connection: Writing
    seen: SeenPods
    on_end: Callable[[], None]
    _node: str = ""  # what is to be told of the node, and since when (monotonic)
    _since: float = 0.0
    _written: dict[str, str] = field(default_factory=dict)
    _until: float = 0.0  # what was written may not be seen before
    _check: Check | None = None
    _wrong: str = ""  # what was asked and is not understood

    def tell(self, node: NodeTold, now: float) -> float | None:
        """Write what is new; return the moment (monotonic) at which to call again.

        *Raises* AwayError and RefusedError when nothing can be written now.
        """
        pod = self.seen.get(self.uid)
        if pod is None or not pod.is_told:
            return None
        self._begin(pod, node)
        text = node.dumps()
        if text != self._node:
            self._node, self._since = text, now
        wanted: dict[str, str] = {}
        due = self._since + _SETTLES_S if pod.told.get(told.NODE) else now
        if due <= now:
            wanted[told.NODE] = text
        if self._check is not None and self._check.result is not None:
            wanted[told.HEARD] = self._check.result.dumps()
        wanted = {key: value for key, value in wanted.items() if pod.told.get(key) != value}
        if not wanted:
            return due if due > now else None
        if wanted == self._written and now < self._until:
            return self._until
        self._write(pod, wanted, now)
        return self._until

    def _begin(self, pod: SeenPod, node: NodeTold) -> None:
        """Begin the check that is asked for, if there is another one."""
        text = pod.told.get(told.ASKED)
        if text is None or text == self._wrong:
            return
        if self._check is not None and self._check.result is None:
            return
        try:
            asked = Asked.loads(text)
        except ValueError as error:
            log.warning("what is asked of the agent is not understood", error=str(error))
            self._wrong = text
            return
        if self._check is not None and self._check.number == asked.number:
            return
        if _answered(pod) == asked.number:  # by the agent before
            return
        mtu = node.mtu_bytes
        self._check = Check(asked, node.address, node.vxlan_port, mtu, self.on_end)

    def _write(self, pod: SeenPod, wanted: dict[str, str], now: float) -> None:
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/status"
        body = {"metadata": {"uid": pod.uid, "annotations": wanted}}
        self._written, self._until = wanted, now + _AGAIN_S
        try:
            self.connection.patch(path, body, PATCH_STATUS)
        except ForbiddenError as error:  # which `Rights` tells of
            log.debug("nothing can be told of the node", error=str(error))
        except (AwayError, RefusedError):
            self._written = {}
            raise
        except ApiError as error:
            log.debug("nothing can be told of the node", error=str(error))


def _answered(pod: SeenPod) -> str | None:
    """Return the number of the check of which the pod tells; None when it tells of none."""
    text = pod.told.get(told.HEARD)
    try:
        return None if text is None else Heard.loads(text).number
    except ValueError:
        return None
