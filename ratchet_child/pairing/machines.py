"""Machines: which ones are there, under which address: `machines/<address>@<identity>`.

A node with pods renews its key while it lives, and reads all machines' keys at the same moment: two
requests a node every twenty seconds or so, however many links there are. With more than 150
machines a node does not read each time, so that on average ten of them read in a second. So a node
finds out

- that another machine has its address (cloned machines, VirtualBox's 10.0.2.15). The earlier one
  goes on; the later one publishes no pod until the other has left. Neither touches what the other
  has written. Which one is earlier is etcd's order, and stays so when a child is restarted.
- that a peer's node is silent: its key has expired.

Apart because these keys concern no pod and no link.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Any

from ratchet import log
from ratchet.cni.dataclasses import dataclass
from ratchet_child.model import keys
from ratchet_child.model.clock import Clock
from ratchet_child.model.local import Node
from ratchet_child.store.api import Entry, Store

TTL_S = 60
_RENEW_S = 15.0  # the watch ends every 20 s at the latest, and then it is done
# What a node reads grows with their number, and so does the time until it reads again.
_READ_S_A_MACHINE = 0.1
# A silence means something only if this node itself was heard all the time.
_BLIND_S = 45.0


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine as its key tells of it. `since` is its place in etcd's order."""

    address: str
    identity: str
    host: str
    since: int


