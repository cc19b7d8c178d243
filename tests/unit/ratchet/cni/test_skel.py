from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.cni import skel
from ratchet.cni.errors import CniError

ATTACHMENT = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}
CONFIG = {"cniVersion": "1.1.0", "name": "net", "type": "ratchet"}
OPERATIONS = ("ADD", "DEL", "CHECK", "GC", "STATUS")


def serve(
    environ: dict[str, str], stdin: bytes | dict[str, Any], answer: Any = None
) -> tuple[int, Any, list[skel.Request]]:
    """Return exit code, what was printed, decoded, and the requests that reached an operation."""
    seen: list[skel.Request] = []

    def operation(request: skel.Request) -> Any:
        seen.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    out = io.BytesIO()
    data = stdin if isinstance(stdin, bytes) else json.dumps(stdin).encode()
    code = skel.main(
        environ,
        io.BytesIO(data),
        out,
        dict.fromkeys(OPERATIONS, operation),
        lambda exc: CniError(199, "crashed", str(exc)),
    )
    text = out.getvalue()
    return code, json.loads(text) if text else None, seen


@pytest.mark.parametrize("command", OPERATIONS)
def test_a_request_reaches_its_operation_and_its_result_is_printed(command: str) -> None:
    code, printed, seen = serve(
        {**ATTACHMENT, "CNI_COMMAND": command, "CNI_ARGS": "A=B"}, CONFIG, {"ips": []}
    )
    assert (code, printed) == (0, {"ips": []})
    (request,) = seen
    assert (request.command, request.container_id, request.ifname) == (command, "c1", "eth0")
    assert (request.netns, request.path, request.args) == ("/run/netns/x", "/opt/cni/bin", "A=B")
    assert request.config == CONFIG


def test_nothing_is_printed_when_an_operation_has_no_result() -> None:
    assert serve({**ATTACHMENT, "CNI_COMMAND": "DEL"}, CONFIG)[:2] == (0, None)


@pytest.mark.parametrize("command", ["", "add", "UPDATE", "VERSION ", "\n"])
def test_an_unknown_command_is_error_4(command: str) -> None:
    code, printed, seen = serve({**ATTACHMENT, "CNI_COMMAND": command}, CONFIG)
    assert (code, printed["code"], seen) == (1, 4, [])


