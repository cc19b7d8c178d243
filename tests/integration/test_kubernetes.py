"""Labels from the API server: real TLS, tokens and certificates, and a server that misbehaves."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ratchet.errors import CniError, PodSourceError, PodUnknownError
from ratchet.kubernetes import PodReader, _Adapter
from tests.lab import api_server
from tests.lab.api_server import TOKEN, ApiServer, Authority, Handler, at_most, encoded

LABELS = {"ratchet": "true", "ratchet.primary": "true"}
ANNOTATIONS = {"ratchet.local_ip": "192.168.2.100/25"}
UID = "11111111-2222-3333-4444-555555555555"
OTHER_UID = "66666666-7777-8888-9999-000000000000"


@dataclass
class Certificates:
    ca: str
    server: tuple[str, str]
    wrong_host: tuple[str, str]
    expired: tuple[str, str]
    client: tuple[str, str]
    other_ca: str
    other_client: tuple[str, str]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory = str(tmp_path_factory.mktemp("certificates"))
    ours = Authority(os.path.join(directory, "ours"))
    other = Authority(os.path.join(directory, "other"), "other")
    return Certificates(
        ca=ours.ca,
        server=ours.issue("server"),
        wrong_host=ours.issue("wrong", hosts="DNS:somewhere.else"),
        expired=ours.issue("expired", expired=True),
        client=ours.issue("node"),
        other_ca=other.ca,
        other_client=other.issue("stranger"),
    )


@pytest.fixture
def serve(certificates: Certificates) -> Iterator[Callable[..., ApiServer]]:
    servers = []

    def start(certificate: tuple[str, str] | None = certificates.server, **keys: Any) -> ApiServer:
        server = ApiServer(certificate, certificates.ca, **keys)
        server.add_pod("in-1", LABELS, ANNOTATIONS)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def server(serve: Callable[..., ApiServer]) -> ApiServer:
    return serve()


class Access:
    """A kubeconfig and the readers made of it."""

    def __init__(self, directory: Path, certificates: Certificates) -> None:
        self.path = str(directory / "kubeconfig")
        self.token_path = str(directory / "token")
        self.ca = certificates.ca
        self._readers: list[PodReader] = []

    def reader(
        self,
        api: ApiServer,
        user: dict[str, Any] | None = None,
        /,
        *,
        timeout_s: float = 5.0,
        **cluster: Any,
    ) -> PodReader:
        """Return a reader that verifies the server and has the token, unless told otherwise."""
        cluster = {"server": api.url, "certificate-authority": self.ca} | {
            key.replace("_", "-"): value for key, value in cluster.items()
        }
        self.write(cluster, {"token": TOKEN} if user is None else user)
        reader = PodReader(self.path, timeout_s)
        self._readers.append(reader)
        return reader

    def write(self, cluster: dict[str, Any], user: dict[str, Any]) -> None:
        api_server.kubeconfig(self.path, cluster, user)

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


@pytest.fixture
def access(tmp_path: Path, certificates: Certificates) -> Iterator[Access]:
    access = Access(tmp_path, certificates)
    yield access
    access.close()


def refused(reader: PodReader, kind: type[CniError], uid: str | None = None) -> str:
    """Return what the error says, after a look that it says nothing secret."""
    with pytest.raises(kind) as caught:
        reader.read("default", "in-1", uid)
    said = str(caught.value)
    assert TOKEN not in said
    assert "PRIVATE KEY" not in said
    assert "default/in-1" in said or "kubeconfig" in said
    return said


# Being let in -----------------------------------------------------------------------------------


def test_a_token_reads_labels_and_annotations(server: ApiServer, access: Access) -> None:
    reader = access.reader(server)
    assert reader.read("default", "in-1", UID) == (LABELS, ANNOTATIONS)
    path, headers = server.requests[0]
    assert path == "/api/v1/namespaces/default/pods/in-1"
    assert headers["Authorization"] == f"Bearer {TOKEN}"


def test_without_a_uid_any_pod_of_the_name_is_right(server: ApiServer, access: Access) -> None:
    assert access.reader(server).read("default", "in-1", None)[0] == LABELS


def test_a_pod_without_labels_and_annotations_has_none(server: ApiServer, access: Access) -> None:
    server.add_pod("bare")
    assert access.reader(server).read("default", "bare", UID) == ({}, {})


def test_namespaces_are_kept_apart(server: ApiServer, access: Access) -> None:
    server.add_pod("in-1", {"other": "one"}, namespace="team-a", uid=OTHER_UID)
    assert access.reader(server).read("team-a", "in-1", OTHER_UID)[0] == {"other": "one"}


def test_a_whole_pod_is_as_good_as_its_metadata(server: ApiServer, access: Access) -> None:
    whole = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": server.pods["default", "in-1"]["metadata"],
    }
    server.faults = [api_server.content(json.dumps(whole).encode())]
    assert access.reader(server).read("default", "in-1", UID) == (LABELS, ANNOTATIONS)


def test_a_client_certificate_is_as_good_as_a_token(
    server: ApiServer, access: Access, certificates: Certificates
) -> None:
    certificate, key = certificates.client
    user = {"client-certificate": certificate, "client-key": key}
    assert access.reader(server, user).read("default", "in-1", UID)[0] == LABELS
    assert "Authorization" not in server.requests[0][1]


def test_certificates_may_lie_in_the_kubeconfig_itself(
    server: ApiServer, access: Access, certificates: Certificates, tmp_path: Path
) -> None:
    certificate, key = certificates.client
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    reader = access.reader(
        server, user, certificate_authority=None, certificate_authority_data=encoded(access.ca)
    )
    assert reader.read("default", "in-1", UID)[0] == LABELS
    assert [file.name for file in tmp_path.iterdir()] == ["kubeconfig"]
    assert memory_files() == []


def memory_files() -> list[str]:
    """Return the nameless files that this process holds."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # that of listdir itself
            continue
        if target.startswith("/memfd:ratchet"):
            found.append(target)
    return found


