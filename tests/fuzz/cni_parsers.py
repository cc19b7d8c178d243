"""The specification's parsers: JSON, request configurations, results, the environment."""

from __future__ import annotations

import io
import json
import os
from typing import Any

from ratchet import names
from ratchet.cni import codec, config, result, skel, version
from ratchet.cni.errors import CniError
from tests.fuzz.mutate import Mutator
from tests.fuzz.runner import Target, target

NETWORK: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "ratchet",
    "type": "ratchet",
    "delegate": {"type": "bridge", "name": "cbr0", "ipam": {"type": "host-local"}},
    "runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 2}]},
    "args": {"cni": {"labels": {"ratchet": "true"}}},
    "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/24"}]},
    "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}],
}
DELEGATE: dict[str, Any] = {
    "plugins": [
        {"type": "bridge", "cniVersion": "0.4.0", "args": {"cni": {"ips": ["10.0.0.1"]}}},
        {"type": "portmap", "runtimeConfig": {"mac": "02:00:00:00:00:01"}},
    ],
    "name": "cbr0",
    "cniVersion": "0.4.0",
}
RESULTS: tuple[dict[str, Any], ...] = (
    {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "veth1", "mac": "02:00:00:00:00:01", "mtu": 1500},
            {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"},
        ],
        "ips": [
            {"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 1},
            {"address": "2001:db8::5/64", "interface": 1},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400}, {"dst": "::/0"}],
        "dns": {"nameservers": ["10.1.0.1"], "search": ["a.b"]},
    },
    {
        "cniVersion": "0.3.1",
        "interfaces": [{"name": "lo", "sandbox": "/run/netns/a"}],
        "ips": [{"version": "4", "address": "127.0.0.1/8", "interface": 0}],
    },
    {
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
        "ip6": {"ip": "2001:db8::5/64", "routes": [{"dst": "::/0", "gw": "2001:db8::1"}]},
        "dns": {"nameservers": ["10.1.0.1"]},
    },
    {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/16"}], "interfaces": None},
)
RESULT_KEYS = (
    *("interfaces", "ips", "routes", "dns", "ip4", "ip6", "ip", "address", "gateway", "interface"),
    *("name", "mac", "sandbox", "dst", "gw", "cniVersion", "mtu", "scope"),
)
CONFIG_KEYS = (
    *("cniVersion", "name", "type", "args", "runtimeConfig", "prevResult", "capabilities"),
    *("cni.dev/valid-attachments", "cni.dev/attachments", "plugins", "containerID", "ifname"),
)
ENVIRON = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/a",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=a",
    "CNI_PATH": "/opt/cni/bin",
}
COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")


def only(codes: tuple[int, ...], error: CniError) -> None:
    """An error must be one of these, and be told in strings."""
    assert error.code in codes, f"code {error.code}: {error}"
    assert type(error.code) is int
    assert isinstance(error.msg, str)
    assert error.msg
    assert isinstance(error.details, str)


# JSON ---------------------------------------------------------------------------------------------


def make_json(mutator: Mutator) -> bytes:
    which = mutator.random.random()
    if which < 0.4:
        return mutator.json(mutator.value())
    if which < 0.6:
        return mutator.json(mutator.tree(NETWORK))
    if which < 0.7:
        return mutator.raw(mutator.json(mutator.value()))
    if which < 0.85:
        return mutator.json(mutator.tree(mutator.pick(RESULTS)))
    return mutator.raw(b'{"a": [1, 2.5e3, "b\\u0041", null, true, {"c": -0}]}')


def check_json(data: bytes) -> None:
    """The codec and the standard library take the same texts for the same values.

    The codec also refuses NaN, numbers that are no floats, and what is nested too deeply.
    """
    refused = False
    value: Any = None
    try:
        value = codec.decode(data)
    except ValueError:
        refused = True
    try:
        expected = json.loads(data.decode(), parse_constant=_not_json, parse_float=_finite)
    except (ValueError, RecursionError):
        assert refused, f"taken for {value!r}, which json refuses"
        return
    if refused:
        assert depth(expected) > codec.DEEPEST, "refused, though json reads it"
        return
    assert depth(value) <= codec.DEEPEST
    # repr tells 1 from True and from 1.0, and -0.0 from 0.0.
    assert repr(value) == repr(expected)
    written = codec.encode(value)
    assert written == json.dumps(expected).encode()
    assert b"\n" not in written
    assert repr(codec.decode(written)) == repr(value)