REQUIRED = {
    "ADD": {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"},
    "CHECK": {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"},
    "DEL": {"CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"},
    "GC": {"CNI_PATH"},
    "STATUS": {"CNI_PATH"},
}


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("key", sorted(ATTACHMENT))
@pytest.mark.parametrize("command", OPERATIONS)
def test_each_operation_demands_its_variables(command: str, key: str, empty: bool) -> None:
    environ = {**ATTACHMENT, "CNI_COMMAND": command}
    del environ[key]
    if empty:
        environ[key] = ""
    code, printed, seen = serve(environ, CONFIG)
    if key in REQUIRED[command]:
        assert (code, printed["code"], seen) == (1, 4, [])
        assert key in printed["msg"]
    else:
        assert (code, len(seen)) == (0, 1)


@pytest.mark.parametrize("container_id", ["-a", ".a", "_a", "a/b", "a b", "a\n", "ä", "../x"])
def test_a_container_id_that_is_none_is_error_4(container_id: str) -> None:
    environ = {**ATTACHMENT, "CNI_COMMAND": "DEL", "CNI_CONTAINERID": container_id}
    code, printed, seen = serve(environ, CONFIG)
    assert (code, printed["code"], seen) == (1, 4, [])
    assert "CNI_CONTAINERID" in printed["msg"]


@pytest.mark.parametrize(
    "ifname", [".", "..", "a/b", "a:b", "a b", "a\tb", "a\u00a0b", "x" * 16, "é" * 8]
)
def test_an_ifname_that_is_none_is_error_4(ifname: str) -> None:
    code, printed, seen = serve({**ATTACHMENT, "CNI_COMMAND": "ADD", "CNI_IFNAME": ifname}, CONFIG)
    assert (code, printed["code"], seen) == (1, 4, [])
    assert "CNI_IFNAME" in printed["msg"]


def test_configuration_that_is_not_json_is_error_6() -> None:
    code, printed, _ = serve({**ATTACHMENT, "CNI_COMMAND": "ADD"}, b'{"name":')
    assert (code, printed["code"], printed["cniVersion"]) == (1, 6, "1.1.0")


def test_a_missing_name_is_error_7_in_the_configurations_version() -> None:
    code, printed, _ = serve({**ATTACHMENT, "CNI_COMMAND": "ADD"}, {"cniVersion": "0.4.0"})
    assert (code, printed["code"], printed["cniVersion"]) == (1, 7, "0.4.0")


def test_an_unknown_version_is_error_1_in_the_newest_version() -> None:
    config = {**CONFIG, "cniVersion": "2.0.0"}
    code, printed, _ = serve({**ATTACHMENT, "CNI_COMMAND": "ADD"}, config)
    assert (code, printed["code"], printed["cniVersion"]) == (1, 1, "1.1.0")


def test_errors_of_a_configuration_without_version_are_0_1_0() -> None:
    error = CniError(100, "a label is wrong", "which")
    code, printed, _ = serve({**ATTACHMENT, "CNI_COMMAND": "ADD"}, {"name": "n"}, error)
    assert code == 1
    assert printed == {
        "cniVersion": "0.1.0", "code": 100, "msg": "a label is wrong", "details": "which"
    }  # fmt: skip


@pytest.mark.parametrize(
    "environ",
    [{"CNI_COMMAND": "FINALIZE"}, {"CNI_COMMAND": "ADD", "CNI_NETNS": ""}, {"CNI_COMMAND": ""}],
)
def test_errors_of_the_environment_have_the_configurations_version(
    environ: dict[str, str],
) -> None:
    code, printed, seen = serve({**ATTACHMENT, **environ}, {**CONFIG, "cniVersion": "0.4.0"})
    assert (code, printed["code"], printed["cniVersion"], seen) == (1, 4, "0.4.0", [])
    assert serve({**ATTACHMENT, **environ}, b"nonsense")[1]["code"] == 4


def test_a_version_of_null_is_none() -> None:
    environ = {**ATTACHMENT, "CNI_COMMAND": "ADD"}
    code, _, seen = serve(environ, {**CONFIG, "cniVersion": None})
    assert code == 0
    assert "cniVersion" not in seen[0].config
    printed = serve(environ, {**CONFIG, "cniVersion": None}, CniError(100, "no"))[1]
    assert printed["cniVersion"] == "0.1.0"


@pytest.mark.parametrize(
    ("command", "stated", "allowed"),
    [
        ("ADD", "", True), ("DEL", "0.1.0", True),
        ("CHECK", "", False), ("CHECK", "0.3.1", False), ("CHECK", "0.4.0", True),
        ("GC", "1.0.0", False), ("GC", "1.1.0", True),
        ("STATUS", "1.0.0", False), ("STATUS", "1.1.0", True),
    ],
)  # fmt: skip
def test_operations_are_served_from_the_version_that_brought_them(
    command: str, stated: str, allowed: bool
) -> None:
    config = {"name": "n", "cniVersion": stated} if stated else {"name": "n"}
    code, printed, seen = serve({**ATTACHMENT, "CNI_COMMAND": command}, config)
    assert len(seen) == allowed
    assert (code == 0) if allowed else (printed["code"] == 1)


@pytest.mark.parametrize("stdin", [b"", b"{}", b"nonsense", b"[]", b'{"cniVersion": 3}'])
def test_version_needs_nothing(stdin: bytes) -> None:
    code, printed, _ = serve({"CNI_COMMAND": "VERSION"}, stdin)
    assert code == 0
    assert printed == {
        "cniVersion": "1.1.0",
        "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    }


def test_version_answers_in_the_version_of_the_question() -> None:
    assert serve({"CNI_COMMAND": "VERSION"}, {"cniVersion": "0.4.0"})[1]["cniVersion"] == "0.4.0"


def test_an_unexpected_exception_is_an_error_and_no_traceback() -> None:
    code, printed, _ = serve({**ATTACHMENT, "CNI_COMMAND": "ADD"}, CONFIG, KeyError("x"))
    assert (code, printed["code"]) == (1, 199)


def test_a_result_that_cannot_be_written_is_an_error() -> None:
    code, printed, _ = serve({**ATTACHMENT, "CNI_COMMAND": "ADD"}, CONFIG, {"a": {1}})
    assert (code, printed["code"]) == (1, 199)


@given(
    st.dictionaries(
        st.sampled_from([*ATTACHMENT, "CNI_COMMAND", "CNI_ARGS"]),
        st.text(max_size=20) | st.sampled_from([*OPERATIONS, "VERSION", "eth0", "c1"]),
    ),
    st.binary(max_size=40) | st.just(json.dumps(CONFIG).encode()),
)
def test_whatever_comes_is_answered_as_the_specification_says(
    environ: dict[str, str], stdin: bytes
) -> None:
    code, printed, seen = serve(environ, stdin, {"cniVersion": "1.1.0"})
    if code == 0:
        assert seen or "supportedVersions" in printed
    else:
        assert code == 1
        assert 1 <= printed["code"] <= 7
        assert isinstance(printed["msg"], str)
