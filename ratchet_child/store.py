"""etcd, by its v2 API. The only importer of `etcd` (python-etcd).

Keys go in and come out relative to the prefix. Everything that python-etcd 0.4.5 leaves to chance
is settled here: keys are quoted, IPv6 hosts bracketed, certificates always verified, requests never
sent twice (a compare-and-swap whose answer was lost may have been carried out: its caller must look
again, not the transport), and a 404 that is not etcd's own is not taken for "no such key".

A store is used from many threads at once; each thread has its own connection.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import etcd
from urllib3.util import Retry

from ratchet.config import Config
from ratchet.errors import StoreError
from ratchet_child import faults, metrics

REQUEST_TIMEOUT_S = 3.0
WATCH_TIMEOUT_S = 20.0

_KEY_NOT_FOUND = 100
_CONDITION_FAILED = (
    etcd.EtcdCompareFailed,
    etcd.EtcdAlreadyExist,
    etcd.EtcdDirNotEmpty,
    etcd.EtcdNotFile,
    etcd.EtcdNotDir,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value with the indices that etcd keeps of it."""

    value: str
    modified: int
    created: int


@dataclass(frozen=True, slots=True)
class Event:
    """A change heard by a watch."""

    action: str  # set, create, update, delete, expire, compareAndSwap, compareAndDelete
    key: str  # relative to the prefix
    value: str
    index: int  # continue the watch at the next one


class HistoryLostError(Exception):
    """The watch cannot be continued (error 401, or another cluster): list and look again."""


class Store:
    """Every request raises StoreError when etcd cannot be asked; nothing is retried in here."""

    def __init__(self, config: Config) -> None:
        self._prefix = config.etcd_prefix.rstrip("/")
        self._endpoints = config.etcd_endpoints
        self._options = _client_options(config)
        self._current = 0
        self._threads = threading.local()

    def get(self, key: str) -> Entry | None:
        """One key, by a quorum read; None when there is none or it is a directory."""
        result = self._call("get", key, lambda client, path: client.read(path, quorum=True))
        return None if result is None or result.dir else _entry(result)

    def tree(self, key: str, *, recursive: bool = False) -> tuple[dict[str, Entry], int]:
        """The keys below a directory by their relative names, and etcd's index at that moment.

        By a quorum read. A missing directory is an empty one. A watch from the next index on
        misses nothing that the listing does not show.
        """
        try:
            result = self._request(
                "tree",
                self._path(key),
                lambda client, path: client.read(path, quorum=True, recursive=recursive),
            )
        except etcd.EtcdKeyNotFound as error:
            return {}, int(_not_found(error, f"tree {key}").get("index") or 0)
        except _CONDITION_FAILED as error:
            raise StoreError(f"tree {key}", str(error)) from error
        below = f"{self._prefix}/{key}/"
        entries = {
            leaf.key[len(below) :]: _entry(leaf)
            for leaf in _leaves(result)
            if str(leaf.key).startswith(below)
        }
        return entries, int(result.etcd_index)

    def set(self, key: str, value: str, ttl_s: int | None = None) -> str | None:
        """Write a key whatever it was; its previous value, None when it had none."""
        result = self._call("set", key, lambda client, path: client.write(path, value, ttl=ttl_s))
        previous = getattr(result, "_prev_node", None)
        return None if previous is None else previous.value

    def create(self, key: str, value: str) -> Entry | None:
        """Write a key that is not there; None when it is."""
        return self._written(
            "create", key, lambda client, path: client.write(path, value, prevExist=False)
        )

    def swap(self, key: str, value: str, modified: int) -> Entry | None:
        """Compare-and-swap by modified index; None when the key has changed or is gone."""
        return self._written(
            "swap", key, lambda client, path: client.write(path, value, prevIndex=modified)
        )

    def remove(self, key: str, modified: int) -> bool:
        """Compare-and-delete by modified index; False when the key has changed or is gone."""
        return self._compared(
            "remove", key, lambda client, path: client.delete(path, prevIndex=modified)
        )

    def remove_value(self, key: str, value: str) -> bool:
        """Compare-and-delete by value; False when the key has another value or is gone."""
        return self._compared(
            "remove", key, lambda client, path: client.delete(path, prevValue=value)
        )

    def prune(self, key: str) -> bool:
        """Remove a directory if it is empty; False when it is not, or is gone."""
        return self._compared("prune", key, lambda client, path: client.delete(path, dir=True))

    def remove_tree(self, key: str) -> bool:
        """Remove a key or directory with all below it; False when there is none."""
        return self._compared(
            "remove_tree", key, lambda client, path: client.delete(path, recursive=True)
        )

    def watch(self, key: str, index: int) -> Event | None:
        """The next change below `key` at or after `index`; None when there was none for a while.

        *Blocks at most* WATCH_TIMEOUT_S. *Raises* HistoryLostError.
        """
        try:
            result = self._call(
                "watch",
                key,
                lambda client, path: client.read(
                    path,
                    wait=True,
                    recursive=True,
                    waitIndex=index,
                    timeout=WATCH_TIMEOUT_S,
                ),
            )
        except etcd.EtcdWatchTimedOut:
            return None
        if result is None:
            return None
        return Event(
            action=result.action,
            key=result.key[len(self._prefix) + 1 :],
            value=result.value or "",
            index=int(result.modifiedIndex),
        )

    def _compared(self, name: str, key: str, call: Any) -> bool:
        return self._conditional(name, key, call) is not None

    def _written(self, name: str, key: str, call: Any) -> Entry | None:
        result = self._conditional(name, key, call)
        return None if result is None else _entry(result)

    def _conditional(self, name: str, key: str, call: Any) -> Any:
        """A request with a condition; None when the condition does not hold."""
        try:
            return self._ask(name, key, call)
        except _CONDITION_FAILED:
            return None

    def _call(self, name: str, key: str, call: Any) -> Any:
        """A request without one: a key where a directory should be, or the reverse, is an error."""
        try:
            return self._ask(name, key, call)
        except _CONDITION_FAILED as error:
            raise StoreError(f"{name} {key}", str(error)) from error

    def _ask(self, name: str, key: str, call: Any) -> Any:
        """Carry out one request; None when etcd says that there is no such key."""
        try:
            return self._request(name, self._path(key), call)
        except etcd.EtcdKeyNotFound as error:
            _not_found(error, f"{name} {key}")
            return None

    def _path(self, key: str) -> str:
        return quote(f"{self._prefix}/{key}", safe="/:")

    def _request(self, name: str, path: str, call: Any) -> Any:
        faults.reach("etcd")
        number, client = self._client()
        try:
            with metrics.etcd_request(name):
                result = call(client, path)
        except etcd.EtcdWatchTimedOut:
            raise
        except (etcd.EtcdEventIndexCleared, etcd.EtcdWatcherCleared) as error:
            raise HistoryLostError(str(error)) from error
        except etcd.EtcdClusterIdChanged as error:
            if name == "watch":
                raise HistoryLostError(str(error)) from error
            raise StoreError(f"{name} {path}", "it is another cluster than before") from error
        except (etcd.EtcdKeyNotFound, *_CONDITION_FAILED):
            raise
        except (etcd.EtcdException, ValueError, OSError) as error:
            self._turn_away_from(number)
            host, port = self._endpoints[number]
            raise StoreError(f"{name} {path} at {host}:{port}", str(error)) from error
        faults.reach("etcd done")
        return result

    def _client(self) -> tuple[int, etcd.Client]:
        """This thread's connection to the member in use."""
        number = self._current
        clients = self._threads.__dict__.setdefault("clients", {})
        client = clients.get(number)
        if client is None:
            host, port = self._endpoints[number]
            client = etcd.Client(host=_bracketed(host), port=port, **self._options)
            # Only a connection that was never made may be tried again by the transport.
            client.http.connection_pool_kw["retries"] = Retry(
                total=1, connect=1, read=0, redirect=0, status=0, other=0
            )
            clients[number] = client
        return number, client

    def _turn_away_from(self, number: int) -> None:
        """Use the next member from now on, unless somebody else has turned already."""
        if self._current == number:
            self._current = (number + 1) % len(self._endpoints)


