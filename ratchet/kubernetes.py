"""Labels and annotations of a pod from the Kubernetes API server.

`PodReader` is used twice: by the child, which keeps it and its connections warm, and by a parent
that finds no child, for one call. It reads one pod at a time and watches nothing, so that the right
it needs is ``get pods`` and no more. Only this module talks to the API server.

What the answers mean: "do not know" is never "no", so everything but a pod is an error.
`PodUnknownError` where waiting may help (the server is away, busy or talks nonsense; there is no
such pod, or already another of its name), `PodSourceError` where somebody has to mend something
first (credentials, certificates, the kubeconfig).

Environment proxies, ``.netrc`` and redirects are not followed: each could carry the credentials
elsewhere. No error and no log line ever holds a token or a key.
"""

from __future__ import annotations

import json
import queue
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import requests
from requests.adapters import HTTPAdapter

from ratchet import causes, kubeconfig
from ratchet.errors import PodSourceError, PodUnknownError, RatchetError, shown
from ratchet.names import is_kubernetes_name, is_namespace

MAX_ANSWER_BYTES = 4 << 20
MAX_CONNECTIONS = 16  # a node that starts pods at once asks for all of them at once

# Metadata is all that is wanted (Kubernetes 1.15 and later): a tenth of the pod. Others send the
# pod.
_ACCEPT = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_KINDS = ("Pod", "PartialObjectMetadata")
_CHUNK_BYTES = 1 << 16
# The kubelet publishes a static pod as a mirror pod, with a UID of its own. CNI_ARGS has the static
# pod's, which the mirror pod carries in these.
_STATIC_POD_UIDS = ("kubernetes.io/config.mirror", "kubernetes.io/config.hash")


T = TypeVar("T")


