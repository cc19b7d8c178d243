"""Attachment records: what DEL, CHECK and the child need to know about an eligible pod.

The directory of records is the child's list of wants. Parents and the child share it without locks:
every change is one ``link``, ``rename`` or ``unlink``, so either can be killed at any moment. This
module knows how a record is spelt and where it lies, and nothing of labels, plugins or etcd.

A record's life::

    attachments/<id>.<ifname>.json   result null: the boot network's ADD has not finished
                                     result:      attached, the child makes its links
    attachments/<id>.<ifname>.<time>.deleted      detached, the child removes what it had made
    boot/<id>.<ifname>.json          the boot network's DEL has not succeeded yet

The same name below ``/var/lib`` (``statedir.lasting_dir``) is kept from the ADD on where the pod
has a boot network of its own: after a reboot, which empties ``/run``, it is all that tells the DEL
what to give back.

The second name under ``boot`` is what lets a DEL that the boot network refused be repeated: by then
the record itself is the child's, who forgets it as soon as the links are gone.
"""

from __future__ import annotations

import os
import time

from ratchet import log, pods, statedir
from ratchet.cni import codec
from ratchet.cni.dataclasses import dataclass, replace
from ratchet.cni.ip import Address
from ratchet.errors import StateError
from ratchet.links import Link, Uplink
from ratchet.names import CONTAINER_ID_MAX
from ratchet.netns import Identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 1
RECORD_SUFFIX = statedir.RECORD_SUFFIX
DELETED_SUFFIX = ".deleted"


@dataclass(frozen=True, slots=True)
class Boot:
    """How the boot network was attached, so that it is detached in the same way."""

    plugins: tuple[dict[str, Any], ...]
    args: str
    path: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """An eligible pod's attachment: (container ID, ifname) and all that was decided for it."""

    container_id: str
    ifname: str
    netns: str
    network: str
    namespace: str
    pod: str
    """The name by which other pods refer to it (``ratchet.pod_name``)."""
    kubernetes_name: str | None
    uid: str | None
    links: tuple[Link, ...]
    public_ip: Address | None
    target_pod: str | None
    target_container: str | None
    attached_at: float
    """Seconds since the epoch."""
    boot: Boot | None
    """None when the pod was chained after another plugin, which is not ours to detach."""
    result: dict[str, Any] | None
    """The boot network's own result; None while its ADD has not finished."""
    boottime_s: float = 0.0
    """CLOCK_BOOTTIME at the ADD: which of two containers of one name is newer. Clocks on the wall
    jump; this one starts anew with the machine, and so does the state directory."""
    netns_identity: Identity | None = None
    """Which namespace stood at the path at the ADD; None in records from before this was kept."""
    uplinks: tuple[Uplink, ...] = ()
    expected: tuple[str, ...] = ()
    """Interfaces of the pod that others are to declare links on."""

    @property
    def name(self) -> str:
        return statedir.attachment_name(self.container_id, self.ifname)

    @property
    def pod_in_logs(self) -> str:
        return pods.logged(self.namespace, self.pod)

    @property
    def is_finished(self) -> bool:
        return self.result is not None

    @property
    def ifnames(self) -> list[str]:
        """The interfaces that the pod's labels declare."""
        own = [link.ifname for link in self.links]
        return own + [uplink.ifname for uplink in self.uplinks]

    @property
    def addresses(self) -> list[Address]:
        """The addresses that the pod's labels give it."""
        own = [link.address for link in self.links]
        own += [uplink.address for uplink in self.uplinks]
        return [address for address in own if address is not None]

    def with_result(self, result: dict[str, Any]) -> Attachment:
        return replace(self, result=result)

    def to_json(self) -> dict[str, Any]:
        boot = self.boot
        # As a child of an older version knows it: what it would not understand, it passes over.
        more: dict[str, Any] = {}
        if self.uplinks:
            more["uplinks"] = [uplink.to_json() for uplink in self.uplinks]
        if self.expected:
            more["expected"] = list(self.expected)
        return {
            "version": VERSION,
            "container_id": self.container_id,
            "ifname": self.ifname,
            "netns": self.netns,
            "netns_identity": self.netns_identity and list(self.netns_identity),
            "network": self.network,
            "namespace": self.namespace,
            "pod": self.pod,
            "kubernetes_name": self.kubernetes_name,
            "uid": self.uid,
            "links": [link.to_json() for link in self.links],
            "public_ip": _text(self.public_ip),
            "target_pod": self.target_pod,
            "target_container": self.target_container,
            "attached_at": self.attached_at,
            "boottime_s": self.boottime_s,
            "boot": boot and {"plugins": list(boot.plugins), "args": boot.args, "path": boot.path},
            "result": self.result,
            **more,
        }

    @classmethod
    def from_json(cls, obj: Any) -> Attachment:
        """Read what ``to_json`` wrote. Raises KeyError, TypeError or ValueError."""
        if obj["version"] != VERSION:
            raise ValueError(f"version {obj['version']!r}, known is {VERSION}")
        boot = obj["boot"]
        return cls(
            container_id=_string(obj["container_id"]),
            ifname=_string(obj["ifname"]),
            netns=_string(obj["netns"]),
            network=_string(obj["network"]),
            namespace=_string(obj["namespace"]),
            pod=_string(obj["pod"]),
            kubernetes_name=_optional(obj["kubernetes_name"]),
            uid=_optional(obj["uid"]),
            links=tuple(Link.from_json(link) for link in obj["links"]),
            public_ip=_address(obj["public_ip"]),
            target_pod=_optional(obj["target_pod"]),
            target_container=_optional(obj["target_container"]),
            attached_at=_seconds(obj["attached_at"]),
            boot=None
            if boot is None
            else Boot(
                tuple(_object(plugin) for plugin in boot["plugins"]),
                _string(boot["args"]),
                _string(boot["path"]),
            ),
            result=None if obj["result"] is None else _object(obj["result"]),
            boottime_s=_seconds(obj["boottime_s"]),
            uplinks=tuple(Uplink.from_json(uplink) for uplink in obj.get("uplinks", ())),
            expected=tuple(_string(ifname) for ifname in obj.get("expected", ())),
            netns_identity=_identity(obj.get("netns_identity")),
        )