def make_unencodable(mutator: Mutator) -> Any:
    value: Any = mutator.value()
    strange: Any = mutator.pick(
        (float("nan"), float("inf"), {1, 2}, b"bytes", range(3), {(1, 2): 3}, [float("-inf")])
    )
    return mutator.pick((strange, [value, strange], {"a": {"b": strange}, "c": value}))


def check_encode(value: Any) -> None:
    try:
        data = codec.encode(value)
    except (ValueError, TypeError):
        return
    raise AssertionError(f"written as {data[:100]!r}")


def depth(value: Any) -> int:
    """How deep a value is nested, without recursion."""
    deepest = 0
    waiting = [(value, 0)]
    while waiting:
        one, level = waiting.pop()
        deepest = max(deepest, level)
        if isinstance(one, dict):
            waiting += [(inner, level + 1) for inner in one.values()]
        elif isinstance(one, list):
            waiting += [(inner, level + 1) for inner in one]
    return deepest


def _not_json(text: str) -> Any:
    raise ValueError(text)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value


# Request configurations ---------------------------------------------------------------------------


def make_config(mutator: Mutator) -> tuple[bytes, Any]:
    seed = mutator.tree({**NETWORK, "delegate": DELEGATE}, CONFIG_KEYS)
    return mutator.json(seed), mutator.tree(DELEGATE, CONFIG_KEYS)


def check_config(made: tuple[bytes, Any]) -> None:
    data, delegate = made
    try:
        found = config.decode(data)
    except CniError as error:
        only((6,), error)
        return
    try:
        config.check(found)
    except CniError as error:
        only((1, 6, 7), error)
    else:
        assert version.is_supported(found.get("cniVersion", ""))
        assert names.is_identifier(found["name"])
        assert all(char.isascii() and (char.isalnum() or char in "-._") for char in found["name"])
    try:
        valid = config.valid_attachments(found)
    except CniError as error:
        only((7,), error)
    else:
        assert valid is None or all(
            isinstance(part, str) for one in valid for part in one if len(one) == 2
        )
    if isinstance(delegate, dict):
        handed = config.for_delegate(delegate, found)
        for key in config.OF_THE_CALL:
            if found.get(key) is not None and not isinstance(delegate.get(key), dict):
                assert handed[key] == found[key]
        codec.encode(handed)
        without = config.with_result(handed, None)
        assert "prevResult" not in without
        assert config.with_result(handed, {"a": 1})["prevResult"] == {"a": 1}


# Results ------------------------------------------------------------------------------------------


def make_result(mutator: Mutator) -> tuple[Any, str]:
    made = mutator.tree(mutator.pick(RESULTS), RESULT_KEYS)
    return made, mutator.pick(("eth0", "lo", "net1"))


def check_result(made: tuple[Any, str]) -> None:
    """What is read can be written in every version, and is the same when it is read again."""
    obj, ifname = made
    try:
        found = result.parse(obj)
    except ValueError:
        return
    if depth(obj) > codec.DEEPEST:
        return  # no plugin's answer, as the codec refuses it
    address = result.link_local("c1")
    completed = found.with_pod_address(ifname, "/run/netns/a", address)
    assert completed.ips_of(ifname)
    for one in (found, completed):
        for stated in (*version.SUPPORTED, ""):
            written = result.serialise(one, stated, ifname)
            text = codec.encode(written)
            again = codec.decode(text)
            assert result.is_of(again, stated), again
            reread = result.parse(again)
            # The oldest results do not say on which interface an address is.
            known = ifname if version.at_least(stated, "0.3.0") else None
            assert result.serialise(reread, stated, known) == written
            if version.at_least(stated, "1.1.0"):
                assert reread == one
            assert result.convert(written, stated, known) == written
    for ip in found.ips:
        assert ip.interface is None or found.interfaces[ip.interface].name


