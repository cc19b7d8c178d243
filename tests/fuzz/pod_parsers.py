"""Who a pod is and what its labels say: CNI_ARGS, labels, and the answers of their sources."""

from __future__ import annotations

import io
import ipaddress
import json
import re
import socket
from typing import Any, cast

import requests

from ratchet import docker, kubeconfig, kubernetes, labels, pods
from ratchet.cni.errors import CniError
from ratchet.cni.ip import Address
from ratchet.cni.skel import Request
from ratchet.config import Config
from ratchet.errors import (
    ChildError,
    LabelError,
    PodSourceError,
    PodUnknownError,
)
from tests.fuzz.cni_parsers import only
from tests.fuzz.mutate import ADDRESSES, Mutator
from tests.fuzz.runner import Target, target

POD_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
RFC_1123_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
ENGINE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")

LABELS = {
    "ratchet": "true",
    "ratchet.pod_name": "r1",
    "ratchet.primary": "true",
    "ratchet.local_ifname": "in1",
    "ratchet.local_ip": "192.168.2.100",
    "ratchet.pair_name": "r2",
    "ratchet.pair_ifname": "in2",
    "ratchet.pair_ip": "192.168.2.101",
    "ratchet.public_ip": "10.0.0.7",
    "ratchet.target_pod": "tp",
    "ratchet.target_container": "tc",
    "ratchet.2.local_ifname": "in3",
    "ratchet.2.pair_name": "r3",
    "ratchet.2.pair_ifname": "in4",
    "app": "router",
}
ANNOTATIONS = {
    "ratchet.2.local_ip": "2001:db8::1/64",
    "ratchet.2.pair_ip": "2001:db8::2/64",
    "ratchet.10.local_ifname": "in10",
    "ratchet.10.pair_name": "r3",
    "ratchet.10.pair_ifname": "in11",
}
NAMES = (
    *LABELS,
    *ANNOTATIONS,
    *("ratchet.3.pair_ip", "ratchet.1.pair_ip", "ratchet.02.pair_ip", "ratchet.2.primary"),
    *("ratchet.²." + "pair_ip", "ratchet.2.pod_name", "ratchet.", "ratchet.2.", "ratchet..pair_ip"),
)


# CNI_ARGS and the request -------------------------------------------------------------------------


def make_args(mutator: Mutator) -> str:
    args = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": "default",
        "K8S_POD_NAME": "router-1",
        "K8S_POD_INFRA_CONTAINER_ID": "c1",
        "K8S_POD_UID": "0e7b2b0c-70b5-4b53-9d3b-6a1bd5d2a9ff",
    }
    for key in mutator.some(tuple(args), 0.3):
        args[key] = mutator.pick((mutator.text(), mutator.string(args[key])))
    text = ";".join(f"{key}={value}" for key, value in args.items())
    return mutator.string(text) if mutator.chance(0.4) else text


def check_args(text: str) -> None:
    try:
        namespace, name, uid = pods.identity(pods.cni_args(text))
    except CniError as error:
        only((4,), error)
        assert_one_line(error)
        return
    if namespace is not None:
        assert RFC_1123_LABEL.match(namespace)
        assert len(namespace) <= 63
    if name is not None:
        assert len(name) <= 253
        pattern = ENGINE_NAME
        if namespace is not None:
            assert all(RFC_1123_LABEL.match(part) for part in name.split("."))
        assert pattern.match(name)
    if uid is not None:
        assert ENGINE_NAME.match(uid)


RUNTIME_CONFIG: dict[str, Any] = {
    "args": {"cni": {"labels": [{"key": "ratchet", "value": "true"}]}},
    "runtimeConfig": {"io.kubernetes.cri.pod-annotations": {"ratchet": "true"}},
}
REQUEST_KEYS = ("args", "cni", "labels", "key", "value", "runtimeConfig", "ratchet")


def make_pod_request(mutator: Mutator) -> tuple[str, str, Any, Any]:
    source = mutator.pick(("auto", "auto", "runtime", "kubernetes"))
    seed: dict[str, Any] = {
        key: value for key, value in RUNTIME_CONFIG.items() if mutator.chance(0.6)
    }
    if mutator.chance(0.3):
        seed["args"] = {"cni": {"labels": {"ratchet": "true"}}}
    config = mutator.tree(seed, REQUEST_KEYS)
    answer: Any = mutator.pick((None, ({"ratchet": "true"}, {}), ({}, {}), ChildError("is unwell")))
    return source, make_args(mutator), config, answer