class Directory:
    """The records below one state directory. Creates directories only when it writes."""

    def __init__(self, state_dir: str) -> None:
        self.state_dir = state_dir
        self.records = os.path.join(state_dir, statedir.RECORDS)
        self.boots = os.path.join(state_dir, statedir.BOOTS)

    def write(self, attachment: Attachment) -> None:
        """Write or replace a record. Raises StateError."""
        if len(attachment.container_id) > CONTAINER_ID_MAX:
            # A record that can be written and not renamed would never be deleted.
            raise StateError(
                f"the container ID begins with {attachment.container_id[:64]!a}",
                f"it has {len(attachment.container_id)} characters, at most"
                f" {CONTAINER_ID_MAX} can be"
                " part of a file's name",
            )
        path = self._record(attachment.container_id, attachment.ifname)
        # Should this process be killed before it has woken the child, the next one starts it.
        statedir.remove(os.path.join(self.state_dir, statedir.AT_REST))
        try:
            statedir.write_private(path, codec.encode(attachment.to_json()))
        except OSError as exc:
            raise StateError(f"cannot write {path}", _reason(exc)) from exc

    def read(self, container_id: str, ifname: str) -> Attachment | None:
        """Return the live record, None when there is none (or none that can be read)."""
        return _of(self._record(container_id, ifname), container_id, ifname)

    def mark_deleted(self, container_id: str, ifname: str) -> bool:
        """Hand the record to the child for cleaning up; False when there is none.

        Safe to call twice. Raises StateError.
        """
        path = self._record(container_id, ifname)
        name = statedir.attachment_name(container_id, ifname)
        name = f"{name}.{time.time_ns()}{DELETED_SUFFIX}"
        try:
            os.rename(path, os.path.join(self.records, name))
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise StateError(f"cannot rename {path}", _reason(exc)) from exc
        return True

    def remove(self, container_id: str, ifname: str) -> None:
        """Remove a record that the child has never acted on.

        Safe to call twice. Raises StateError.
        """
        self.forget(self._record(container_id, ifname))

    def live(self) -> list[Attachment]:
        """Return every record that is not deleted, the unfinished ones too."""
        found = (load(path) for path in _listed(self.records, RECORD_SUFFIX))
        return [attachment for attachment in found if attachment is not None]

    def deleted(self) -> list[tuple[str, Attachment]]:
        """Return every deleted record with its path, for ``forget``, the oldest first."""
        found = [(path, load(path)) for path in _listed(self.records, DELETED_SUFFIX)]
        kept = [(path, attachment) for path, attachment in found if attachment is not None]
        return sorted(kept, key=lambda pair: _deleted_at(pair[0]))

    def forget(self, path: str) -> None:
        """Remove a record whose clean-up is done. Safe to call twice. Raises StateError."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as exc:
            raise StateError(f"cannot remove {path}", _reason(exc)) from exc

    def keep_boot(self, container_id: str, ifname: str) -> None:
        """Keep the record under a second name until the boot network's DEL has succeeded.

        A record that is not there, or a second name that is, are no error. Raises StateError.
        """
        kept = self._boot(container_id, ifname)
        try:
            statedir.make_private(self.boots)
            os.link(self._record(container_id, ifname), kept)
        except (FileNotFoundError, FileExistsError):
            pass
        except OSError as exc:
            raise StateError(f"cannot write {kept}", _reason(exc)) from exc

    def keep_lasting(self, attachment: Attachment) -> None:
        """Keep an attachment where a reboot leaves it, or replace what is kept there. Never raises.

        A disk that is full or read-only must not keep a pod from starting.
        """
        path = statedir.lasting_path(self.state_dir, attachment.container_id, attachment.ifname)
        if path is None:
            return
        try:
            statedir.write_private(path, codec.encode(attachment.to_json()))
        except OSError as exc:
            log.warning("a reboot would leak the pod's address", path=path, error=_reason(exc))

    def kept_boot(self, container_id: str, ifname: str) -> Attachment | None:
        """Return the record whose boot network still wants its DEL."""
        kept = _of(self._boot(container_id, ifname), container_id, ifname)
        lasting = statedir.lasting_path(self.state_dir, container_id, ifname)
        return kept if kept is not None or lasting is None else _of(lasting, container_id, ifname)

    def has(self, container_id: str, ifname: str) -> bool:
        """Tell whether there is a record that can be read, of whatever is left of an attachment."""
        attachment = container_id, ifname
        return self.read(*attachment) is not None or self.kept_boot(*attachment) is not None

    def kept_boots(self) -> list[Attachment]:
        folder = statedir.lasting_dir(self.state_dir)
        lasting = [] if folder is None else _listed(f"{folder}/{statedir.BOOTS}", RECORD_SUFFIX)
        found = (load(path) for path in [*lasting, *_listed(self.boots, RECORD_SUFFIX)])
        return [attachment for attachment in found if attachment is not None]

    def forget_boot(self, container_id: str, ifname: str) -> None:
        """Forget a boot network whose DEL has succeeded. Safe to call twice. Raises StateError."""
        self.forget(self._boot(container_id, ifname))
        lasting = statedir.lasting_path(self.state_dir, container_id, ifname)
        if lasting is not None:
            self.forget(lasting)

    def _record(self, container_id: str, ifname: str) -> str:
        return statedir.record_path(self.state_dir, container_id, ifname)

    def _boot(self, container_id: str, ifname: str) -> str:
        return statedir.boot_path(self.state_dir, container_id, ifname)


def _listed(folder: str, suffix: str) -> list[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    kept = [name for name in names if name.endswith(suffix) and not name.startswith(".")]
    return [os.path.join(folder, name) for name in sorted(kept)]


def _deleted_at(path: str) -> int:
    """Return the time in a deleted record's name; 0 for one that somebody else has put there."""
    text = path.removesuffix(DELETED_SUFFIX).rpartition(".")[2]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 30 else 0


def _of(path: str, container_id: str, ifname: str) -> Attachment | None:
    # A dot may stand in either part of a file's name: "a.b" + "c" and "a" + "b.c" share one.
    found = load(path)
    if found is None or (found.container_id, found.ifname) != (container_id, ifname):
        return None
    return found


def load(path: str) -> Attachment | None:
    """Return the record in a file.

    One that is damaged, or that is not root's, is logged and left where it is: it says what is run
    as root, and in which namespace interfaces are made.
    """
    try:
        return Attachment.from_json(codec.decode(statedir.read_private(path)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as exc:
        log.error("a record cannot be read and is skipped", path=path, error=repr(exc))
        return None


def _text(address: Address | None) -> str | None:
    return None if address is None else str(address)


def _address(value: Any) -> Address | None:
    return None if value is None else Address.parse(_string(value))


def _identity(value: Any) -> Identity | None:
    if value is None:
        return None
    device, inode = value
    for number in (device, inode):
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{number!r} is not a whole number")
    return device, inode


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _optional(value: Any) -> str | None:
    return None if value is None else _string(value)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    found: dict[str, Any] = value
    return found


def _reason(exc: OSError) -> str:
    return exc.strerror or repr(exc)