def check_link_local(seed: str) -> None:
    address = result.link_local(seed)
    assert str(address.network) == "169.254.0.0/16"
    assert 1 <= address.ip.packed[2] <= 254
    assert result.link_local(seed) == address


def make_container_id(mutator: Mutator) -> str:
    # Container IDs have been checked by then: no lone surrogates.
    return mutator.string("0123456789abcdef").encode("utf-8", "replace").decode()


# The environment ----------------------------------------------------------------------------------


def make_environ(mutator: Mutator) -> tuple[dict[str, str], bytes]:
    environ = {**ENVIRON, "CNI_COMMAND": mutator.pick(COMMANDS)}
    for _ in range(mutator.times()):
        key = mutator.pick(tuple(ENVIRON))
        if mutator.chance(0.25):
            environ.pop(key, None)
        else:
            text = mutator.pick((mutator.text(), mutator.string(environ.get(key, ""))))
            # As Python reads the bytes that the kernel has.
            environ[key] = os.fsdecode(text.encode("utf-8", "surrogatepass"))
    stdin: Any = {**NETWORK, "cniVersion": mutator.pick((*version.SUPPORTED, "", "2.0", "1.0"))}
    return environ, mutator.json(mutator.tree(stdin) if mutator.chance(0.5) else stdin)


def check_environ(made: tuple[dict[str, str], bytes]) -> None:
    """What the skeleton hands to an operation is right; all else is an error in CNI's words."""
    environ, data = made
    served: list[skel.Request] = []

    def serve(request: skel.Request) -> dict[str, Any]:
        served.append(request)
        return {"cniVersion": request.config.get("cniVersion") or "0.1.0"}

    stdout = io.BytesIO()
    operations = dict.fromkeys(COMMANDS[:-1], serve)
    status = skel.main(environ, io.BytesIO(data), stdout, operations)
    check_answer(status, stdout.getvalue(), environ.get("CNI_COMMAND", ""))
    for request in served:
        assert request.command in COMMANDS
        for name in skel.REQUIRED[request.command]:
            assert environ[name]
        if request.command in ("GC", "STATUS"):
            continue
        container_id, ifname = request.container_id, request.ifname.encode(errors="surrogateescape")
        assert all(char in IDENTIFIER for char in container_id)
        assert container_id[0].isalnum()
        assert 1 <= len(ifname) <= 15
        assert not set(ifname) & set(b"/: \t\n\v\f\r\0")
        assert ifname not in (b".", b"..")


IDENTIFIER = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


def check_answer(status: int, printed: bytes, command: str) -> dict[str, Any] | None:
    """Standard output holds one result or one CNI error, and the exit code says which."""
    assert status in (0, 1), f"exit code {status}"
    if not printed:
        assert status == 0
        assert command not in ("ADD", "VERSION"), "no result"
        return None
    assert printed.endswith(b"\n")
    assert printed.count(b"\n") == 1, "more than one line"
    answer = json.loads(printed)
    assert isinstance(answer, dict)
    if status:
        assert type(answer["code"]) is int
        assert 0 < answer["code"] < 2**32
        assert answer["code"] != 199, f"internal error: {answer}"
        assert isinstance(answer["msg"], str)
        assert answer["msg"]
        assert isinstance(answer.get("details", ""), str)
        assert answer["cniVersion"] in version.SUPPORTED
    else:
        assert "code" not in answer, answer
        assert command in ("ADD", "VERSION") or not answer or "cniVersion" in answer
    return answer


TARGETS: tuple[Target, ...] = (
    target("json", make_json, check_json, 6),
    target("json-unencodable", make_unencodable, check_encode, 0.5),
    target("request-configuration", make_config, check_config, 4),
    target("result", make_result, check_result, 2),
    target("link-local", make_container_id, check_link_local, 0.2),
    target("environment", make_environ, check_environ, 4),
)
