"""etcd, by its v2 API. The only importer of `etcd` (python-etcd).

Keys go in and come out relative to the prefix. Everything that python-etcd 0.4.5 leaves to chance
is settled here: keys are quoted and stay below the prefix, IPv6 hosts bracketed, certificates
always verified, requests never sent twice (a compare-and-swap whose answer was lost may have been
carried out: its caller must look again, not the transport), and a 404 that is not etcd's own is not
taken for "no such key".

A store is used from many threads at once; each thread has its own connection, which is made anew
when certificates or password have changed.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import etcd

from ratchet.config import Config
from ratchet.errors import StoreError
from ratchet.http import TooLargeError
from ratchet_child import steps
from ratchet_child.metrics import figures
from ratchet_child.store import answers, encoding
from ratchet_child.store.api import (
    Create,
    Entry,
    Event,
    ExpireValue,
    Get,
    HistoryLostError,
    Prune,
    Remove,
    RemoveTree,
    RemoveValue,
    Request,
    Set,
    Swap,
    Tree,
)
from ratchet_child.store.credentials import Access, Credentials
from ratchet_child.store.large import BusyError, LargeReads, LargeTogetherError, refuse_large
from ratchet_child.store.pipeline import Answered
from ratchet_child.store.transport import (
    LARGEST_ANSWER_BYTES,
    LARGEST_LISTING_BYTES,
    NO_ANSWER,
    Transport,
)

T = TypeVar("T")

REQUEST_TIMEOUT_S = 3.0
WATCH_TIMEOUT_S = 20.0

_MOST_TOGETHER = 32  # so that neither side waits for the other to read
_NOT_FOUND = 404
_CONDITION_FAILED = (
    etcd.EtcdCompareFailed,
    etcd.EtcdAlreadyExist,
    etcd.EtcdDirNotEmpty,
    etcd.EtcdNotFile,
)

_OPTIONS: dict[str, Any] = {
    "read_timeout": REQUEST_TIMEOUT_S,
    "allow_redirect": False,
    "allow_reconnect": False,
    "per_host_pool_size": 1,
}

# What it has to say StoreError says; without a handler it would write to standard error.
logging.getLogger("etcd").addHandler(logging.NullHandler())


class EtcdV2Store:
    """A `Store`. Nothing is retried in here."""

    def __init__(self, config: Config) -> None:
        self._prefix = config.etcd_prefix.rstrip("/")
        self._endpoints = config.etcd_endpoints
        self._config = config
        self._credentials = Credentials(config)
        self._current = 0
        self._large = LargeReads()
        self._threads = threading.local()
        self._watching: tuple[int, Transport] | None = None  # the member, and the connection to it

    @property
    def cluster(self) -> str | None:
        """The ID of the cluster that has answered this thread last, None when none has."""
        cluster: str | None = getattr(self._threads, "cluster", None)
        return cluster

    def get(self, key: str) -> Entry | None:
        """Return one key. A directory is an error: who finds nothing there could not write it."""
        result = self._unconditional(Get(key))
        if result is not None and result.dir:
            raise StoreError(f"get {result.key}", "it is a directory, where a key is expected")
        return None if result is None else answers.entry(result)

    def tree(self, key: str, *, recursive: bool = False) -> tuple[dict[str, Entry], int]:
        """Return the keys below a directory by relative name, and etcd's index at that moment."""
        below = f"{self._prefix}/{key}/"
        try:
            return self._request(
                Tree(key, recursive),
                lambda found: (answers.entries(found, below), answers.number(found.etcd_index)),
            )
        except etcd.EtcdKeyNotFound as error:
            return {}, answers.number(answers.not_found(error, f"tree {key}").get("index"))
        except _CONDITION_FAILED as error:
            raise StoreError(f"tree {key}", str(error)) from error

    def set(self, key: str, value: str, ttl_s: int | None = None) -> str | None:
        """Write a key whatever it was; its previous value, None when it had none."""
        result = self._unconditional(Set(key, value, ttl_s))
        previous = getattr(result, "_prev_node", None)
        return None if previous is None or previous.value is None else answers.entry(previous).value

    def create(self, key: str, value: str) -> Entry | None:
        """Write a key that is not there; None when it is."""
        return self._written(Create(key, value))

    def swap(self, key: str, value: str, modified: int, ttl_s: int | None = None) -> Entry | None:
        """Compare-and-swap by modified index; None when the key has changed or is gone."""
        return self._written(Swap(key, value, modified, ttl_s))

    def expire_value(self, key: str, value: str, ttl_s: int) -> bool:
        """Have a key expire if it has that value; False when it has another one or is gone."""
        return self._conditional(ExpireValue(key, value, ttl_s)) is not None

    def remove(self, key: str, modified: int) -> bool:
        """Compare-and-delete by modified index; False when the key has changed or is gone."""
        return self._conditional(Remove(key, modified)) is not None

    def remove_value(self, key: str, value: str) -> bool:
        """Compare-and-delete by value; False when the key has another value or is gone."""
        return self._conditional(RemoveValue(key, value)) is not None

    def prune(self, key: str) -> bool:
        """Remove a directory if it is empty; False when it is not, or is gone."""
        try:
            return self._conditional(Prune(key)) is not None
        except etcd.EtcdNotDir:
            return False

    def remove_tree(self, key: str) -> bool:
        """Remove a key or directory with all below it; False when there is none."""
        return self._conditional(RemoveTree(key)) is not None

    def together(self, *requests: Request) -> list[Any]:
        """Send requests one behind the other, and return what each alone would return."""
        results: list[Any] = []
        errors: list[StoreError] = []
        for first in range(0, len(requests), _MOST_TOGETHER):
            some = requests[first : first + _MOST_TOGETHER]
            for one, answered in zip(some, self._answers(some), strict=True):
                self._threads.answered = answered  # for `_request`
                try:
                    results.append(one.by(self))
                except StoreError as error:
                    errors.append(error)
        if errors:
            raise errors[0]
        return results

    def _answers(self, requests: Sequence[Request]) -> Sequence[Answered | None]:
        """Send requests and return their answers, None for those that are to be sent alone."""
        if len(requests) == 1:
            return [None]
        number, client = self._client()
        name, key = encoding.NAMES[type(requests[0])], requests[0].key
        is_reading = all(isinstance(one, Get | Tree) for one in requests)
        on_large = refuse_large if is_reading else self._large.enter

        ask = partial(self._exchange, client, requests, on_large)
        try:
            return self._sending(name, key, number, client, ask)
        except LargeTogetherError:  # what several large answers take nobody would limit
            return [None] * len(requests)

    def watch(self, key: str, index: int) -> Event | None:
        """Wait for the next change below `key` at or after `index`; None after a quiet while.

        One at a time. *Blocks at most* WATCH_TIMEOUT_S. *Raises* HistoryLostError, and StoreError
        when another request finds that the member does not answer.
        """
        path = self._path(key)
        number, client = self._client()

        def wait() -> Any:
            self._watching = number, client.http
            return client.read(
                path, wait=True, recursive=True, waitIndex=index, timeout=WATCH_TIMEOUT_S
            )

        try:
            result = self._sending("watch", key, number, client, wait)
        except etcd.EtcdWatchTimedOut:
            return None
        except etcd.EtcdKeyNotFound as error:
            answers.not_found(error, f"watch {key}")
            return None
        except _CONDITION_FAILED as error:
            raise StoreError(f"watch {key}", str(error)) from error
        finally:
            self._watching = None
        heard = answers.entry(result)
        if not isinstance(result.action, str) or not index <= heard.modified:
            raise StoreError(f"watch {key}", "the answer is about something else")
        return Event(
            action=result.action,
            key=str(result.key)[len(self._prefix) + 1 :],
            value=heard.value,
            index=heard.modified,
        )

    def _written(self, request: Request) -> Entry | None:
        result = self._conditional(request)
        return None if result is None else answers.entry(result)

    def _conditional(self, request: Request) -> Any:
        """Send a request with a condition; None when the condition does not hold."""
        try:
            return self._ask(request)
        except _CONDITION_FAILED:
            return None

    def _unconditional(self, request: Request) -> Any:
        """Send a request without a condition. A key in place of a directory is an error."""
        try:
            return self._ask(request)
        except _CONDITION_FAILED as error:
            raise StoreError(encoding.told(request), str(error)) from error

    def _ask(self, request: Request) -> Any:
        """Carry out one request; None when etcd says that there is no such key."""
        try:
            return self._request(request, lambda found: found)
        except etcd.EtcdKeyNotFound as error:
            answers.not_found(error, encoding.told(request))
            return None

    def _path(self, key: str) -> str:
        """Return the key as it stands in a URL, below the prefix whatever it holds.

        etcd takes "." and ".." out of a path before it looks at it.
        """
        if any(part in ("", ".", "..") for part in key.split("/")):
            raise StoreError(f"use {key!a} as a key", "it has an empty part, '.' or '..'")
        try:
            return quote(f"{self._prefix}/{key}", safe="/:")
        except UnicodeEncodeError as error:
            raise StoreError(f"use {key!a} as a key", "it is not text") from error

    def _request(self, request: Request, read: Callable[[Any], T]) -> T:
        """Carry out one request, or take its answer if that has come together with others'."""
        name, key = encoding.NAMES[type(request)], request.key
        number, client = self._client()
        waiting: Answered | None = self._threads.__dict__.pop("answered", None)

        def take(answered: Answered) -> T:
            figures.etcd_took(name, answered.took_s)
            client.http.status = answered.status
            return read(answers.result(client, answered))

        if waiting is not None:
            return self._translated(name, key, number, client, lambda: take(waiting))

        ask = partial(self._exchange, client, (request,), self._large.enter)
        return self._sending(name, key, number, client, lambda: take(*ask()))

    def _exchange(
        self, client: etcd.Client, requests: Sequence[Request], on_large: Callable[[], None]
    ) -> list[Answered]:
        sent = [encoding.sent(one, self._path(one.key)) for one in requests]
        is_everybodys = any(isinstance(one, Tree) and "/" not in one.key for one in requests)
        limit_bytes = LARGEST_LISTING_BYTES if is_everybodys else LARGEST_ANSWER_BYTES
        found: list[Answered] = client.http.together(sent, REQUEST_TIMEOUT_S, on_large, limit_bytes)
        client.expected_cluster_id = found[-1].headers.get("x-etcd-cluster-id")
        return found

    def _sending(
        self, name: str, key: str, number: int, client: etcd.Client, send: Callable[[], T]
    ) -> T:
        """Have something sent, and take down whose answer it was."""
        steps.reach("etcd")
        self._large.give_back()
        client.expected_cluster_id = None  # its own check: one for each connection, by an error
        try:
            result = self._translated(name, key, number, client, send)
        finally:
            self._large.leave()
            if client.expected_cluster_id is not None:
                self._threads.cluster = client.expected_cluster_id
        steps.reach("etcd done")
        return result

    def _translated(
        self, name: str, key: str, number: int, client: etcd.Client, call: Callable[[], T]
    ) -> T:
        """Tell what has failed as a StoreError, but for what means something to the caller."""
        try:
            return call()
        except etcd.EtcdWatchTimedOut:
            raise
        except (etcd.EtcdEventIndexCleared, etcd.EtcdWatcherCleared) as error:
            if name == "watch":
                raise HistoryLostError(str(error)) from error
            figures.etcd_failed(name)
            raise StoreError(f"{name} {self._path(key)}", str(error)) from error
        except etcd.EtcdNotDir as error:
            if name == "prune":
                raise
            raise StoreError(
                f"{name} {self._path(key)}", f"a key is on the way: {error}"
            ) from error
        except (etcd.EtcdKeyNotFound, *_CONDITION_FAILED):
            raise
        # python-etcd takes every answer for one of etcd's.
        except (etcd.EtcdException, *answers.NONSENSE, *NO_ANSWER) as error:
            figures.etcd_failed(name)
            cause = answers.innermost(error)
            if not isinstance(cause, TooLargeError | BusyError):  # no member has a smaller one
                self._turn_away_from(number, is_silent=cause is not None)
            what = f"{name} {self._path(key)} at {self._url(number)}"
            raise StoreError(what, self._why(error, number, client.http)) from error

    def _client(self) -> tuple[int, etcd.Client]:
        """Return this thread's connection to the member in use. *Raises* StoreError."""
        access = self._credentials.access()
        number = self._current
        own = self._threads.__dict__
        if own.get("access") is not access:
            own["access"], own["clients"] = access, {}
        client = own["clients"].get(number)
        if client is None:
            client = own["clients"][number] = self._connect(number, access)
        return number, client

    def _connect(self, number: int, access: Access) -> etcd.Client:
        host, port = self._endpoints[number]
        client = etcd.Client(
            host=_bracketed(host),
            port=port,
            protocol="http" if access.context is None else "https",
            username=access.username,
            password=access.password,
            **_OPTIONS,
        )
        client.http = self._transport(host, port, access.context)
        client.http.on_large = self._large.enter
        if access.username and access.password:
            client.http.log_in(access.username, access.password)
        return client

    def _transport(self, host: str, port: int, context: ssl.SSLContext | None) -> Transport:
        """Make a connection; apart for those who count what goes over it."""
        return Transport(host, port, context)

    def _why(self, error: Exception, number: int, http: Transport) -> str:
        """Return what the operator has to mend, as far as that is known."""
        if http.status == _NOT_FOUND and type(error) is etcd.EtcdException:
            return answers.why_no_v2(http, REQUEST_TIMEOUT_S)
        if isinstance(error, etcd.EtcdInsufficientPermissions):
            return self._credentials.why_forbidden()
        cause = answers.innermost(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return self._credentials.why_distrusted(cause)
        if isinstance(cause, ssl.SSLError | ConnectionResetError | BrokenPipeError):
            return self._credentials.why_hung_up(*self._endpoints[number]) or str(cause)
        if cause is not None:
            return cause.strerror or str(cause)
        return str(error)

    def _url(self, number: int) -> str:
        host, port = self._endpoints[number]
        return f"{'https' if self._config.etcd_tls else 'http'}://{_bracketed(host)}:{port}"

    def _turn_away_from(self, number: int, *, is_silent: bool) -> None:
        """Use the next member from now on, unless somebody else has turned already.

        A watch at a member that is silent would wait for as long as at one that has no news.
        """
        if self._current == number:
            self._current = (number + 1) % len(self._endpoints)
        watching = self._watching
        if is_silent and watching is not None and watching[0] == number:
            watching[1].abort()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
