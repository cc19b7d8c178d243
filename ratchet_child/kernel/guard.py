"""The guard: what of this node's tunnels nftables lets pass, and nothing else of theirs.

A tunnel's end is in a pod, its UDP socket in the node. A pod with NET_ADMIN may tell the end to
send to any address, port and VNI, so the node has to look at what comes out. The end cannot choose
its source port: whatever leaves from the ports in `ports`, and from no socket of the node, is from
an end of Ratchet's and has to be one of its links, as (port, VNI, far node). What arrives for a VNI
of ours has to come from that link's far node. Everything else on the node passes untouched.
docs/decisions/0015-the-guard.md says what was measured, and what the guard cannot do.

The table belongs to all children in the node's namespace: each has its own members in the sets,
which bear its state directory as comment, and who finds that there are none left removes the table.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterator, Mapping

from ratchet import log
from ratchet.cni.dataclasses import dataclass
from ratchet.cni.ip import Host
from ratchet.errors import KernelError
from ratchet_child.kernel import guard_table, nftables
from ratchet_child.kernel.guard_table import LINKS, SETS, TABLE, VNIS, Tunnel, source_ports
from ratchet_child.kernel.nftables import Change, Element, Nftables

_Sets = Mapping[str, set[Element]]

_COMMENT_BYTES = 120  # nft(8) has a limit of 128
_REST = 30  # checks
_LOCAL_PORTS = "/proc/sys/net/ipv4/ip_local_port_range"

# The kernel has no nftables, or lacks a part of it.
_UNSUPPORTED = (
    errno.ENOENT,
    errno.EOPNOTSUPP,
    errno.EPROTONOSUPPORT,
    errno.EAFNOSUPPORT,
    errno.EINVAL,
    errno.EPERM,
)


@dataclass(frozen=True, slots=True)
class Tunnels:
    """The tunnels that were seen on this node, and their far nodes; None for one without.

    `is_complete`: there are no others. `unmarked`: how many send from other source ports.
    """

    seen: Mapping[Tunnel, Host | None]
    is_complete: bool
    unmarked: int = 0


class Guard:
    """The node's table, and what this child has in it. Safe to use from many threads."""

    def __init__(self, owner: str, *, is_wanted: bool = True) -> None:
        """Guard what bears `owner`, the state directory; unless wanted, with others only."""
        self._owner = owner.encode()[-_COMMENT_BYTES:].decode(errors="replace")
        self._is_wanted = is_wanted
        self._lock = threading.Lock()
        self.has_tunnels = threading.Event()  # so that `check` has something to compare
        self._book: dict[Tunnel, Host | None] = {}
        self._stale: set[Tunnel] = set()
        self._generation: int | None = None
        self._netlink: Nftables | None = None
        self._is_joined = False  # the table is there, and ours are in it
        self._unmarked = 0
        self._rest = 0  # checks since nftables was tried
        self._why_not: str | None = None
        self.ports = source_ports(_local_ports())
        if self.ports is None:
            self._why_not = "net.ipv4.ip_local_port_range leaves no source ports for the tunnels"

    @property
    def state(self) -> str:
        """How it stands with the guard, for people: `on`, or `off` with the reason."""
        if not self._is_wanted:
            return "off, as configured"
        if self._why_not is not None:
            return f"off: {self._why_not}"
        if self._unmarked:
            return f"on, but not for {self._unmarked} tunnels that were made before it"
        return "on"

    def start(self) -> None:
        """Take up what an earlier child has left in the table."""
        with self._lock:
            if self.ports is not None:
                with self._unless_missing():
                    self._adopt()
            if self._is_wanted and self._why_not is not None:
                log.warning("the node has no guard", reason=self._why_not)

    def close(self) -> None:
        """Let go of the socket; the table stays."""
        with self._lock:
            if self._netlink is not None:
                self._netlink.close()
                self._netlink = None

    # What the kind of interface tells -------------------------------------------------------------

    def admit(self, tunnel: Tunnel, remote: Host | None) -> None:
        """Let a tunnel's frames pass to and from a far node, or (None) none at all.

        *Raises* KernelError. *Safe to call twice.*
        """
        with self._lock:
            if tunnel in self._book and self._book[tunnel] == remote:
                return
            before = self._elements({tunnel: self._book[tunnel]} if tunnel in self._book else {})
            after = self._elements({tunnel: remote})
            self._change(before, after)
            self._book[tunnel] = remote
            self.has_tunnels.set()

    def forget(self, tunnel: Tunnel) -> None:
        """Note that a tunnel was removed. *Safe to call twice.*"""
        with self._lock:
            if tunnel in self._book:
                before = self._elements({tunnel: self._book.pop(tunnel)})
                # What is left in the table is the next check's to remove.
                with contextlib.suppress(KernelError):
                    self._change(before, {})

    def _change(self, before: _Sets, after: _Sets) -> None:
        """Have other members in the sets, in one transaction. *Raises* KernelError."""
        if self._why_not is not None or not (self._is_joined or self._is_wanted):
            return
        try:
            if self._is_joined and self._commit(_difference(before, after)):
                return
            # The table is not there yet, or somebody has emptied it.
            self._is_joined = False
            wanted = self._elements(self._book)
            wanted = {name: wanted[name] - before.get(name, set()) for name in SETS}
            wanted = {name: wanted[name] | after.get(name, set()) for name in SETS}
            if self._is_wanted and any(wanted.values()):
                with self._unless_missing():
                    self._build(wanted)
        except OSError as error:
            raise KernelError(f"change the table {TABLE} of nftables", str(error)) from error

    def _commit(self, changes: list[Change]) -> bool:
        """Carry out changes; False when what they speak of is not there. *Raises* OSError."""
        try:
            self._socket().commit(changes)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    # Now and then ---------------------------------------------------------------------------------

    def check(self, tunnels: Tunnels) -> None:
        """Mend what others have done to the table, and forget tunnels that nobody removed.

        *Raises* KernelError.
        """
        with self._lock:
            self._unmarked = tunnels.unmarked
            self._take_up(tunnels)
            if self._book:
                self.has_tunnels.set()
            else:
                self.has_tunnels.clear()
            if self.ports is None or self._rests():
                return
            try:
                with self._unless_missing():
                    netlink = self._socket()
                    generation = netlink.generation()
                    if generation != self._generation:
                        self._mend()
                        self._generation = generation
                    self._why_not = None
            except OSError as error:
                raise KernelError(f"look at the table {TABLE} of nftables", str(error)) from error

    def leave(self) -> None:
        """Have nothing in the table any more: this node has no tunnels of this child's."""
        with self._lock, contextlib.suppress(OSError):
            self._book.clear()
            if self.ports is not None and self._why_not is None:
                self._mend()

    def _rests(self) -> bool:
        """Say whether nftables was missing lately; it may have been loaded by now."""
        if self._why_not is None:
            return False
        self._rest = (self._rest + 1) % _REST
        return self._rest != 0

    def _take_up(self, tunnels: Tunnels) -> None:
        for tunnel, remote in tunnels.seen.items():
            if tunnel not in self._book:
                self._book[tunnel] = remote
                self._generation = None
        stale = self._book.keys() - tunnels.seen.keys() if tunnels.is_complete else set()
        # One that is made at this moment is not seen yet; so only what was stale before goes.
        for tunnel in stale & self._stale:
            del self._book[tunnel]
            self._generation = None
        self._stale = stale - self._stale

    def _mend(self) -> None:
        """Bring the table to what it should be. *Raises* OSError."""
        netlink = self._socket()
        rules, found = netlink.rules(TABLE), self._read()
        own, others = self._split(found)
        wanted = self._elements(self._book)
        if not any(others.values()) and not (self._is_wanted and self._book):
            if rules or any(found.values()):
                netlink.commit([nftables.remove_table(TABLE)])
                log.info("guard removed")
            self._is_joined = False
        elif rules != guard_table.expected(self.ports) and self._is_wanted:
            if self._is_joined:
                log.warning("somebody has changed the table of the guard, it is made again")
            self._build(wanted, others)
        elif rules:
            changes = _difference(own, wanted)
            # Somebody has changed the table at this moment: once more, by the next check.
            self._is_joined = not changes or self._commit(changes)

    def _adopt(self) -> None:
        """Take up what is in the table, from an earlier child or for others. *Raises* OSError."""
        rules, found = self._socket().rules(TABLE), self._read()
        own, others = self._split(found)
        for name, elements in own.items():
            for element in elements:
                tunnel, remote = guard_table.read_key(element.key)
                if remote is not None or name == VNIS:
                    self._book[tunnel] = self._book.get(tunnel) or remote
        if any(others.values()):  # they have tunnels with these source ports
            self.ports = guard_table.read_ports(rules) or self.ports
        self._is_joined = bool(rules)

    def _build(self, wanted: _Sets, others: _Sets | None = None) -> None:
        """Make the table, whatever is there, with what others have in it. *Raises* OSError."""
        assert self.ports is not None, "without ports there is no guard"  # noqa: S101 - callers see
        if others is None:
            _, others = self._split(self._read())
        changes = [
            nftables.add_table(TABLE),
            nftables.remove_table(TABLE),
            *guard_table.make(self.ports),
        ]
        for name in SETS:
            elements = wanted.get(name, set()) | others.get(name, set())
            changes += nftables.add_elements(TABLE, name, elements)
        self._socket().commit(changes)
        self._is_joined = True
        log.info("guard made", source_ports=f"{self.ports[0]}-{self.ports[1]}")

    @contextlib.contextmanager
    def _unless_missing(self) -> Iterator[None]:
        """Do without a guard where the kernel has no nftables."""
        try:
            yield
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            self._why_not = f"nftables does not work on this node ({error.strerror})"
            self._is_joined, self._generation = False, None

    # Members --------------------------------------------------------------------------------------

    def _socket(self) -> Nftables:
        if self._netlink is None:
            self._netlink = Nftables()
        return self._netlink

    def _read(self) -> dict[str, set[Element]]:
        netlink = self._socket()
        return {name: netlink.elements(TABLE, name) for name in SETS}

    def _split(self, found: _Sets) -> tuple[_Sets, _Sets]:
        """Return what of the members is ours, and what others'."""
        own = {
            name: {one for one in elements if one.comment == self._owner}
            for name, elements in found.items()
        }
        return own, {name: elements - own[name] for name, elements in found.items()}

    def _elements(self, book: Mapping[Tunnel, Host | None]) -> dict[str, set[Element]]:
        """Return what is in the sets for tunnels."""
        found: dict[str, set[Element]] = {name: set() for name in SETS}
        for tunnel, remote in book.items():
            found[VNIS].add(Element(guard_table.key(tunnel), self._owner))
            if remote is not None:
                key = guard_table.key(tunnel) + remote.packed
                found[LINKS[remote.version]].add(Element(key, self._owner))
        return found


def _local_ports() -> tuple[int, int]:
    with open(_LOCAL_PORTS, encoding="ascii") as file:
        first, last = file.read().split()
    return int(first), int(last)


def _difference(before: _Sets, after: _Sets) -> list[Change]:
    changes: list[Change] = []
    for name in {**before, **after}:
        one, other = before.get(name, set()), after.get(name, set())
        changes += nftables.remove_elements(TABLE, name, one - other)
        changes += nftables.add_elements(TABLE, name, other - one)
    return changes