def test_a_kubeconfig_may_be_yaml(server: ApiServer, access: Access, tmp_path: Path) -> None:
    path = api_server.kubeconfig(
        str(tmp_path / "kubeconfig.yaml"),
        {"server": server.url, "certificate-authority-data": encoded(access.ca)},
        {"token": TOKEN},
    )
    reader = PodReader(path)
    assert reader.read("default", "in-1", UID)[0] == LABELS
    reader.close()


def test_relative_paths_start_at_the_kubeconfig(
    server: ApiServer, access: Access, tmp_path: Path
) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki/ca.crt").write_bytes(Path(access.ca).read_bytes())
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    reader = access.reader(server, {"tokenFile": "token"}, certificate_authority="pki/ca.crt")
    assert reader.read("default", "in-1", UID)[0] == LABELS


def test_tls_server_name_is_what_the_certificate_is_checked_for(
    serve: Callable[..., ApiServer], access: Access, certificates: Certificates
) -> None:
    server = serve(certificates.wrong_host)
    reader = access.reader(server, tls_server_name="somewhere.else")
    assert reader.read("default", "in-1", UID)[0] == LABELS
    reader = access.reader(serve(), tls_server_name="somewhere.else")
    assert "certificate" in refused(reader, PodSourceError)


def test_a_server_below_a_path_is_asked_there(server: ApiServer, access: Access) -> None:
    refused(access.reader(server, server=f"{server.url}/clusters/one/"), PodUnknownError)
    assert server.requests[0][0] == "/clusters/one/api/v1/namespaces/default/pods/in-1"


def test_insecure_skip_tls_verify_is_obeyed(
    serve: Callable[..., ApiServer],
    access: Access,
    certificates: Certificates,
    capfd: pytest.CaptureFixture[str],
) -> None:
    reader = access.reader(
        serve(certificates.expired), certificate_authority=None, insecure_skip_tls_verify=True
    )
    assert reader.read("default", "in-1", UID)[0] == LABELS
    assert capfd.readouterr() == ("", "")


