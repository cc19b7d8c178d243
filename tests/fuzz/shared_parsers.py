"""What the parent, the child and the operator's tool read besides: configuration, records, what
stands in etcd, requests to the child, manifests, and the log, which others read.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from ratchet import log
from ratchet.attachments import Attachment, Directory
from ratchet.cni import codec
from ratchet.cni.dataclasses import replace
from ratchet.config import SETTINGS, Config
from ratchet.errors import ConfigError, PodUnknownError, StoreError
from ratchet.status import LinkStatus, PodStatus
from ratchet_child.lookups import Answer, Lookups
from ratchet_child.model import keys
from ratchet_child.model.clock import SystemClock
from ratchet_child.model.keys import Declaration, OldLink, PodKey, Published
from ratchet_child.pairing import old_links, v010
from ratchet_child.pairing.association import place_of
from ratchet_child.pairing.incoming import IncomingLinks
from ratchet_child.pairing.old_nodes import Words
from ratchet_child.pairing.ringing import targets
from ratchet_child.pods.records import Records
from ratchet_child.service import BadRequestError, Service, decode
from ratchet_child.store.api import Entry
from ratchet_child.store.health import Health
from ratchetctl import manifest
from ratchetctl.errors import OperatorError
from tests.fuzz.cni_parsers import CONFIG_KEYS, only
from tests.fuzz.mutate import ADDRESSES, Mutator
from tests.fuzz.pod_parsers import BOMBS, LABELS, POD, address_of, assert_one_line
from tests.fuzz.runner import Check, Target, target

CONFIG: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "net",
    "type": "ratchet",
    "delegate": {"type": "bridge"},
    "boot_network": {"plugins": [{"type": "ptp", "cniVersion": "0.4.0"}], "name": "boot"},
    "etcd_host": "10.0.0.1,[2001:db8::1]:2380,etcd.local:99",
    "etcd_port": "2379",
    "etcd_prefix": "/a/b",
    "etcd_ca_cert": "/ca",
    "etcd_cert": "/cert",
    "etcd_key": "/key",
    "etcd_username": "u",
    "etcd_password_file": "/p",
    "child_path": "/opt/ratchet-child",
    "parent_interface": "eth1",
    "parent_address": "10.0.0.7",
    "use_labels": True,
    "label_source": "auto",
    "kubeconfig": "/k",
    "docker_socket": "/d",
    "state_dir": "/run/x",
    "log_file": "/l",
    "log_level": "debug",
    "wait": "all",
    "wait_seconds": 2.5,
    "vxlan_port": "4789",
    "mtu": 1450,
    "metrics_address": ":9100",
    "somebody/else": {"a": 1},
}
ALL_KEYS = (*CONFIG, *CONFIG_KEYS)


def make_config(mutator: Mutator) -> Any:
    seed = dict(CONFIG)
    for key in mutator.some(tuple(seed), mutator.pick((0.0, 0.2, 0.6))):
        if key != "name":
            del seed[key]
    return mutator.tree(seed, ALL_KEYS)


def check_config(obj: Any) -> None:
    """What is taken is of the right types and says the same when it is written and read again."""
    if not isinstance(obj, dict):
        return
    try:
        config = Config.parse(obj)
    except ConfigError as error:
        only((7,), error)
        assert_one_line(error)
        return
    settings = config.settings()
    codec.encode(settings)
    again = Config.from_settings(codec.decode(codec.encode(settings)))
    assert again.settings() == settings
    assert set(settings) == set(SETTINGS)
    for key in ("state_dir", "docker_socket", "kubeconfig", "log_file", "etcd_ca_cert", "etcd_key"):
        path = settings[key]
        assert path is None or (path.startswith("/") and path.isprintable())
    assert ".." not in config.name.split("/")
    assert "/" not in config.name
    assert config.etcd_prefix.startswith("/")
    assert not set(config.etcd_prefix.split("/")[1:]) & {"", ".", ".."}
    assert config.etcd_prefix.isascii()
    assert config.etcd_endpoints
    for host, port in config.etcd_endpoints:
        assert host.isascii()
        assert not set(host) & set("/@?#[] \t\n\0%\\")
        assert type(port) is int
        assert 0 < port < 65536
    assert type(config.wait_seconds) is float
    assert 0 <= config.wait_seconds <= 100
    assert type(config.vxlan_port) is int
    assert 0 < config.vxlan_port < 65536
    assert config.mtu is None or (type(config.mtu) is int and 68 <= config.mtu <= 65535)
    assert type(config.use_labels) is bool
    if config.parent_address is not None:
        assert not address_of(config.parent_address).ip.is_multicast
    for delegate in (config.delegate, config.boot_network):
        for plugin in [] if delegate is None else delegate.get("plugins", [delegate]):
            assert "/" not in plugin["type"]
            for key in ("name", "cniVersion"):
                # null is none, as to libcni
                found = {**plugin, **delegate}.get(key)  # type: ignore[dict-item]
                assert found is None or isinstance(found, str)


# Records ------------------------------------------------------------------------------------------

RECORD: dict[str, Any] = {
    "version": 1,
    "container_id": "c1",
    "ifname": "eth0",
    "netns": "/run/netns/a",
    "network": "net",
    "namespace": "default",
    "pod": "r1",
    "kubernetes_name": "router-1",
    "uid": "0e7b2b0c",
    "links": [
        {
            "ifname": "in1",
            "address": "192.168.2.100/24",
            "pair": "r2",
            "pair_ifname": "in2",
            "pair_address": "2001:db8::2/64",
        },
        {
            "ifname": "in2",
            "address": None,
            "pair": "r3",
            "pair_ifname": "in2",
            "pair_address": None,
        },
    ],
    "public_ip": None,
    "target_pod": None,
    "target_container": None,
    "attached_at": 1e9,
    "boottime_s": 12.5,
    "boot": {"plugins": [{"type": "bridge"}], "args": "", "path": "/opt/cni/bin"},
    "result": {"cniVersion": "1.0.0"},
}


def make_record(mutator: Mutator) -> tuple[str, bytes]:
    name = mutator.pick(
        ("c1.eth0.json", "c1.eth0.123.deleted", ".c1.eth0.json.5", "x.deleted", "a.b.deleted")
    )
    data = mutator.json(mutator.tree(RECORD, tuple(RECORD)))
    return name, mutator.raw(data) if mutator.chance(0.1) else data


@contextlib.contextmanager
def records_opened() -> Iterator[Check]:
    """The records' folder, in which one file at a time lies."""
    with tempfile.TemporaryDirectory(prefix="ratchet-fuzz-", dir=_memory()) as state_dir:
        os.mkdir(f"{state_dir}/attachments")
        records = Records(state_dir)
        directory = Directory(state_dir)

        def check(made: tuple[str, bytes]) -> None:
            name, data = made
            path = f"{state_dir}/attachments/{name}"
            with open(path, "wb") as file:
                file.write(data)
            with quiet():
                records.scan()
                found = [*directory.live(), *(one for _, one in directory.deleted())]
                directory.read("c1", "eth0")
            for attachment in (*found, *records.live.values(), *records.deleted.values()):
                check_attachment(attachment)
            os.unlink(path)
            records.scan()
            assert not records.live
            assert not records.deleted

        yield check


