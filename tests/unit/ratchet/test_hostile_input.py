"""What fuzzing has found in the parent, each as small as it can be. See docs/fuzzing.md."""

from __future__ import annotations

import contextlib
import io
import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ratchet import docker, kubeconfig
from ratchet.attachments import Directory, load
from ratchet.cni import codec, invoke
from ratchet.cni.errors import CniError, DelegateError
from ratchet.config import Config
from ratchet.errors import ConfigError, LabelError, PodSourceError, PodUnknownError
from ratchet.names import is_ifname
from ratchet.plugin import cmd_status
from tests.unit.ratchet.fakes import install, request


@pytest.mark.parametrize("one", ["[", '{"a":'])
def test_what_is_nested_deeper_than_we_can_go_is_not_json_for_us(one: str) -> None:
    def text(depth: int) -> str:
        return one * depth + "1" + {"[": "]", '{"a":': "}"}[one] * depth

    codec.encode(codec.decode(text(codec.DEEPEST)))
    for depth in (codec.DEEPEST + 1, 500, 5000, 100_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            codec.decode(text(depth))


def test_many_brackets_side_by_side_are_right() -> None:
    assert codec.decode("[" + ",".join(["[]"] * 5000) + "]") == [[]] * 5000


def test_an_error_names_a_label_of_any_length_in_part() -> None:
    label = "ratchet." + "9" * 5000 + ".pair_ip"
    error = LabelError(label, "x" * 5000, f"{label} or nothing")
    assert len(str(error)) < 1500


def test_an_error_names_a_key_with_a_newline_on_one_line() -> None:
    assert "\n" not in str(ConfigError("annotations.a\nb", 5, "a string"))


@pytest.mark.parametrize("name", ["\ud800", "a\udc80", "é" * 8])
def test_a_name_that_no_interface_can_have_is_none(name: str) -> None:
    assert not is_ifname(name)


@pytest.mark.parametrize("key", ["name", "cniVersion"])
def test_a_list_of_delegates_has_texts_for_name_and_version(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"delegate\.{key}"):
        Config.parse({"name": "n", "delegate": {"plugins": [{"type": "a"}], key: 5}})


def test_credentials_do_not_go_over_http_in_capitals() -> None:
    content = b"""
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: "HTTP://10.0.0.1"}}]
users: [{name: u, user: {token: t}}]
"""
    with pytest.raises(PodSourceError, match="has to be https"):
        kubeconfig.parse(content, "/k")
    right = kubeconfig.parse(content.replace(b"HTTP://", b"HTTPS://"), "/k")
    assert right.server == "https://10.0.0.1"


@contextlib.contextmanager
def in_little_memory(mebibytes: int) -> Iterator[None]:
    """Fail when more is wanted at once.

    The limit protects the machine from what has no end. Its MemoryError alone proves nothing,
    since the code may answer it with an error of its own.
    """
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    tracemalloc.start()
    resource.setrlimit(resource.RLIMIT_AS, (now + 8 * mebibytes * 2**20, hard))
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        tracemalloc.stop()
    assert peak < mebibytes * 2**20


@pytest.mark.timeout(60)
@pytest.mark.parametrize("many", [9, 90])
def test_merge_keys_of_a_kubeconfig_take_little_time_and_memory(many: int) -> None:
    """Whether such a file is refused or read differs between the versions of PyYAML."""
    lines = ["a: &a {x: 1, y: 2}"]
    for before, name in zip("abcdefghijk", "bcdefghijkl", strict=True):
        lines.append(f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * many)}]}}")
    lines.append("current-context: c")
    lines.append("contexts: [{name: c, context: {cluster: k, user: u}}]")
    lines.append('clusters: [{name: k, cluster: {server: "https://10.0.0.1"}}]')
    lines.append("users: [{name: u, user: {token: t}}]")
    content = "\n".join(lines).encode()
    with in_little_memory(32):
        try:
            server = kubeconfig.parse(content, "/k").server
        except PodSourceError as error:
            assert "neither JSON nor YAML" in str(error)
        else:
            assert server == "https://10.0.0.1"


@pytest.mark.parametrize("length", [b"-1", b"-5"])
def test_an_engine_with_chunks_of_negative_length_is_out_of_order(
    monkeypatch: pytest.MonkeyPatch, length: bytes
) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    class Answered:
        def sendall(self, data: bytes) -> None:
            pass

        def settimeout(self, seconds: float) -> None:
            pass

        def makefile(self, *_: object) -> io.BufferedReader:
            answer = io.BytesIO(head + length + b"\r\n{}\r\n0\r\n\r\n")
            return io.BufferedReader(answer)

        def close(self) -> None:
            pass

    def connect(connection: Any) -> None:
        connection.sock = Answered()

    monkeypatch.setattr(docker._Connection, "connect", connect)
    with pytest.raises(PodUnknownError):
        docker.read_container("/s", "c1", 1.0)


RECORD = b"""{"version": 1, "container_id": "c", "ifname": "e", "netns": "/n", "network": "n",
"namespace": "d", "pod": "p", "kubernetes_name": null, "uid": null, "links": [], "public_ip": null,
"target_pod": null, "target_container": null, "attached_at": 1, "boottime_s": 1, "boot": null,
"result": {}}"""


@pytest.mark.parametrize("time", [b'"NaN"', b"true", b"1" + b"0" * 400, b"null"])
def test_a_record_with_a_time_that_is_none_is_skipped(tmp_path: Any, time: bytes) -> None:
    path = tmp_path / "c.e.json"
    path.write_bytes(RECORD)
    assert load(str(path)) is not None
    path.write_bytes(RECORD.replace(b'"attached_at": 1', b'"attached_at": ' + time))
    assert load(str(path)) is None


def test_a_deleted_record_that_somebody_else_has_named_ends_no_listing(tmp_path: Any) -> None:
    folder = tmp_path / "attachments"
    folder.mkdir()
    (folder / "x.deleted").write_bytes(RECORD)
    (folder / "c.e.\u0661.deleted").write_bytes(RECORD)
    assert len(Directory(str(tmp_path)).deleted()) == 2


@pytest.mark.parametrize("versions", [5, {"1.1.0": 1}, "1.1.0", None])
def test_a_delegate_that_states_its_versions_oddly_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, versions: object
) -> None:
    _, child = install(monkeypatch)
    child.answer = {"ok": True, "etcd": None}
    asked = []

    def run(config: Any, path: str, environ: Any, timeout_s: float | None = None) -> Any:
        asked.append(environ["CNI_COMMAND"])
        return {"supportedVersions": versions}

    monkeypatch.setattr(invoke, "run", run)
    config = {
        "cniVersion": "1.1.0",
        "name": "n",
        "state_dir": str(tmp_path / "state"),
        "delegate": {"type": "bridge"},
    }
    cmd_status(request("STATUS", config))
    assert asked == ["VERSION"]


@pytest.mark.parametrize("code", [0, -1, 2**32, True, "5", None])
def test_a_delegates_error_with_a_code_that_no_runtime_reads_is_not_passed_on(code: object) -> None:
    error = invoke._failure("bridge", 1, b"{}", {"code": code, "msg": "no"})
    assert isinstance(error, DelegateError)
    assert type(invoke._failure("bridge", 1, b"{}", {"code": 5, "msg": "no"})) is CniError