def test_the_environments_proxies_are_not_used(
    server: ApiServer, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/dev/null")
    assert access.reader(server).read("default", "in-1", UID)[0] == LABELS


# Not being let in -------------------------------------------------------------------------------


def test_an_unknown_authority_is_not_trusted(
    server: ApiServer, access: Access, certificates: Certificates
) -> None:
    reader = access.reader(server, certificate_authority=certificates.other_ca)
    assert "certificate-authority" in refused(reader, PodSourceError)
    assert server.requests == []


def test_without_an_authority_the_systems_count(server: ApiServer, access: Access) -> None:
    refused(access.reader(server, certificate_authority=None), PodSourceError)
    assert server.requests == []


def test_an_expired_certificate_is_not_trusted(
    serve: Callable[..., ApiServer], access: Access, certificates: Certificates
) -> None:
    assert "expired" in refused(access.reader(serve(certificates.expired)), PodSourceError)


def test_a_certificate_for_another_host_is_not_trusted(
    serve: Callable[..., ApiServer], access: Access, certificates: Certificates
) -> None:
    said = refused(access.reader(serve(certificates.wrong_host)), PodSourceError)
    assert "tls-server-name" in said


@pytest.mark.parametrize("user", [{}, {"token": "wrong"}])
def test_401_says_to_check_the_credentials(
    server: ApiServer, access: Access, user: dict[str, Any]
) -> None:
    assert "credentials" in refused(access.reader(server, user), PodSourceError)


def test_403_says_to_check_rbac(server: ApiServer, access: Access) -> None:
    server.allowed = False
    said = refused(access.reader(server), PodSourceError)
    assert "RBAC" in said
    assert "cannot get resource" in said


def test_a_missing_client_certificate_is_named(
    serve: Callable[..., ApiServer], access: Access
) -> None:
    server = serve(demand_client_certificate=True)
    with pytest.raises((PodSourceError, PodUnknownError)):
        access.reader(server).read("default", "in-1", UID)
    assert server.requests == []


def test_a_client_certificate_of_a_stranger_opens_nothing(
    server: ApiServer, access: Access, certificates: Certificates
) -> None:
    certificate, key = certificates.other_client
    user = {"client-certificate": certificate, "client-key": key}
    with pytest.raises((PodSourceError, PodUnknownError)):
        access.reader(server, user).read("default", "in-1", UID)
    assert server.requests == []


def test_http_where_https_is_expected(serve: Callable[..., ApiServer], access: Access) -> None:
    server = serve(None)
    reader = access.reader(server, server=server.url.replace("http:", "https:"))
    assert "no TLS" in refused(reader, PodSourceError)


def test_credentials_never_go_over_plain_http(
    serve: Callable[..., ApiServer], access: Access
) -> None:
    server = serve(None)
    assert "https" in refused(access.reader(server), PodSourceError)
    assert server.requests == []


def test_redirects_are_not_followed(
    server: ApiServer, serve: Callable[..., ApiServer], access: Access
) -> None:
    elsewhere = serve()
    server.faults = [api_server.status(307, {"Location": f"{elsewhere.url}/x"})]
    assert "307" in refused(access.reader(server), PodSourceError)
    assert elsewhere.requests == []


# Answers that are not a pod ---------------------------------------------------------------------


def test_404_is_not_no(server: ApiServer, access: Access) -> None:
    server.pods.clear()
    assert "no such pod" in refused(access.reader(server), PodUnknownError)


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_means_try_again_later(server: ApiServer, access: Access, code: int) -> None:
    server.faults = [api_server.status(code)]
    said = refused(access.reader(server), PodUnknownError)
    assert f"({code})" in said
    assert f"status {code}" in said


def test_a_short_retry_after_is_honoured_once(server: ApiServer, access: Access) -> None:
    busy = api_server.status(429, {"Retry-After": "1"})
    server.faults = [busy]
    with at_most(5):
        assert access.reader(server).read("default", "in-1", UID)[0] == LABELS
    server.faults = [busy, busy]
    refused(access.reader(server), PodUnknownError)


@pytest.mark.parametrize("after", ["60", "-1", "soon", "99999999999", "²"])
def test_a_long_retry_after_is_left_to_the_runtime(
    server: ApiServer, access: Access, after: str
) -> None:
    value = after.encode().decode("latin-1")
    server.faults = [api_server.status(429, {"Retry-After": value})]
    with at_most(4):
        assert "(429)" in refused(access.reader(server), PodUnknownError)


@pytest.mark.parametrize("code", [302, 400, 405, 418])
def test_other_answers_say_to_check_the_server(
    server: ApiServer, access: Access, code: int
) -> None:
    server.faults = [api_server.status(code)]
    assert f"status {code}" in refused(access.reader(server), PodSourceError)


METADATA = {"name": "in-1", "namespace": "default", "uid": UID}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"null",
        b'"pod"',
        b"{}",
        json.dumps({"kind": "Pod"}).encode(),
        json.dumps({"kind": "Pod", "metadata": []}).encode(),
        json.dumps({"kind": "PodList", "metadata": METADATA}).encode(),
        json.dumps({"kind": "Pod", "metadata": METADATA | {"name": "other"}}).encode(),
        json.dumps({"kind": "Pod", "metadata": METADATA | {"namespace": None}}).encode(),
        json.dumps({"kind": "Pod", "metadata": METADATA | {"labels": []}}).encode(),
        json.dumps({"kind": "Pod", "metadata": METADATA | {"labels": {"a": 1}}}).encode(),
        json.dumps({"kind": "Pod", "metadata": METADATA | {"annotations": "x"}}).encode(),
    ],
)
def test_nonsense_means_try_again_later(server: ApiServer, access: Access, raw: bytes) -> None:
    server.faults = [api_server.content(raw)]
    refused(access.reader(server), PodUnknownError)


