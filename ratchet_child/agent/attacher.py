"""Attaching pods after they have started, where Ratchet is no CNI plugin (``attach: agent``).

A labelled pod that runs, and that no ADD has attached, gets the record that an ADD would have
written; the rest of the child cannot tell the difference. The boot network is the cluster's own and
none of ours. Nobody sends a DEL: a pod that the API server no longer has, or whose namespace is
gone, is detached here.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

from ratchet import labels, log, netns, pods
from ratchet.attachments import Attachment, Directory
from ratchet.cni.dataclasses import dataclass
from ratchet.errors import LabelError, RatchetError
from ratchet_child.agent import notes
from ratchet_child.agent.events import About
from ratchet_child.agent.notes import Note
from ratchet_child.agent.processes import Sandbox, find_sandboxes, is_there
from ratchet_child.agent.seen import SeenPod, SeenPods, Words
from ratchet_child.agent.views import AGENTS, PodView
from ratchet_child.engine import Engine

IFNAME = "eth0"
# A pod says that it runs before anybody else knows of its processes, if at all.
_FIRST_S, _MOST_S = 1.0, 30.0
_LONG_S = 30.0


@dataclass(slots=True)
class _Wanted:
    """A pod that is to be attached."""

    fields: tuple[Words, Words]
    since: float  # monotonic seconds
    due: float  # the same
    pause_s: float = _FIRST_S
    is_refused: bool = False
    is_told: bool = False


class Attacher:
    """Works for one thread."""

    def __init__(self, seen: SeenPods, proc: str) -> None:
        """`proc` is the host's /proc."""
        self._seen = seen
        self._proc = proc
        self._wanted: dict[str, _Wanted] = {}

    def next_due(self) -> float | None:
        """Return the moment (monotonic) at which to `attach` at the latest."""
        return min((one.due for one in self._wanted.values() if not one.is_refused), default=None)

    def attach(
        self, engine: Engine, network: str, views: list[PodView], now: float
    ) -> Iterator[tuple[About, Note]]:
        """Attach and detach what there is; give what is to be said. `now`: monotonic seconds."""
        directory = Directory(engine.node.state_dir)
        there = set()
        for view in views:
            pod = self._seen.get(view.uid)
            if view.is_agents and not (pod is not None and _is_there(view)):
                self._detach(engine, directory, view)
            else:
                there.add(view.uid if pod is None else pod.uid)
        attached = _attached_otherwise(engine)
        missing = {
            pod.uid: pod
            for pod in self._seen.all()
            if _is_eligible(pod) and (pod.namespace, pod.name) not in attached
        }
        self._note({uid: pod for uid, pod in missing.items() if uid not in there}, now)
        due = [uid for uid, one in self._wanted.items() if not one.is_refused and one.due <= now]
        known = {one: uid for uid in due for one in missing[uid].uids}
        sandboxes = find_sandboxes(known, self._proc)
        found = {known[one]: sandbox for one, sandbox in sandboxes.items()}
        for uid in due:
            pod = missing[uid]
            note = self._attach(engine, directory, network, pod, found.get(uid), now)
            if note is not None:
                yield About("Pod", pod.namespace, pod.name, uid), note

    def _attach(
        self,
        engine: Engine,
        directory: Directory,
        network: str,
        pod: SeenPod,
        sandbox: Sandbox | None,
        now: float,
    ) -> Note | None:
        """Attach one pod, if its sandbox was found; what is to be said of it."""
        wanted = self._wanted[pod.uid]
        wanted.due, wanted.pause_s = now + wanted.pause_s, min(wanted.pause_s * 2, _MOST_S)
        if sandbox is None:
            if now - wanted.since < _LONG_S or wanted.is_told:
                return None
            wanted.is_told = True
            return notes.not_found()
        try:
            attachment = _attachment(network, pod, sandbox, engine.node.max_links)
            directory.write(attachment)
        except LabelError as error:
            wanted.is_refused = True
            log.warning("a pod is not attached", pod=pod.name, error=str(error))
            return notes.refused_at_attach(str(error))
        except RatchetError as error:
            log.warning("a pod cannot be attached", pod=pod.name, error=str(error))
            return None
        del self._wanted[pod.uid]
        engine.registry.attached(attachment.name)
        log.info(
            "attached by the agent",
            pod=attachment.pod_in_logs,
            container=attachment.container_id,
            netns=attachment.netns,
        )
        return None

    def _note(self, missing: dict[str, SeenPod], now: float) -> None:
        """Note who is to be attached; one whose labels have changed begins anew."""
        self._wanted = {
            uid: one
            for uid, one in self._wanted.items()
            if uid in missing and missing[uid].fields == one.fields
        }
        for uid, pod in missing.items():
            self._wanted.setdefault(uid, _Wanted(pod.fields, now, now))

    def _detach(self, engine: Engine, directory: Directory, view: PodView) -> None:
        attachment = view.attachment
        try:
            directory.mark_deleted(attachment.container_id, attachment.ifname)
        except RatchetError as error:
            log.warning("a pod cannot be detached", pod=view.key, error=str(error))
            return
        log.info("detached by the agent", pod=view.key, container=attachment.container_id)
        engine.registry.deleted(attachment.name)


def _attached_otherwise(engine: Engine) -> set[tuple[str, str | None]]:
    """Return the pods that an ADD has attached, also those of which no UID is known."""
    found = [state.heard.attachment for state in engine.registry.states()]
    return {
        (one.namespace, one.kubernetes_name)
        for one in found
        if one is not None and not one.container_id.startswith(AGENTS)
    }


def _is_eligible(pod: SeenPod) -> bool:
    """Say whether a pod runs and is Ratchet's, as the API server has told it to this process."""
    is_running = pod.is_told and pod.has_address and not (pod.is_over or pod.is_hosts)
    return is_running and pods.says_eligible(pod.labels, pod.annotations)


def _is_there(view: PodView) -> bool:
    return is_there(Sandbox(view.attachment.netns, view.attachment.boottime_s))


def _attachment(network: str, pod: SeenPod, sandbox: Sandbox, max_links: int) -> Attachment:
    """Return what an ADD would have recorded. *Raises* LabelError."""
    wiring = labels.parse(pod.labels, pod.annotations, own_name=pod.name, cni_ifname=IFNAME)
    labels.require_at_most(max_links, wiring)
    sandbox_name = f"{sandbox.netns} {sandbox.started_s}"
    digest = hashlib.sha256(sandbox_name.encode()).hexdigest()[:8]
    return Attachment(
        container_id=f"{AGENTS}{pod.uid}-{digest}",
        ifname=IFNAME,
        netns=sandbox.netns,
        netns_identity=netns.identity_at(sandbox.netns),
        network=network,
        namespace=pod.namespace,
        kubernetes_name=pod.name,
        uid=pod.uid,
        **wiring.recorded(),
        attached_at=time.time(),
        boottime_s=sandbox.started_s,
        boot=None,
        result={},
    )