def check_find_pod(made: tuple[str, str, Any, Any]) -> None:
    """The labels are strings, whoever gave them, and no source is asked in another's place."""
    source, args, request_config, answer = made
    if not isinstance(request_config, dict):
        return
    config = Config.parse(
        {
            "name": "n",
            "label_source": source,
            "kubeconfig": "/nonexistent/kubeconfig",
            "docker_socket": "/nonexistent/docker.sock",
        }
    )
    request = Request("ADD", container_id="c1", args=args, config=request_config)

    def ask_child(namespace: str, name: str, uid: str | None) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    try:
        pod = pods.find_pod(config, request, ask_child)
    except PodSourceError as error:  # no child, and no kubeconfig
        assert source != "runtime"
        only((102,), error)
        return
    except CniError as error:
        only((4, 7), error)
        assert_one_line(error)
        return
    for words in (pod.labels, pod.annotations):
        assert all(isinstance(key, str) and isinstance(word, str) for key, word in words.items())
    assert isinstance(pods.is_eligible(pod), bool)
    assert RFC_1123_LABEL.match(pod.namespace)


def assert_one_line(error: CniError) -> None:
    text = f"{error.msg}{error.details}"
    assert "\n" not in text
    assert "\0" not in text
    assert "\x1b" not in text
    assert len(text) < 5000


# Labels -------------------------------------------------------------------------------------------


def make_labels(mutator: Mutator) -> tuple[dict[str, str], dict[str, str], str | None, str]:
    found = [dict(LABELS), dict(ANNOTATIONS)]
    for _ in range(mutator.times()):
        words = mutator.pick(found)
        key = mutator.pick(tuple(words) or ("ratchet",))
        which = mutator.random.random()
        if which < 0.2:
            words.pop(key, None)
        elif which < 0.4:
            words[mutator.pick(NAMES)] = mutator.pick((mutator.text(), mutator.pick(ADDRESSES)))
        elif which < 0.5:
            words[mutator.misspelt(mutator.pick(NAMES))] = mutator.text()
        elif which < 0.55:
            number = mutator.pick(("3", "9", "10", "0", "²", "٣", "9" * 5000, "-2", "2.0"))
            words[f"ratchet.{number}.{mutator.pick(labels.LINK_FIELDS)}"] = mutator.text()
        elif key.endswith("_ip"):
            words[key] = mutator.pick(
                (mutator.pick(ADDRESSES), mutator.string(words.get(key, "1")))
            )
        else:
            words[key] = mutator.pick((mutator.text(), mutator.string(words.get(key, "x"))))
    if mutator.chance(0.05):
        found[1].update(_many_links(mutator.pick((20, 100))))
    own_name = mutator.pick(("r1", "r1", None, "r2", mutator.text()))
    return found[0], found[1], own_name, mutator.pick(("eth0", "eth0", "in1", "net1"))


def _many_links(count: int) -> dict[str, str]:
    return {
        f"ratchet.{number}.{field}": f"{value}{number}"
        for number in range(100, 100 + count)
        for field, value in (("local_ifname", "l"), ("pair_name", "p"), ("pair_ifname", "q"))
    }


def check_labels(made: tuple[dict[str, str], dict[str, str], str | None, str]) -> None:
    """What is taken is fit for keys, netlink messages and terminals; the rest names its label."""
    words, annotations, own_name, cni_ifname = made
    try:
        wiring = labels.parse(words, annotations, own_name=own_name, cni_ifname=cni_ifname)
    except LabelError as error:
        only((100,), error)
        assert_one_line(error)
        assert error.label.isascii()
        return
    fields = words | annotations
    _check_name(wiring.pod_name)
    ends = set()
    for link in wiring.links:
        _check_ifname(link.ifname, cni_ifname)
        _check_ifname(link.pair_ifname, cni_ifname)
        _check_name(link.pair)
        assert link.pair != wiring.pod_name
        assert link.ifname not in ends
        ends.add(link.ifname)
        for address in (link.address, link.pair_address):
            _check_address(address)
        if link.address is not None and link.pair_address is not None:
            assert address_of(link.address).ip != address_of(link.pair_address).ip
    far = [(link.pair, link.pair_ifname) for link in wiring.links]
    assert len(far) == len(set(far))
    _check_address(wiring.public_ip)
    for text in (wiring.target_pod, wiring.target_container):
        assert text is None or (text.isprintable() and len(text) <= 253)
    numbered = {
        key.split(".")[1] for key in fields if re.match(r"ratchet\.[0-9]+\.(local|pair)_", key)
    }
    assert len(wiring.links) >= len(numbered)