def check_attachment(attachment: Attachment) -> None:
    written = attachment.to_json()
    again = Attachment.from_json(codec.decode(codec.encode(written)))
    assert again == attachment
    assert again.to_json() == written


# What stands in etcd ------------------------------------------------------------------------------

DECLARATION: dict[str, Any] = {
    "container": "c1",
    "vni": 11,
    "ifname": "in1",
    "address": "192.168.2.100/24",
    "pair_ifname": "in2",
    "pair_address": "2001:db8::2/64",
}
PUBLISHED: dict[str, Any] = {
    "container": "c1",
    "declared": [["r2", "in1"], ["r3", "in2"]],
    "state_dir": "/run/ratchet/net",
}
OLD_LINK: dict[str, Any] = {
    "container": "c1",
    "primary_container": "c2",
    "vni": 13,
    "pair_ifname": "in4",
    "pair_address": "192.168.4.2/24",
    "since": 7,
}


def make_value(mutator: Mutator, seed: dict[str, Any]) -> str:
    data = mutator.json(mutator.tree(seed, tuple(seed)))
    with contextlib.suppress(UnicodeDecodeError):
        return data.decode("utf-8", "surrogatepass")
    return data.decode("utf-8", "replace")


def check_declaration(text: str) -> None:
    try:
        found = Declaration.loads(text, "r2")
    except ValueError:
        return
    check_link(found.link)
    assert 0 < found.vni < 2**24
    assert type(found.vni) is int
    assert found.container
    assert Declaration.loads(found.dumps(), "r2") == found


