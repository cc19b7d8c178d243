"""What nobody rings for: other machines, and what nodes of v0.1.0 do.

Apart because all else in the pairing begins with a pod or a bell, and this with the time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from ratchet.cni.dataclasses import dataclass
from ratchet_child.model.keys import PodKey
from ratchet_child.model.links import DeclaredLink
from ratchet_child.model.local import Memory
from ratchet_child.pairing.machines import Machines
from ratchet_child.pairing.old_nodes import OldNodes
from ratchet_child.pairing.ringing import Ringer
from ratchet_child.pairing.vni import Vnis


@dataclass(frozen=True, slots=True)
class News:
    """What is new since it was looked for last.

    `told`: pods of which v0.1.0's words tell something new, with the primary's name and the VNI.
    `doubtful`: nodes that may not ring any more.
    """

    of_everyone: bool
    told: Mapping[PodKey, tuple[str, int | None]]
    doubtful: frozenset[str]

    def is_for(self, pod: PodKey, memory: Memory) -> bool:
        """Say whether a pod of this node does not know yet what it is told."""
        name, vni = self.told.get(pod, ("", None))
        return pod in self.told and not any(
            (one.primary.name, one.vni) == (name, vni) for one in memory.incoming
        )


class Unrung:
    """Looks for it. Every method that talks to etcd raises StoreError when it cannot."""

    def __init__(self, machines: Machines, vnis: Vnis, old_nodes: OldNodes, ringer: Ringer) -> None:
        self._machines = machines
        self._vnis = vnis
        self._old_nodes = old_nodes
        self._ringer = ringer
        self._shared_vnis: frozenset[int] = frozenset()
        self._doubtful: frozenset[str] = frozenset()  # nodes, until they have been told
        self._told: Mapping[PodKey, tuple[str, int | None]] = {}

    def look(self, far_nodes: Callable[[], Collection[str]]) -> News | None:
        """Have other nodes know that this one is there, and look; None when it is not time.

        `far_nodes` gives the addresses of the nodes with which this one has links.
        """
        if not self._machines.is_due:
            return None
        is_another = self._machines.keep(far_nodes)
        if self._machines.alive is not None:
            self._doubtful |= self._ringer.doubt_but(self._machines.alive)
        before, self._shared_vnis = self._shared_vnis, self._vnis.shared()
        told_before, words = self._told, self._old_nodes.words
        self._told = {pair: (name, words.vnis.get(pair)) for pair, name in words.told.items()}
        doubtful, self._doubtful = self._doubtful, frozenset()
        return News(
            of_everyone=is_another or not self._shared_vnis <= before,
            told={pair: one for pair, one in self._told.items() if told_before.get(pair) != one},
            doubtful=doubtful,
        )

    def shares_vni(self, declared: DeclaredLink) -> bool:
        """Say whether a link of v0.1.0 has the same VNI, as was found last."""
        return declared.vni in self._shared_vnis