class PodReader:
    """Reads pods with the credentials of a kubeconfig, and reads that again when it has changed.

    Threads may share one.
    """

    def __init__(self, kubeconfig_path: str, timeout_s: float = 5.0) -> None:
        self._path = kubeconfig_path
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._stamp: object = None

    def read(
        self, namespace: str, name: str, uid: str | None
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Return the pod's labels and annotations. With a UID it has to be that very pod.

        Blocks at most `timeout_s`. Raises `PodUnknownError` and `PodSourceError`.
        """
        deadline = time.monotonic() + self._timeout_s
        # The time-outs of sockets begin anew with each byte, and those of name servers are not ours
        # to set. Only another thread can keep a promise about the whole; one that still hangs then
        # is left to itself.
        return _within(
            deadline,
            f"pod {namespace}/{name}",
            lambda: self.fetch(namespace, name, uid, deadline),
        )

    def fetch(
        self, namespace: str, name: str, uid: str | None, deadline: float
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Do the same in a thread that nobody waits for, as `deadline` (monotonic) may pass."""
        pod = f"pod {namespace}/{name}"
        if not (is_namespace(namespace) and is_kubernetes_name(name)):
            raise PodSourceError(shown(pod), "this cannot be the name of a pod in Kubernetes")
        server = self._current_server()
        try:
            answer = server.get(namespace, name, deadline)
        except PodSourceError:
            self.close()  # whatever is mended, or was renewed just now, has to be read anew
            raise
        return _checked(answer, pod, namespace, name, uid)

    def close(self) -> None:
        """Close the connections. Safe to call twice; a later `read` opens new ones."""
        with self._lock:
            self._drop()

    def _current_server(self) -> _Server:
        with self._lock:
            stamp = kubeconfig.stamp
            if self._server is not None and self._stamp != stamp(self._server.config.files):
                self._drop()
            if self._server is None:
                config = kubeconfig.read(self._path)
                self._server, self._stamp = _Server(config, self._path), stamp(config.files)
            return self._server

    def _drop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._server = None


class _Server:
    """One API server and one identity; connections are kept."""

    def __init__(self, config: kubeconfig.Kubeconfig, path: str) -> None:
        self.config = config
        self._path = path
        self._adapter = _adapter(config)
        self._request: requests.PreparedRequest | None = None

    def get(self, namespace: str, name: str, deadline: float) -> dict[str, Any]:
        """Return what the server answers: a pod, or its metadata alone.

        Raises `PodUnknownError` and `PodSourceError`.
        """
        pod = f"pod {namespace}/{name}"
        for attempts_left in (1, 0):
            try:
                request = self._prepared(f"/api/v1/namespaces/{namespace}/pods/{name}")
                with self._adapter.send(
                    request, timeout=_left(deadline), stream=True, verify=self.config.verify
                ) as response:
                    wait_s = _retry_after_s(response)
                    if not (attempts_left and wait_s is not None and wait_s < _left(deadline) / 2):
                        return self._object(response, pod, deadline)
                time.sleep(wait_s)
            except ValueError as error:  # a host's name that urllib3 does not like, for one
                raise PodSourceError(
                    pod, f"{self.config.server} cannot be asked; check server in {self._path}"
                ) from error
            except requests.exceptions.ConnectionError as error:
                # A warm connection that the server has just closed looks like this. One more try is
                # cheap.
                if attempts_left and causes.innermost(error, ConnectionResetError, BrokenPipeError):
                    continue
                self._refuse(error, pod)
            except requests.exceptions.RequestException as error:
                self._refuse(error, pod)
        raise AssertionError("the second attempt ends in an answer or an error")

    def close(self) -> None:
        """Close the connections that nobody uses at this moment."""
        self._adapter.close()

    def _prepared(self, path: str) -> requests.PreparedRequest:
        """Return a request. What is the same for all of them is made once.

        A Session would make all of it anew each time, which takes as long as half of the rest, and
        bring cookies, redirects, proxies and `.netrc`.
        """
        if self._request is None:
            headers = {
                "User-Agent": "ratchet",
                "Accept": _ACCEPT,
                "Accept-Encoding": "identity",  # nothing small that unpacks to huge
            }
            if self.config.token is not None:
                headers["Authorization"] = f"Bearer {self.config.token}"
            self._request = requests.Request("GET", self.config.server, headers).prepare()
        request = self._request.copy()
        request.url = f"{request.url}".rstrip("/") + path
        return request

    def _object(self, response: requests.Response, pod: str, deadline: float) -> dict[str, Any]:
        status = response.status_code
        if status == 200:
            return _decoded(response, pod, deadline)
        said = self._said(response, pod, deadline)
        if status == 404:
            raise PodUnknownError.no_such_pod(pod, f"the API server has no such pod{said}")
        if status == 401:
            raise PodSourceError(
                pod,
                f"the API server does not accept the credentials (401); check those in "
                f"{self._path}{said}",
            )
        if status == 403:
            raise PodSourceError(
                pod,
                f"the API server refuses the request (403); check RBAC: the user of {self._path} "
                f"needs the verb get on pods{said}",
            )
        if status in (408, 429) or status >= 500:
            raise PodUnknownError(pod, f"the API server is busy or broken ({status}){said}")
        raise PodSourceError(
            pod,
            f"{self.config.server} answers with status {status}, check server in "
            f"{self._path}{said}",
        )

    def _said(self, response: requests.Response, pod: str, deadline: float) -> str:
        """Return what a Status object says, for the end of a sentence; "" without one."""
        try:
            said = _decoded(response, pod, deadline).get("message")
        except RatchetError:
            return ""
        # A server that repeats the request must not get the token into an error.
        if (
            not isinstance(said, str)
            or not said
            or (self.config.token and self.config.token in said)
        ):
            return ""
        return f": {shown(said)}"

    def _refuse(self, error: requests.exceptions.RequestException, pod: str) -> NoReturn:
        """Translate an error of requests. Its text is not used: it may hold anything."""
        server = self.config.server
        tls = causes.innermost(error, ssl.SSLError)
        if isinstance(tls, ssl.SSLCertVerificationError):
            raise PodSourceError(
                pod,
                f"the certificate of {server} is not valid ({tls.verify_message}), check "
                f"certificate-authority, tls-server-name and server in {self._path}, and the clock",
            ) from error
        if isinstance(error, requests.exceptions.SSLError) and not isinstance(
            tls, (ssl.SSLEOFError, ssl.SSLZeroReturnError)
        ):
            reason = getattr(tls, "reason", None) or "no reason given"
            raise PodSourceError(
                pod,
                f"no TLS with {server} ({reason}), check server and the client certificate in "
                f"{self._path}",
            ) from error
        if isinstance(error, requests.exceptions.Timeout):
            raise PodUnknownError(
                pod, f"the API server {server} does not answer in time"
            ) from error
        cause = causes.innermost(error, OSError)
        why = getattr(cause, "strerror", None) or type(error).__name__
        raise PodUnknownError(pod, f"the API server {server} cannot be reached ({why})") from error


def _adapter(config: kubeconfig.Kubeconfig) -> HTTPAdapter:
    if not config.verify:
        # It was asked for, and standard error is the runtime's.
        requests.packages.urllib3.disable_warnings()  # type: ignore[attr-defined]
    if config.server.startswith("https:"):
        return _Adapter(kubeconfig.tls(config), config.tls_server_name)
    return HTTPAdapter(pool_maxsize=MAX_CONNECTIONS)


class _Adapter(HTTPAdapter):
    """Uses our TLS settings as they are, and the server name that the kubeconfig may give.

    Left to themselves, requests and urllib3 add their own authorities, and from Python 3.13 on
    demand extensions (VERIFY_X509_STRICT) that the certificates of many clusters lack.
    """

    def __init__(self, tls: ssl.SSLContext, server_name: str | None) -> None:
        self._tls = tls
        self._server_name = server_name
        super().__init__(pool_maxsize=MAX_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        kwargs["ssl_context"] = self._tls
        kwargs["cert_reqs"] = self._tls.verify_mode  # older ones would set it to what they think
        if self._server_name is not None:
            kwargs["server_hostname"] = self._server_name
        super().init_poolmanager(*args, **kwargs)

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Change nothing: the context knows already whom to trust."""


# The answer -------------------------------------------------------------------------------------


def _decoded(response: requests.Response, pod: str, deadline: float) -> dict[str, Any]:
    content = bytearray()
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise PodUnknownError(
            pod, "the API server's answer is compressed, although the request did not allow that"
        )
    try:
        for chunk in response.iter_content(_CHUNK_BYTES):
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                raise PodUnknownError(pod, "the API server's answer is larger than 4 MiB")
            _left(deadline)
    except requests.exceptions.RequestException as error:
        raise PodUnknownError(pod, "the API server's answer ends too soon") from error
    try:
        decoded = json.loads(bytes(content))
    except (ValueError, RecursionError) as error:
        raise PodUnknownError(pod, "the API server's answer is not JSON") from error
    if not isinstance(decoded, dict):
        raise PodUnknownError(pod, "the API server's answer is not an object")
    return decoded


def _checked(
    answer: dict[str, Any], pod: str, namespace: str, name: str, uid: str | None
) -> tuple[dict[str, str], dict[str, str]]:
    metadata = answer.get("metadata")
    if answer.get("kind") not in _KINDS or not isinstance(metadata, dict):
        raise PodUnknownError(pod, "the API server's answer is not a pod")
    if metadata.get("namespace") != namespace or metadata.get("name") != name:
        raise PodUnknownError(pod, "the API server's answer is another pod")
    labels = _words(metadata, "labels", pod)
    annotations = _words(metadata, "annotations", pod)
    uids = [metadata.get("uid"), *(annotations.get(key) for key in _STATIC_POD_UIDS)]
    if uid is not None and uid not in uids:
        raise PodUnknownError.no_such_pod(
            pod, f"another pod has this name now, not the one with UID {shown(uid)}"
        )
    return labels, annotations


def _words(metadata: dict[str, Any], key: str, pod: str) -> dict[str, str]:
    value = metadata.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(word, str) for word in value.values()):
        raise PodUnknownError(pod, f"the {key} in the API server's answer are not strings")
    return value


def _retry_after_s(response: requests.Response) -> float | None:
    """Return how long a busy server asks us to wait, None if it does not."""
    text = response.headers.get("Retry-After", "")
    # RFC 9110 §10.2.3 allows a date as well, but the API server sends seconds (and no more than a
    # few digits).
    if response.status_code != 429 or not (text.isascii() and text.isdigit() and len(text) < 5):
        return None
    return float(text)


# Time and causes --------------------------------------------------------------------------------


def _within(deadline: float, pod: str, work: Callable[[], T]) -> T:
    """Return what the work returns, or raise what it raises, until the deadline."""
    answers: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again by the one who waits
            answers.put(error)

    threading.Thread(target=run, name="ratchet-kubernetes", daemon=True).start()
    try:
        answer = answers.get(timeout=max(deadline - time.monotonic(), 0.001))
    except queue.Empty:
        raise PodUnknownError(pod, "the API server does not answer in time") from None
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _left(deadline: float) -> float:
    """Return the seconds that are left. Raises the error of requests for none."""
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise requests.exceptions.Timeout
    return left_s