def test_a_truncated_answer_means_try_again_later(server: ApiServer, access: Access) -> None:
    server.faults = [api_server.truncated]
    assert "too soon" in refused(access.reader(server), PodUnknownError)


def test_a_huge_answer_means_try_again_later(server: ApiServer, access: Access) -> None:
    server.faults = [api_server.content(b" " * (5 << 20))]
    assert "4 MiB" in refused(access.reader(server), PodUnknownError)


def test_a_compressed_answer_is_not_unpacked(server: ApiServer, access: Access) -> None:
    server.faults = [api_server.content(b"\x1f\x8b", {"Content-Encoding": "gzip"})]
    assert "compressed" in refused(access.reader(server), PodUnknownError)


def test_a_server_that_repeats_the_token_does_not_get_it_into_an_error(
    server: ApiServer, access: Access
) -> None:
    def repeat(handler: Handler) -> bool:
        handler.status(401, f"who is {handler.headers['Authorization']}?")
        return True

    server.faults = [repeat]
    refused(access.reader(server), PodSourceError)


# Which pod it is --------------------------------------------------------------------------------


def test_another_pod_of_the_same_name_is_not_taken(server: ApiServer, access: Access) -> None:
    assert OTHER_UID in refused(access.reader(server), PodUnknownError, OTHER_UID)


@pytest.mark.parametrize("key", ["kubernetes.io/config.mirror", "kubernetes.io/config.hash"])
def test_a_static_pod_is_known_by_its_mirror(server: ApiServer, access: Access, key: str) -> None:
    server.add_pod("in-1", LABELS, {key: OTHER_UID})
    assert access.reader(server).read("default", "in-1", OTHER_UID)[0] == LABELS