def _client_options(config: Config) -> dict[str, Any]:
    options: dict[str, Any] = {
        "read_timeout": REQUEST_TIMEOUT_S,
        "allow_redirect": False,
        "allow_reconnect": False,
        "per_host_pool_size": 1,
    }
    if config.etcd_ca_cert or config.etcd_cert:
        options["protocol"] = "https"
        # Without ca_cert python-etcd verifies nothing: then use the machine's own authorities.
        options["ca_cert"] = config.etcd_ca_cert or ssl.get_default_verify_paths().cafile
        if config.etcd_cert:
            options["cert"] = (
                (config.etcd_cert, config.etcd_key) if config.etcd_key else config.etcd_cert
            )
    if config.etcd_username:
        options["username"] = config.etcd_username
        options["password"] = _password(config.etcd_password_file)
    return options


def _password(path: str | None) -> str:
    if not path:
        raise StoreError("etcd_username is given without etcd_password_file")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"etcd_password_file {path}", str(error)) from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _not_found(error: etcd.EtcdKeyNotFound, what: str) -> dict[str, Any]:
    """etcd's own words for "no such key". *Raises* StoreError when the 404 is somebody else's."""
    payload = error.payload
    if not isinstance(payload, dict) or payload.get("errorCode") != _KEY_NOT_FOUND:
        raise StoreError(what, f"not an etcd with the v2 API? {error}") from error
    return payload


def _entry(result: Any) -> Entry:
    value = result.value or ""
    if not isinstance(value, str):
        raise StoreError(f"read {result.key}", "its value is not text: not an etcd?")
    return Entry(
        value=value,
        modified=int(result.modifiedIndex or 0),
        created=int(result.createdIndex or 0),
    )


def _leaves(result: Any) -> Iterator[Any]:
    for leaf in result.leaves:
        if not leaf.dir:
            yield leaf