def check_link(link: Any) -> None:
    """A link that came from etcd can be given to the kernel and to etcd."""
    for name in (link.ifname, link.pair_ifname):
        raw = name.encode()
        assert 1 <= len(raw) <= 15
        assert name not in (".", "..")
        assert not set(raw) & set(b"/:%\0 \t\n\v\f\r")
    for address in (link.address, link.pair_address):
        if address is not None:
            assert str(type(address).parse(str(address))) == str(address)
            assert address_of(address).ip.packed == address.ip.packed
            assert "%" not in str(address)


def check_published(text: str) -> None:
    try:
        found = Published.loads(text)
    except ValueError:
        return
    assert all(is_in_place(pair) and is_in_place(ifname) for pair, ifname in found.declared)
    assert Published.loads(found.dumps()) == found


def is_in_place(name: str) -> bool:
    """Whether a key made of a name is where its maker wanted it."""
    return "/" not in name and name not in ("", ".", "..")


ASSOCIATION = {
    "id": "c1",
    "parentiface": "eth1",
    "parentaddr": "10.0.0.7",
    "vxlanid": "11",
    "pairip": "192.168.2.101",
    "pairifname": "in2",
    "primaryname": "r1",
    "links/r1:in1": json.dumps(DECLARATION),
    "links/r3:in9": json.dumps({**DECLARATION, "ifname": "in9", "vni": 12}),
    "v010/r4": json.dumps(OLD_LINK),
}


def make_association(mutator: Mutator) -> dict[str, str]:
    found = dict(ASSOCIATION)
    for _ in range(1 + mutator.times()):
        key = mutator.pick(tuple(ASSOCIATION))
        which = mutator.random.random()
        if which < 0.15:
            found.pop(key, None)
        elif which < 0.3:
            found[f"links/{mutator.text()}"] = make_value(mutator, DECLARATION)
        elif key.startswith("links/"):
            found[key] = make_value(mutator, DECLARATION)
        elif which < 0.4:
            found[f"v010/{mutator.text()}"] = make_value(mutator, OLD_LINK)
        elif key.startswith("v010/"):
            found[key] = make_value(mutator, OLD_LINK)
        else:
            found[key] = mutator.pick((mutator.text(), mutator.string(found.get(key, "1"))))
    return found


def check_association(made: dict[str, str]) -> None:
    """What others have written below a pod gives links that can be made, and no others."""
    there = {
        name: Entry(value, modified=5 + number, created=4)
        for number, (name, value) in enumerate(made.items())
    }
    pod = PodKey("default", "r2")
    with quiet():
        offers = IncomingLinks().on(pod, there)
        place = place_of(there)
        declaration = Declaration.loads(json.dumps(DECLARATION), "r2")
        v010.is_mixed(there, pod.sibling("r1"), pod, declaration)
        v010.is_half_written(there)
        Words.read({f"r2/{name}": entry for name, entry in there.items()})
    for link in old_links.written(there).values():
        assert OldLink.loads(link.dumps()) == link
    for offer in offers:
        if offer.link.ifname == v010.UNTOLD:
            check_link(replace(offer.link, ifname="x"))
        else:
            check_link(offer.link)
        assert is_in_place(offer.primary.name), offer.primary
        assert offer.vni is not None
        assert 0 < offer.vni < 2**24
    assert place is None or place.container


def make_names(mutator: Mutator) -> str:
    text = mutator.pick(("r1", "ns:r1", "default:r1", "r1,ns:r2", "r1:in1", ",,", ":", "a:b:c"))
    return mutator.pick((mutator.string(text), mutator.text(), mutator.pick(ADDRESSES)))


def check_names(text: str) -> None:
    with contextlib.suppress(ValueError):
        key = PodKey.parse(text)
        assert is_in_place(str(key))
        assert PodKey.parse(str(key)) == key
        assert key.sibling(key.name) == key
    assert len(targets(text)) <= text.count(",") + 1
    primary, ifname = keys.split_declaration(text)
    assert ":" not in primary
    assert text in (primary, f"{primary}:{ifname}")
    with contextlib.suppress(ValueError):
        address = keys.legacy_address(text)
        assert address is None or address_of(address).ip.packed == address.ip.packed
        assert address is None or "%" not in str(address)


# Requests to the child ----------------------------------------------------------------------------

