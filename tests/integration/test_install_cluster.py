"""What the installer asks the API server: over TLS, with a token that it then is refused with."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any

import pytest

from ratchetctl.errors import InstallError
from ratchetctl.install.cluster import TOKEN_LIFETIME_S, Cluster, Wanted
from ratchetctl.install.credentials import ServiceAccount
from tests.lab.api_server import Authority

DAY_S = 24 * 3600


def token(**claims: Any) -> str:
    """Return a token as the API server signs it, but for the signature."""
    parts = ({"alg": "none"}, {"sub": "system:serviceaccount:ratchet:node", **claims})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()) for part in parts]
    return ".".join(part.decode().rstrip("=") for part in encoded) + ".c2ln"


class Api:
    """Answers requests by the method and path, and remembers them."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(str(folder / "ca"))
        self.answers: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
        self.asked: list[tuple[str, str, str | None, Any]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                assert self.command is not None
                api.asked.append((self.command, self.path, self.headers.get("Authorization"), body))
                missing = (404, {"message": "not found"})
                status, answer = api.answers.get((self.command, self.path), missing)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                self._answer()

            def do_PATCH(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        tls = SSLContext(PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*authority.issue("server"))
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.account_folder = folder / "account"
        self.account_folder.mkdir()
        (self.account_folder / "token").write_text(token())
        (self.account_folder / "ca.crt").write_text(Path(authority.ca).read_text())
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def gives(self, lifetime_s: int = DAY_S, status: int = 201) -> str:
        given = token(iat=1000, exp=1000 + lifetime_s, jti=str(len(self.asked)))
        path = "/api/v1/namespaces/ratchet/serviceaccounts/node/token"
        answer = {"status": {"token": given}} if status == 201 else {"message": "no"}
        self.answers["POST", path] = (status, answer)
        return given

    def says(self, status: int, **metadata: str) -> None:
        path = "/apis/apps/v1/namespaces/ratchet/daemonsets/ratchet"
        self.answers["GET", path] = (status, {"metadata": metadata})


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    served = Api(tmp_path)
    yield served
    served.close()


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def cluster_of(api: Api, clock: Clock | None = None) -> Cluster:
    return Cluster(ServiceAccount(str(api.account_folder), api.url), clock or Clock())


def test_a_token_of_its_own_lasts_a_day_and_is_not_the_pods(api: Api) -> None:
    given = api.gives()
    assert cluster_of(api).token() == given
    ((method, _, authorization, body),) = api.asked
    assert method == "POST"
    assert authorization == f"Bearer {token()}"
    assert body["spec"] == {"expirationSeconds": TOKEN_LIFETIME_S}


@pytest.mark.parametrize("lifetime_s", [DAY_S, 3600])
def test_a_token_is_renewed_after_half_of_the_time_that_it_was_given(
    api: Api, lifetime_s: int
) -> None:
    clock = Clock()
    cluster = cluster_of(api, clock)
    first = api.gives(lifetime_s)
    assert cluster.token() == first
    clock.now += lifetime_s / 2 - 1
    second = api.gives(lifetime_s)
    assert cluster.token() == first
    clock.now += 2
    assert cluster.token() == second


def test_a_token_that_cannot_be_renewed_is_used_until_it_ends(api: Api) -> None:
    clock = Clock()
    cluster = cluster_of(api, clock)
    first = api.gives()
    cluster.token()
    api.gives(status=403)
    clock.now += DAY_S / 2 + 1
    assert cluster.token() == first
    assert cluster.token() == first
    assert len(api.asked) == 2, "it does not ask at each look"
    clock.now += DAY_S / 2
    with pytest.raises(InstallError, match="403: no"):
        cluster.token()


def test_no_right_to_ask_for_a_token_is_named(api: Api) -> None:
    api.gives(status=403)
    with pytest.raises(InstallError, match=r"serviceaccounts/node/token: .* answers 403: no"):
        cluster_of(api).token()


@pytest.mark.parametrize(
    ("status", "metadata", "wanted"),
    [
        (200, {}, Wanted.YES),
        (200, {"deletionTimestamp": "2026-01-01T00:00:00Z"}, Wanted.NO),
        (404, {}, Wanted.NO),
        (401, {}, Wanted.NO),
        (403, {}, Wanted.REFUSED),
        (500, {}, Wanted.UNKNOWN),
    ],
)
def test_whether_the_daemonset_is_there(
    api: Api, status: int, metadata: dict[str, str], wanted: Wanted
) -> None:
    api.says(status, **metadata)
    assert cluster_of(api).wants("ratchet") is wanted


def test_an_api_server_that_is_away_or_another_says_nothing(api: Api, tmp_path: Path) -> None:
    api.says(404)
    other = Authority(str(tmp_path / "other"), "other")
    ca = api.account_folder / "ca.crt"
    ours = ca.read_text()
    ca.write_text(Path(other.ca).read_text())
    assert cluster_of(api).wants("ratchet") is Wanted.UNKNOWN
    assert api.asked == [], "the token was shown to a stranger"
    ca.write_text(ours)
    away = Cluster(ServiceAccount(str(api.account_folder), "https://127.0.0.1:1"))
    assert away.wants("ratchet") is Wanted.UNKNOWN
    with pytest.raises(InstallError, match="token"):
        away.token()