@pytest.mark.parametrize("name", ["", "..", "a/b", "a?b", "A", "a b", "a%2fb"])
def test_what_cannot_be_a_pod_is_never_asked_for(
    server: ApiServer, access: Access, name: str
) -> None:
    for arguments in (("default", name), (name, "in-1")):
        with pytest.raises(PodSourceError):
            access.reader(server).read(*arguments, None)
    assert server.requests == []


# Time and connections ---------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [api_server.hang, api_server.drip_headers, api_server.drip_body])
def test_the_deadline_is_for_the_whole_call(
    server: ApiServer, access: Access, fault: Callable[[Handler], bool]
) -> None:
    server.faults = [fault]
    reader = access.reader(server, timeout_s=0.5)
    with at_most(5):
        assert "in time" in refused(reader, PodUnknownError)
    assert reader.read("default", "in-1", UID)[0] == LABELS


def test_a_server_that_is_away_means_try_again_later(server: ApiServer, access: Access) -> None:
    with api_server.refusing_port() as port, at_most(4):
        reader = access.reader(server, server=f"https://127.0.0.1:{port}")
        assert "refused" in refused(reader, PodUnknownError)


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..test", ".", "*"])
def test_a_name_that_cannot_be_one_is_an_error_of_ours(
    server: ApiServer, access: Access, host: str
) -> None:
    with pytest.raises((PodSourceError, PodUnknownError)):
        access.reader(server, server=f"https://{host}").read("default", "in-1", UID)


def test_a_name_that_does_not_resolve_means_try_again_later(
    server: ApiServer, access: Access
) -> None:
    with at_most(5):
        refused(
            access.reader(server, timeout_s=1.0, server="https://no-such-host.invalid:6443"),
            PodUnknownError,
        )


def test_connections_are_kept(server: ApiServer, access: Access) -> None:
    reader = access.reader(server)
    for _ in range(5):
        reader.read("default", "in-1", UID)
    server.pods.clear()
    refused(reader, PodUnknownError)
    refused(reader, PodUnknownError)
    assert server.connections == 1


def test_a_connection_that_was_closed_meanwhile_is_replaced(
    server: ApiServer, access: Access
) -> None:
    reader = access.reader(server)
    reader.read("default", "in-1", UID)
    server.faults = [api_server.hang_up]
    assert reader.read("default", "in-1", UID)[0] == LABELS
    server.faults = [api_server.hang_up, api_server.hang_up]
    refused(reader, PodUnknownError)


def test_a_server_that_was_started_anew_is_found_again(
    serve: Callable[..., ApiServer], access: Access
) -> None:
    server = serve()
    reader = access.reader(server)
    reader.read("default", "in-1", UID)
    server.close()
    refused(reader, PodUnknownError)
    serve(port=server.port)
    assert reader.read("default", "in-1", UID)[0] == LABELS


def test_threads_share_a_reader(server: ApiServer, access: Access) -> None:
    reader = access.reader(server)
    for number in range(40):
        server.add_pod(f"pod-{number}", {"number": str(number)})
    found: dict[int, dict[str, str]] = {}

    def read(number: int) -> None:
        found[number] = reader.read("default", f"pod-{number}", UID)[0]

    threads = [threading.Thread(target=read, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: {"number": str(number)} for number in range(40)}


# Renewal ----------------------------------------------------------------------------------------


def test_a_renewed_token_is_used_at_once(server: ApiServer, access: Access) -> None:
    api_server.replace(access.token_path, TOKEN)
    reader = access.reader(server, {"tokenFile": access.token_path})
    reader.read("default", "in-1", UID)
    server.tokens = {"renewed"}
    assert "credentials" in refused(reader, PodSourceError)
    api_server.replace(access.token_path, "renewed")
    assert reader.read("default", "in-1", UID)[0] == LABELS


def test_a_token_behind_symbolic_links_is_renewed_as_kubelets_do_it(
    server: ApiServer, access: Access, tmp_path: Path
) -> None:
    for version, token in (("one", TOKEN), ("two", "renewed")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "token").write_text(token)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "token").symlink_to("..data/token")
    reader = access.reader(server, {"tokenFile": access.token_path})
    reader.read("default", "in-1", UID)
    server.tokens = {"renewed"}
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(tmp_path / "..data")
    assert reader.read("default", "in-1", UID)[0] == LABELS