REQUESTS: tuple[dict[str, Any], ...] = (
    {"op": "labels", "namespace": "default", "name": "router-1", "uid": "0e7b2b0c"},
    {"op": "attached", "attachment": "c1.eth0", "wait": "present", "timeout_s": 5.0},
    {"op": "attached", "attachment": "c1.eth0", "wait": "all", "timeout_s": 0},
    {"op": "deleted"},
    {"op": "deleted", "attachment": "c1.eth0"},
    {"op": "check", "attachment": "c1.eth0", "timeout_s": 3.0},
    {"op": "health"},
    {"op": "status"},
)
REQUEST_KEYS = (
    *("op", "attachment", "wait", "timeout_s", "namespace", "name", "uid", "settings", "started_s"),
)


class FakeEngine:
    """An engine, with its parts, of one pod, whose links are never there."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.is_cut_off = False
        self.trouble: str | None = None
        self.guard: str | None = None
        self.node = SimpleNamespace(address="10.0.0.1", interface="eth1")
        self.etcd = Health(self.clock)
        self.registry = self.status = self
        self.store = SimpleNamespace(get=self._get)

    def attached(self, name: str) -> tuple[PodKey, int] | None:
        return (PodKey("default", "a"), 1) if name == "c1.eth0" else None

    def check(self, key: PodKey) -> int | None:
        return 2

    def is_served(self, key: PodKey, number: int, mode: str) -> bool:
        return False

    def links(self, key: PodKey) -> tuple[LinkStatus, ...]:
        return (LinkStatus(ifname="in1", peer="b", state="waiting", primary=True),)

    def scan(self) -> None:
        pass

    def deleted(self, name: str) -> None:
        pass

    def pods(self) -> tuple[PodStatus, ...]:
        return ()

    def _get(self, key: str) -> None:
        raise StoreError("etcd is away")


class LookupsAtOnce(Lookups):
    """Without threads, and every pod is unknown."""

    def ask(self, namespace: str, name: str, uid: Any, answer: Answer) -> None:
        answer(PodUnknownError("pod", "it is not there"))


def make_request(mutator: Mutator) -> bytes:
    seed = dict(mutator.pick(REQUESTS))
    if mutator.chance(0.3):
        seed |= {"settings": {"name": "net"}, "started_s": 12.5}
    data = mutator.json(mutator.tree(seed, REQUEST_KEYS))
    return mutator.raw(data) if mutator.chance(0.1) else data


def check_request(line: bytes) -> None:
    """Each request is answered exactly once: at the latest when the service is closed."""
    answers: list[Any] = []
    try:
        request = decode(line)
    except BadRequestError as error:
        only((108,), error)
        return
    service = Service(FakeEngine(), None)  # type: ignore[arg-type]
    service._lookups = LookupsAtOnce("/k", SystemClock())
    with quiet():
        service.handle(request, answers.append)
    deadline = service.next_deadline()
    assert deadline is None or 0 < deadline < 1e12
    waits = not answers
    service.settle()
    assert len(answers) <= 1
    service.close()
    assert len(answers) == 1, f"answered {len(answers)} times"
    assert not waits or request["op"] in ("attached", "check")
    text = json.dumps(answers[0])
    assert len(text) < 20_000, "an answer that repeats a huge request"
    if not answers[0]["ok"]:
        assert answers[0]["code"] in (4, 11, 50, 102, 108), answers


# Manifests ----------------------------------------------------------------------------------------

MANIFEST: dict[str, Any] = {
    **POD,
    "metadata": {
        "name": "r1",
        "namespace": "default",
        "labels": LABELS,
        "annotations": {"ratchet.local_ip": "10.0.0.1/24"},
    },
    "spec": {
        "nodeName": "n1",
        "nodeSelector": {"a": "b"},
        "hostNetwork": False,
        "volumes": [{"name": "v", "configMap": {"name": "m"}}],
        "initContainers": [{"name": "i", "image": "x", "command": ["true"]}],
        "containers": [
            {"name": "c", "image": "x", "args": ["1"], "volumeMounts": [{"name": "v"}]},
        ],
    },
}
MANIFEST_YAML = """\
apiVersion: v1
kind: Pod
metadata: &m {name: a, labels: {ratchet: "true"}}
spec: {containers: [&c {name: c, image: x}]}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {<<: *m}, data: {a: b}}
- apiVersion: v1
  kind: Deployment
  metadata: {name: d}
