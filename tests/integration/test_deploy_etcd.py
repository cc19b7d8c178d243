"""etcd as deploy/ runs it: certificates by the job's script, the command of the manifest, v2 API.

The script runs with this machine's openssl and the command with its etcd; the Secrets are kept by a
stand-in of the API server. What differs is where the cluster would decide: addresses and folders.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ratchetctl.errors import InstallError
from ratchetctl.install import certificates
from ratchetctl.install.api import Api
from ratchetctl.install.credentials import ServiceAccount
from tests.integration.test_install_cluster import Api as Server
from tests.lab.deployment import DEPLOY
from tests.lab.namespaces import free_port
from tests.lab.polling import wait_for
from tests.unit.test_deploy import container, one, pod_of

SCRIPT = os.path.join(DEPLOY, "etcd", "certificates", "certificates.sh")
ADDRESS = "10.96.200.7"
MEMBERS = ("localhost",)
PATH = "/api/v1/namespaces/ratchet/secrets"


def make(folder: Path, address: str = ADDRESS, *names: str) -> str:
    """Run the job's script; what it says."""
    done = subprocess.run(
        ["sh", SCRIPT, str(folder)],
        env={
            "PATH": os.environ["PATH"],
            "RATCHET_ETCD_SERVICE_HOST": address,
            "ETCD_NAMES": " ".join(names or MEMBERS),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def test_the_script_makes_what_is_missing_and_nothing_else(tmp_path: Path) -> None:
    assert make(tmp_path).count("made") == 3
    before = contents(tmp_path)
    assert set(before) == {
        f"{part}/{key}" for part, (_, keys) in certificates.SECRETS.items() for key in keys
    }
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.rglob("*"))
    assert make(tmp_path) == ""
    assert contents(tmp_path) == before


def test_etcds_certificate_follows_its_address_and_names(tmp_path: Path) -> None:
    make(tmp_path)
    before = contents(tmp_path)
    assert make(tmp_path, "10.96.200.8") == "made the certificate for server\n"
    assert make(tmp_path, "10.96.200.8", "localhost", "b.example") != ""
    after = contents(tmp_path)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"server/tls.crt", "server/tls.key"}


def test_another_authority_makes_all_anew(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "ca" / "ca.key").unlink()
    assert make(tmp_path).count("made") == 3
    certificate = str(tmp_path / "client" / "tls.crt")
    check = ["openssl", "verify", "-CAfile", str(tmp_path / "client" / "ca.crt"), certificate]
    assert subprocess.run(check, capture_output=True).returncode == 0


def test_no_address_is_an_error_that_names_the_service(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", SCRIPT, str(tmp_path)], env={"PATH": os.environ["PATH"]}, capture_output=True
    )
    assert done.returncode != 0
    assert b"the Service ratchet-etcd has no address yet" in done.stderr
    assert os.listdir(tmp_path) == []


# Secrets -----------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "api").mkdir()
    served = Server(tmp_path / "api")
    yield served
    served.close()


def api_of(server: Server) -> Api:
    return Api(ServiceAccount(str(server.account_folder), server.url))


def keep(server: Server) -> None:
    """Have the stand-in hold what it was last sent."""
    for method, _, _, body in server.asked:
        if method == "POST" and body["kind"] == "Secret":
            path = f"{PATH}/{body['metadata']['name']}"
            server.answers["GET", path] = (200, body)
            server.answers["PATCH", path] = (200, body)


def test_secrets_are_made_once_and_come_back_as_they_were(server: Server, tmp_path: Path) -> None:
    made, again = tmp_path / "made", tmp_path / "again"
    made.mkdir()
    again.mkdir()
    assert certificates.fetch_into(str(made), api_of(server)) == []
    make(made)
    server.answers["POST", PATH] = (201, {})
    assert len(certificates.publish_from(str(made), api_of(server))) == 3
    keep(server)
    assert len(certificates.fetch_into(str(again), api_of(server))) == 3
    assert contents(again) == contents(made)
    assert make(again) == ""
    assert certificates.publish_from(str(again), api_of(server)) == []
    make(again, "10.96.200.8")
    assert certificates.publish_from(str(again), api_of(server)) == ["ratchet-etcd-server"]
    ((path, body),) = [(asked[1], asked[3]) for asked in server.asked if asked[0] == "PATCH"]
    assert path == f"{PATH}/ratchet-etcd-server"
    assert base64.b64decode(body["data"]["tls.crt"]) == (again / "server/tls.crt").read_bytes()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((403, {"message": "forbidden"}), "answers 403: forbidden"),
        ((200, {"data": {"ca.crt": "eA=="}}), r"Secret ratchet-etcd-ca does not hold ca.crt, ca"),
    ],
)
def test_a_secret_that_cannot_be_read_is_not_made_anew(
    server: Server, tmp_path: Path, answer: Any, message: str
) -> None:
    server.answers["GET", f"{PATH}/ratchet-etcd-ca"] = answer
    with pytest.raises(InstallError, match=message):
        certificates.fetch_into(str(tmp_path / "api"), api_of(server))