def _check_name(name: str) -> None:
    assert POD_NAME.match(name)
    assert len(name) <= 253


def _check_ifname(name: str, cni_ifname: str) -> None:
    raw = name.encode()
    assert 1 <= len(raw) <= 15
    assert not set(raw) & set(b"/:%\0 \t\n\v\f\r\xa0")
    assert name.isprintable()
    assert name not in (".", "..", "lo", "all", "default", cni_ifname)


def address_of(address: Any) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    """An address as the standard library reads what it is written as."""
    return ipaddress.ip_interface(str(address))


def _check_address(address: Address | None) -> None:
    if address is None:
        return
    ip = address_of(address).ip
    assert str(Address.parse(str(address))) == str(address), "not in its canonical form"
    assert "%" not in str(address)
    assert not (ip.is_unspecified or ip.is_multicast or ip.is_loopback)


def make_address(mutator: Mutator) -> str:
    text = mutator.pick(ADDRESSES)
    which = mutator.random.random()
    if which < 0.3:
        packed = mutator.random.getrandbits(128)
        for _ in range(mutator.times()):
            packed &= mutator.random.getrandbits(128) << mutator.pick((0, 16, 48, 96))
        made = ipaddress.IPv6Address(packed & (2**128 - 1))
        text = mutator.pick((str(made), made.exploded, str(made).upper()))
    elif which < 0.5:
        text = str(ipaddress.IPv4Address(mutator.random.getrandbits(32)))
    if mutator.chance(0.3):
        text += f"/{mutator.random.randrange(-1, 131)}"
    return mutator.string(text) if mutator.chance(0.4) else text


def check_address_label(text: str) -> None:
    """An address in a label is what the standard library takes for a host's, and no other."""
    fields = {"ratchet.public_ip": text}
    try:
        found = labels.parse({}, fields, own_name="r1", cni_ifname="eth0").public_ip
    except LabelError as error:
        assert expected_address(text) is None, f"refused: {error}"
        assert_one_line(error)
        return
    expected = expected_address(text)
    assert expected is not None, f"taken for {found}"
    assert found is not None
    assert address_of(found) == expected
    assert str(Address.parse(str(found))) == str(found)


def expected_address(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface | None:
    """What docs/labels.md says of an address, said once more by means of ipaddress."""
    host, slash, prefix_len = text.partition("/")
    if "%" in host or (slash and not (prefix_len.isascii() and prefix_len.isdigit())):
        return None
    if len(prefix_len) > 3:
        return None
    try:
        ip = ipaddress.ip_address(host)
        found = ipaddress.ip_interface(
            f"{host}/{prefix_len if slash else 24 if ip.version == 4 else 64}"
        )
    except ValueError:
        return None
    network = found.network
    if ip.is_unspecified or ip.is_multicast or ip.is_loopback or network.prefixlen == 0:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return None
    if network.prefixlen <= network.max_prefixlen - 2 and (
        ip == network.network_address or (ip.version == 4 and ip == network.broadcast_address)
    ):
        return None
    return None if str(ip) == "255.255.255.255" else found


# kubeconfig ---------------------------------------------------------------------------------------

KUBECONFIG: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    "clusters": [
        {
            "name": "k",
            "cluster": {"server": "https://10.0.0.1:6443", "certificate-authority-data": "Q0E="},
        }
    ],
    "users": [{"name": "u", "user": {"token": "sEcReT-token"}}],
}
KUBECONFIG_KEYS = (
    *("server", "token", "tokenFile", "client-certificate", "client-key", "client-key-data"),
    *("client-certificate-data", "insecure-skip-tls-verify", "exec", "as", "username", "password"),
    *(
        "proxy-url",
        "tls-server-name",
        "certificate-authority",
        "name",
        "cluster",
        "user",
        "context",
    ),
)
YAML = """\
apiVersion: v1
kind: Config
current-context: &name c
contexts:
- name: *name
  context: {cluster: k, user: u}
clusters:
- name: k
  cluster: &k
    server: https://[2001:db8::1]:6443
    insecure-skip-tls-verify: true
users:
- {name: u, user: {token: sEcReT-token}}
- name: v
  user:
    <<: *k
"""
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(12)
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} {{<<: [{','.join(['*' + chr(97 + n)] * 9)}]}}\n"
    for n in range(12)
)
BOMBS = (
    LAUGHS,
    MERGES,
    "current-context: &a [*a]\ncontexts: *a\n",
    "&a {a: *a, contexts: *a, current-context: c}",
    "&a [*a]",
    "contexts: &a\n- name: c\n  context: *a\ncurrent-context: c\n",
    "&a {? *a : b}",
    "? [a, b]\n: c\n",
    "? {a: b}\n: c\n",
    "x: !!bool foo\n",
    "x: !!int ''\n",
    "x: !!float ''\n",
    "x: !!timestamp foo\n",
    "x: 2001-99-99\n",
    "x: !!binary '\xff'\n",
    "x: !!python/object/apply:os.system [id]\n",
    "x: !!set {a, b}\n",
    "x: !!omap [a]\n",
    "x: !!pairs a\n",
    "x: 0x" + "f" * 5000 + "\n",
    "x: 0b" + "1" * 20000 + "\n",
    "x: " + "9" * 5000 + "\n",
    "x: " + "1:" * 3000 + "1\n",
    "x: .inf\ny: .nan\n",
    "current-context: 0x" + "f" * 5000,
    "[" * 300,
    "[" * 20_000,
    "{" * 20_000,
    "- " * 3000 + "a",
    "? " * 3000 + "a",
    "a: " * 300,
    "%YAML 9.9\n---\na: b",
    "%TAG ! tag:x,2000:\n---\n!a b",
    "--- a\n--- b\n",
    "a: |9\n x",
    "\tx: y",
    "a: *nowhere",
    "a: &a\nb: *a",
    "<<: x",
    "<<: [x]",
    "=: x",
)