def test_a_kubeconfig_that_changes_is_read_again(
    server: ApiServer, serve: Callable[..., ApiServer], access: Access
) -> None:
    reader = access.reader(server)
    reader.read("default", "in-1", UID)
    other = serve()
    other.add_pod("in-1", {"from": "other"})
    access.write({"server": other.url, "certificate-authority": access.ca}, {"token": TOKEN})
    assert reader.read("default", "in-1", UID)[0] == {"from": "other"}


def test_a_reader_heals_when_its_kubeconfig_does(
    server: ApiServer, access: Access, tmp_path: Path
) -> None:
    reader = access.reader(server)
    good = (tmp_path / "kubeconfig").read_text()
    for bad in ("", "{", "[]"):
        (tmp_path / "kubeconfig").write_text(bad)
        refused(reader, PodSourceError)
    (tmp_path / "kubeconfig").unlink()
    refused(reader, PodSourceError)
    (tmp_path / "kubeconfig").write_text(good)
    assert reader.read("default", "in-1", UID)[0] == LABELS


def test_renewals_leak_no_descriptors(
    server: ApiServer, access: Access, certificates: Certificates
) -> None:
    certificate, key = certificates.client
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    cluster = {"server": server.url, "certificate-authority-data": encoded(access.ca)}
    reader = access.reader(server, user)
    for _ in range(10):
        access.write(cluster, user)
        reader.read("default", "in-1", UID)
        time.sleep(0.005)  # so that the file's time is another one
    reader.close()
    reader.close()
    assert memory_files() == []


def test_certificates_that_cannot_be_read_are_named(server: ApiServer, access: Access) -> None:
    reader = access.reader(server, certificate_authority="/no/such/ca.crt")
    assert "certificates" in refused(reader, PodSourceError)


def test_certificates_that_are_none_are_told(
    server: ApiServer, access: Access, certificates: Certificates
) -> None:
    nonsense = "bm8gY2VydGlmaWNhdGU="
    certificate, key = (encoded(path) for path in certificates.client)
    other = encoded(certificates.other_client[1])
    for user in (
        {"client-certificate-data": nonsense, "client-key-data": key},
        {"client-certificate-data": certificate, "client-key-data": nonsense},
        {"client-certificate-data": certificate, "client-key-data": other},
    ):
        assert "certificates" in refused(access.reader(server, user), PodSourceError)
    reader = access.reader(server, certificate_authority_data=nonsense)
    assert "certificates" in refused(reader, PodSourceError)


def test_an_encrypted_key_is_an_error_and_nobody_is_asked_for_a_password(
    server: ApiServer, access: Access, certificates: Certificates, tmp_path: Path
) -> None:
    certificate, key = certificates.client
    locked = str(tmp_path / "locked.key")
    api_server.lock_key(key, locked)
    reader = access.reader(server, {"client-certificate": certificate, "client-key": locked})
    with at_most(5):
        refused(reader, PodSourceError)


def test_only_the_kubeconfigs_authority_is_trusted(server: ApiServer, access: Access) -> None:
    reader = access.reader(server)
    reader.read("default", "in-1", UID)
    assert reader._server is not None
    adapter = reader._server._adapter
    assert isinstance(adapter, _Adapter)
    assert adapter._tls.cert_store_stats()["x509"] == 1


def test_certificates_without_key_identifiers_are_good_enough(
    serve: Callable[..., ApiServer], access: Access, tmp_path: Path
) -> None:
    plain = Authority(str(tmp_path / "plain"), key_identifiers=False)
    reader = access.reader(serve(plain.issue("plain")), certificate_authority=plain.ca)
    assert reader.read("default", "in-1", UID)[0] == LABELS