"""
MANIFEST_KEYS = (
    *("kind", "apiVersion", "metadata", "name", "namespace", "labels", "spec", "containers"),
    *("items", "command", "args", "image", "volumes", "configMap", "generateName", "data"),
)


def make_manifest(mutator: Mutator) -> str:
    which = mutator.random.random()
    if which < 0.65:
        seed: Any = mutator.tree(MANIFEST, MANIFEST_KEYS)
        if mutator.chance(0.2):
            kind = mutator.pick(("List", "PodList", "Deployment", "ConfigMap"))
            seed = mutator.tree({"apiVersion": "v1", "kind": kind, "items": [seed, seed]})
        data = mutator.json(seed)
    elif which < 0.92:
        data = mutator.raw(MANIFEST_YAML.encode())
    else:
        data = mutator.pick(BOMBS).encode()
    return data.decode("utf-8", "replace")


def check_manifest(text: str) -> None:
    before = sys.stdin
    sys.stdin = io.StringIO(text)
    try:
        found = manifest.read(["-"])
    except OperatorError as error:
        assert len(str(error)) < 20_000
        return
    finally:
        sys.stdin = before
    for pod in found.pods:
        assert pod.name
        assert pod.containers
        for words in (pod.labels, pod.annotations, pod.node_selector):
            assert all(isinstance(a, str) and isinstance(b, str) for a, b in words.items())


# The log ------------------------------------------------------------------------------------------


def make_line(mutator: Mutator) -> tuple[str, dict[str, Any]]:
    fields = {
        key: mutator.pick((mutator.text(), mutator.string("plain text"), mutator.value(1), None))
        for key in mutator.some(("pod", "container", "link", "error", "details", "netns"))
    }
    return mutator.pick((mutator.text(), "attached")), fields


def check_line(made: tuple[str, dict[str, Any]]) -> None:
    """One line goes in as one line, and every field can be read back as it was."""
    message, fields = made
    text = log.line("info", "ratchet", message, fields, 1e9 + 0.25)
    assert text.endswith("\n")
    assert text.isprintable() or text[:-1].isprintable()
    assert len(text.splitlines()) == 1
    text.encode()
    read = read_logfmt(text[:-1])
    assert read.pop("time") == "2001-09-09T01:46:40.250Z"
    assert read.pop("level") == "info"
    assert read.pop("program") == "ratchet"
    expected = {"msg": message} | {
        key: str(value) for key, value in fields.items() if value is not None
    }
    assert read == {key: value[: log.LONGEST_VALUE] for key, value in expected.items()}


def read_logfmt(text: str) -> dict[str, str]:
    """Read a line as its readers do, by Go's rules for what stands in quotes."""
    found = {}
    place = 0
    while place < len(text):
        equals = text.index("=", place)
        key = text[place:equals]
        assert key.isidentifier(), key
        assert key not in found, f"{key} twice"
        place = equals + 1
        if place < len(text) and text[place] == '"':
            value = []
            place += 1
            while text[place] != '"':
                if text[place] != "\\":
                    value.append(text[place])
                    place += 1
                    continue
                kind = text[place + 1]
                length = {"u": 4, "U": 8}.get(kind, 0)
                digits = text[place + 2 : place + 2 + length]
                value.append(chr(int(digits, 16)) if length else {"n": "\n"}.get(kind, kind))
                place += 2 + length
            place += 1
            found[key] = "".join(value)
        else:
            end = text.find(" ", place)
            end = len(text) if end < 0 else end
            found[key] = text[place:end]
            place = end
        assert place == len(text) or text[place] == " "
        place += 1
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No line of the log goes anywhere, and none is an unforeseen error's."""
    before = log._append
    written: list[bytes] = []
    log._append = lambda _fd, data: written.append(data)  # type: ignore[assignment]
    try:
        yield
    finally:
        log._append = before
    for line in written:
        assert b"traceback=" not in line, line
        assert line.count(b"\n") == 1


def _memory() -> str | None:
    """A folder in memory, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


TARGETS: tuple[Target, ...] = (
    target("configuration", make_config, check_config, 6),
    Target("record", make_record, records_opened, 2),
    target("declaration", lambda m: make_value(m, DECLARATION), check_declaration, 4),
    target("published", lambda m: make_value(m, PUBLISHED), check_published, 4),
    target("association", make_association, check_association, 2),
    target("names", make_names, check_names, 3),
    target("child-request", make_request, check_request, 2),
    target("manifest", make_manifest, check_manifest, 0.2),
    target("log-line", make_line, check_line, 4),
)