def test_a_folder_with_something_missing_is_not_published(server: Server, tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "client" / "tls.key").unlink()
    server.answers["POST", PATH] = (201, {})
    with pytest.raises(InstallError, match=r"client/tls.key is missing"):
        certificates.publish_from(str(tmp_path), api_of(server))


# etcd --------------------------------------------------------------------------------------------


class Member:
    """A member, run by the manifest's command."""

    def __init__(self, name: str, folder: Path, ports: dict[str, tuple[int, int, int]]) -> None:
        self.client, self.peer, self.health = ports[name]
        spec = container(pod_of(one(".", "StatefulSet", "ratchet-etcd")), "etcd")
        members = ",".join(f"{other}=https://localhost:{ports[other][1]}" for other in ports)
        expanded = {
            "$(POD_NAME).ratchet-etcd-members.ratchet.svc:2379": f"localhost:{self.client}",
            "$(POD_NAME).ratchet-etcd-members.ratchet.svc:2380": f"localhost:{self.peer}",
            "$(LISTEN_ADDRESS):2379": f"127.0.0.1:{self.client}",
            "$(LISTEN_ADDRESS):2380": f"127.0.0.1:{self.peer}",
            "$(LISTEN_ADDRESS):2381": f"127.0.0.1:{self.health}",
            "$(POD_NAME)": name,
            "$(MEMBERS)": members,
            "/var/lib/etcd": str(folder / name),
            "/certificates": str(folder / "server"),
        }
        command = ["etcd", *spec["command"][1:], "--log-level=error"]
        for old, new in expanded.items():
            command = [word.replace(old, new) for word in command]
        assert not any("$(" in word for word in command)
        (folder / name).mkdir()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/health", timeout=2) as got:
                return bool(json.loads(got.read())["health"] == "true")
        except (OSError, ValueError):
            return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], list[Member]]]:
    make(tmp_path)
    with ExitStack() as undo:

        def do(count: int) -> list[Member]:
            names = [f"ratchet-etcd-{number}" for number in range(count)]
            bases: set[int] = set()
            while len(bases) < count:  # each with two ports after it
                bases.add(free_port())
            ports = {
                name: (base, base + 1, base + 2)
                for name, base in zip(names, sorted(bases), strict=True)
            }
            members = [Member(name, tmp_path, ports) for name in names]
            for member in members:
                undo.callback(member.close)
            for member in members:
                wait_for("a healthy member", member.is_healthy, timeout_s=30.0)
            return members

        yield do


def ask(folder: Path, member: Member, method: str, key: str, *, known: bool = True) -> Any:
    tls = ssl.create_default_context(cafile=str(folder / "client" / "ca.crt"))
    if known:
        tls.load_cert_chain(folder / "client" / "tls.crt", folder / "client" / "tls.key")
    url = f"https://127.0.0.1:{member.client}/v2/keys{key}"
    request = urllib.request.Request(url, data=b"value=11" if method == "PUT" else None)
    request.get_method = lambda: method  # type: ignore[method-assign]
    with urllib.request.urlopen(request, timeout=5, context=tls) as answer:
        return json.loads(answer.read())


@pytest.mark.parametrize("count", [1, 3])
def test_etcd_serves_the_v2_api_to_the_nodes_certificate_alone(
    start: Callable[[int], list[Member]], tmp_path: Path, count: int
) -> None:
    members = start(count)
    ask(tmp_path, members[0], "PUT", "/ratchet/vxlanid")
    found = ask(tmp_path, members[-1], "GET", "/ratchet/vxlanid?quorum=true")
    assert found["node"]["value"] == "11"
    with pytest.raises((urllib.error.URLError, OSError)):
        ask(tmp_path, members[0], "GET", "/ratchet/vxlanid", known=False)