def make_kubeconfig(mutator: Mutator) -> bytes:
    which = mutator.random.random()
    if which < 0.7:
        return mutator.json(mutator.tree(KUBECONFIG, KUBECONFIG_KEYS))
    if which < 0.92:
        return mutator.raw(YAML.encode())
    bomb = mutator.pick(BOMBS).encode()
    return bomb if mutator.chance(0.7) else mutator.raw(bomb)


def check_kubeconfig(content: bytes) -> None:
    try:
        found = kubeconfig.parse(content, "/nonexistent/kubeconfig")
    except PodSourceError as error:
        only((102,), error)
        assert "\n" not in str(error)
        if content.count(b"sEcReT") == 1:  # elsewhere it is no secret
            assert "sEcReT" not in f"{error}{error.__cause__}"
        return
    assert found.server.startswith(("https://", "http://"))
    assert found.server.isascii()
    assert found.server.isprintable()
    assert found.token is None or (found.token.isprintable() and found.token.isascii())
    assert (found.certificate is None) == (found.key is None)
    assert found.verify or found.ca is None
    if found.token is not None or found.certificate is not None:
        assert found.server.startswith("https://")
    assert content.count(b"sEcReT") > 1 or "sEcReT" not in repr(found)
    assert all(path.startswith("/") and "\0" not in path for path in found.files)
    requests.Request("GET", f"{found.server}/api/v1/namespaces/a/pods/b")


# The API server's answers -------------------------------------------------------------------------

POD: dict[str, Any] = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {
        "name": "router-1",
        "namespace": "default",
        "uid": "0e7b2b0c",
        "labels": {"ratchet": "true"},
        "annotations": {"kubernetes.io/config.hash": "h"},
    },
    "spec": {"containers": [{"name": "a"}]},
}
STATUS: dict[str, Any] = {"kind": "Status", "message": "no such pod\nsEcReT-token", "code": 404}
POD_KEYS = ("kind", "metadata", "name", "namespace", "uid", "labels", "annotations", "message")