class Machines:
    """What talks to etcd raises StoreError. Reading what is known needs no lock."""

    def __init__(
        self,
        store: Store,
        node: Node,
        clock: Clock,
        lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        """`lock` is held over requests. A node without an identity keeps no key and sees nobody."""
        self._store = store
        self._node = node
        self._clock = clock
        self._lock = lock or threading.Lock()
        self._since = 0  # of this machine, 0 until it is known
        self._is_registered = False
        self._renewed_at = 0.0  # monotonic seconds
        self._read_at = 0.0
        self._there = 0  # machines, when they were read last
        self._rivals: tuple[Machine, ...] = ()
        self._silent: dict[str, float] = {}  # addresses, since when (seconds since the epoch)
        # Addresses whose nodes keep no such key: of an earlier version, or of v0.1.0.
        self._without_key: set[str] = set()
        self.alive: frozenset[str] | None = None  # addresses, if they were read just now

    # What is known ------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether an earlier machine has this node's address: no pod may be published."""
        return any(self._is_earlier(one) for one in self._rivals)

    @property
    def trouble(self) -> str | None:
        """Which other machine has this node's address, in words for people."""
        if not self._rivals:
            return None
        who = " and ".join(f"{one.host} ({one.identity})" for one in self._rivals)
        own = f"{self._node.host} ({self._node.machine})"
        then = "; links of its pods to other nodes wait" if self.waits else ""
        return (
            f"another machine, {who}, has the parent_address {self._node.address} of this one,"
            f" {own}, too: give one of them another parent_address{then}"
        )

    def silent_since(self, address: str) -> float | None:
        """Return since when a node has not been heard of; None for one that is."""
        return self._silent.get(address)

    def has_key_at(self, address: str) -> bool:
        """Say whether a machine with that address is there now, as etcd has it."""
        return any(one.address == address for one in self._read().values())

    @property
    def is_due(self) -> bool:
        """Whether it is time for `keep`."""
        return self._is_registered and (self._clock.monotonic() >= self._renewed_at + _RENEW_S)

    # What is asked ------------------------------------------------------------------------------

    def register(self) -> None:
        """See that this machine's key stands before the first pod is published."""
        if not self._is_unregistered():
            return
        with self._lock:
            if not self._is_unregistered():
                return
            # A child that was restarted keeps its machine's place.
            before = self._read().get(self._own_key())
            self._since = before.since if before is not None else 0
            self._write()
            self._read_everybody()
            self._renewed_at = self._clock.monotonic()
            # Machines that start together do not read together.
            self._read_at = self._renewed_at - self._pause_s() * self._fraction()
            self._is_registered = True

    def keep(self, addresses: Callable[[], Collection[str]]) -> bool:
        """Renew the key when it is time; whether pods may be published now that could not, or not.

        `addresses` gives those of the nodes with which this one has links.
        """
        if not self.is_due:
            return False
        self.alive = None
        with self._lock:
            if not self._is_registered:
                return False
            waited, was_heard = self.waits, self._clock.monotonic() < self._renewed_at + _BLIND_S
            self._write()
            alive = self._read_everybody() if self._is_turn() or not was_heard else None
            self._renewed_at = self._clock.monotonic()
        self.alive = alive
        if alive is not None:
            self._without_key -= alive
            self._note_silent(alive, set(addresses()), is_sure=was_heard)
        return self.waits != waited

    def leave(self, address: str) -> None:
        """Remove this machine's key at an address at which it has no pods. *Safe to call twice.*

        Whoever publishes a pod at this moment has to `register` afterwards as well as before: if
        the pod was not seen here, it sees there that the machine is not registered any more.
        """
        if not self._node.machine:
            return
        is_own = address == self._node.address
        with self._lock:
            was_registered = self._is_registered
            if is_own:
                self._is_registered = False
            if self._has_pods(address):
                self._is_registered = was_registered
                return
            if is_own:
                self._note_rivals({})
            self._store.remove_tree(keys.machine(address, self._node.machine))
        self._store.prune(keys.MACHINES)

    def _has_pods(self, address: str) -> bool:
        """Say whether this machine has published pods there, for whichever network."""
        entries, _ = self._store.tree(keys.node_pods(address))
        return any(_machine_of(entry) == self._node.machine for entry in entries.values())

    def _is_unregistered(self) -> bool:
        return bool(self._node.machine) and not self._is_registered

    def _is_turn(self) -> bool:
        """Say whether to read everybody's key now. Who shares its address always does."""
        # It may be that much later when the key is renewed next.
        due_at = self._read_at + self._pause_s() - _RENEW_S
        return bool(self._rivals) or self._clock.monotonic() >= due_at

    def _pause_s(self) -> float:
        return self._there * _READ_S_A_MACHINE

    def _fraction(self) -> float:
        """Return a number from 0 to 1 that differs from machine to machine."""
        return int.from_bytes(self._node.machine.encode(), "big") % 997 / 997

    def _write(self) -> None:
        value = json.dumps({"host": self._node.host, "since": self._since}, separators=(",", ":"))
        key = keys.machine(self._node.address, self._node.machine)
        self._store.set(key, value, ttl_s=TTL_S)

    def _read_everybody(self) -> frozenset[str]:
        """Return the addresses. After `_write`: of two that do so at once one sees the other."""
        found = self._read()
        own = found.get(self._own_key())
        if own is not None:
            self._since = own.since
        self._read_at, self._there = self._clock.monotonic(), len(found)
        self._note_rivals(found)
        return frozenset(one.address for one in found.values())

    def _read(self) -> dict[str, Machine]:
        entries, _ = self._store.tree(keys.MACHINES)
        read = {name: _machine(name, entry) for name, entry in entries.items()}
        return {name: one for name, one in read.items() if one is not None}

    def _note_rivals(self, found: dict[str, Machine]) -> None:
        before = {one.identity for one in self._rivals}
        self._rivals = tuple(
            one
            for _, one in sorted(found.items())
            if one.address == self._node.address and one.identity != self._node.machine
        )
        after = {one.identity for one in self._rivals}
        if after - before:
            log.error("the parent_address is not this machine's alone", error=self.trouble)
        elif before and not after:
            log.info("the parent_address is this machine's alone again", node=self._node.address)

    def _note_silent(self, alive: frozenset[str], linked: set[str], *, is_sure: bool) -> None:
        """Note which nodes are silent; one may turn out to have been set back to v0.1.0."""
        silent = {one for one in linked - alive if self._keeps_a_key(one)}
        for address in self._silent.keys() - silent:
            del self._silent[address]
            log.info("the node of a peer is heard of again", node=address)
        for address in silent - self._silent.keys() if is_sure else ():
            self._silent[address] = self._clock.time()
            log.warning("the node of a peer is silent", node=address)

    def _keeps_a_key(self, address: str) -> bool:
        """Say whether a node keeps such a key, as far as can be told from what it has published."""
        if address in self._without_key:
            return False
        entries, _ = self._store.tree(keys.node_pods(address))
        if any(_machine_of(entry) for entry in entries.values()):
            return True
        self._without_key.add(address)
        return False

    def _is_earlier(self, other: Machine) -> bool:
        return (other.since, other.identity) < (self._since, self._node.machine)

    def _own_key(self) -> str:
        return keys.machine(self._node.address, self._node.machine).removeprefix(
            f"{keys.MACHINES}/"
        )


def _machine(name: str, entry: Entry) -> Machine | None:
    """Read a machine's key; None for what another program has written there."""
    address, at, identity = name.partition("@")
    try:
        value = json.loads(entry.value)
        since, host = value["since"], value["host"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    is_sane = isinstance(since, int) and not isinstance(since, bool) and isinstance(host, str)
    if not (at and address and identity and is_sane):
        return None
    return Machine(address, identity[:64], host[:64], since if since > 0 else entry.created)


def _machine_of(entry: Entry) -> str:
    """Return which machine has published a pod; empty when the entry does not say."""
    try:
        return keys.Published.loads(entry.value).machine
    except ValueError:
        return ""