class Response:
    """What requests gives, as far as it is looked at."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status_code = status
        self.headers = headers
        self._body = body

    def iter_content(self, _size: int) -> Any:
        yield from (self._body[place : place + 1000] for place in range(0, len(self._body), 1000))

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Adapter:
    """An API server that has one answer, over and over."""

    def __init__(self, response: Response) -> None:
        self._response = response

    def send(self, *_: object, **__: object) -> Response:
        return self._response

    def close(self) -> None:
        pass


def make_api_answer(mutator: Mutator) -> tuple[int, dict[str, str], bytes, str | None]:
    status = mutator.pick((200, 200, 200, 200, 201, 204, 301, 302, 401, 403, 404, 429, 500, 0, 999))
    seed = POD if mutator.chance(0.8) else STATUS
    headers: dict[str, str] = {}
    if mutator.chance(0.05):
        headers["Content-Encoding"] = mutator.pick(("gzip", "", "identity", mutator.text()))
    if mutator.chance(0.05):
        headers["Retry-After"] = mutator.pick(("-1", "²", "9999999", "soon", "1e9", "99999"))
    uid = mutator.pick((None, "0e7b2b0c", "h", "other", ["0e7b2b0c"], 5, True))
    return status, headers, mutator.json(mutator.tree(seed, POD_KEYS)), uid  # type: ignore[return-value]


def check_api_answer(made: tuple[int, dict[str, str], bytes, str | None]) -> None:
    status, headers, body, uid = made
    server = object.__new__(kubernetes._Server)
    server.config = kubeconfig.parse(json.dumps(KUBECONFIG).encode(), "/k")
    server._path = "/k"
    server._adapter = Adapter(Response(status, headers, body))  # type: ignore[assignment]
    server._request = None
    try:
        answer = server.get("default", "router-1", float("inf"))
        words, annotations = kubernetes._checked(answer, "pod a", "default", "router-1", uid)
    except (PodUnknownError, PodSourceError) as error:
        only((11, 102), error)
        assert "\n" not in str(error)
        assert "sEcReT-token" not in str(error)
        return
    assert status == 200
    for found in (words, annotations):
        assert all(isinstance(key, str) and isinstance(word, str) for key, word in found.items())


# The engine's answers -----------------------------------------------------------------------------

CONTAINER: dict[str, Any] = {
    "Id": "c1" + "0" * 62,
    "Name": "/k8s_POD_router-1",
    "Config": {
        "Labels": {
            "io.kubernetes.pod.namespace": "default",
            "io.kubernetes.pod.name": "router-1",
            "io.kubernetes.pod.uid": "0e7b2b0c",
            "annotation.ratchet": "true",
            "ratchet": "true",
        }
    },
}
CONTAINER_KEYS = ("Id", "Name", "Config", "Labels", *CONTAINER["Config"]["Labels"])
HEADS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/1.1 404 No\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 301 Go\r\nLocation: http://other/\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 99999 OK\r\n\r\n",
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\xff\xfe: \x00\r\n\r\n",
    b"ICY 200 OK\r\n\r\n",
    b"\r\n\r\n",
    b"",
)


class EngineSocket:
    """A connection on which everything has been answered already."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def sendall(self, _data: bytes) -> None:
        pass

    def settimeout(self, _seconds: float) -> None:
        pass

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._answer))

    def close(self) -> None:
        pass


def make_engine_answer(mutator: Mutator) -> bytes:
    body = mutator.json(mutator.tree(CONTAINER, CONTAINER_KEYS))
    head = mutator.pick(HEADS) if mutator.chance(0.4) else HEADS[0]
    if b"%" in head:
        head %= len(body)
    data = head + body + (b"\r\n0\r\n\r\n" if b"chunked" in head else b"")
    return mutator.raw(data) if mutator.chance(0.2) else data


def check_engine_answer(answer: bytes) -> None:
    def connect(self: docker._Connection) -> None:
        self.sock = cast("socket.socket", EngineSocket(answer))

    before = docker._Connection.connect
    docker._Connection.connect = connect  # type: ignore[method-assign]
    try:
        container = docker.read_container("/s", "c1", 5.0)
    except (PodUnknownError, PodSourceError) as error:
        only((11, 102), error)
        assert "\n" not in str(error)
        return
    finally:
        docker._Connection.connect = before  # type: ignore[method-assign]
    if container is None:
        return
    assert container.namespace is None or RFC_1123_LABEL.match(container.namespace)
    assert container.name is None or ENGINE_NAME.match(container.name)
    for words in (container.labels, container.annotations):
        assert all(isinstance(key, str) and isinstance(word, str) for key, word in words.items())


TARGETS: tuple[Target, ...] = (
    target("cni-args", make_args, check_args, 4),
    target("find-pod", make_pod_request, check_find_pod, 3),
    target("labels", make_labels, check_labels, 8),
    target("label-address", make_address, check_address_label, 6),
    target("kubeconfig", make_kubeconfig, check_kubeconfig, 0.6),
    target("api-server-answer", make_api_answer, check_api_answer, 2),
    target("engine-answer", make_engine_answer, check_engine_answer, 2),
)
