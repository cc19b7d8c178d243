"""A kubeconfig, read as far as a program on a node needs it: one server, and how to be known to it.

Apart from `ratchet.kubernetes` because nothing in here needs a connection, and this is the only
importer of PyYAML. JSON is YAML as well, but is tried first with ``json``, which every program here
has loaded anyway.

What is not supported is an error that names the field: a kubeconfig that is half understood would
ask the wrong server or as the wrong user. Errors never carry values of fields that hold secrets.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from ratchet.cni.dataclasses import dataclass, field
from ratchet.errors import PodSourceError, shown

MAX_BYTES = 1 << 20
MAX_KEYS = 1000  # of one object; merge keys can double them at each step

_UNSUPPORTED_USER = (
    "exec",
    "auth-provider",
    "username",
    "password",
    "as",
    "as-uid",
    "as-groups",
    "as-user-extra",
)
_UNSUPPORTED_CLUSTER = ("proxy-url",)
_HINT = "Ratchet takes a token, tokenFile or client-certificate"


@dataclass(frozen=True, slots=True)
class Material:
    """Something in PEM: the path of a file, or the bytes themselves."""

    path: str | None
    data: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """A kubeconfig's current context. Without `ca` the system's certificate authorities count."""

    server: str  # without a slash at its end
    ca: Material | None
    verify: bool
    tls_server_name: str | None
    token: str | None = field(repr=False)
    certificate: Material | None
    key: Material | None
    files: tuple[str, ...]  # all that was or will be read, so that a change can be seen


def read(path: str) -> Kubeconfig:
    """Read the file and the token file that it names. Raises `PodSourceError`."""
    return parse(_read_file(path, "kubeconfig", path), path)


def load(path: str) -> dict[Any, Any]:
    """Read the file's content and nothing of what it means. Raises `PodSourceError`."""
    return _decode(_read_file(path, "kubeconfig", path), path)


def parse(content: bytes, path: str) -> Kubeconfig:
    """Read a kubeconfig's content; relative paths in it start at its directory.

    Raises `PodSourceError`.
    """
    whole = _Section(_decode(content, path), path, "")
    context = whole.entry("contexts", whole.text("current-context", needed=True), "context")
    cluster = whole.entry("clusters", context.text("cluster", needed=True), "cluster")
    user_name = context.text("user")
    user = whole.entry("users", user_name, "user") if user_name else _Section({}, path, "user")
    user.refuse(_UNSUPPORTED_USER)
    cluster.refuse(_UNSUPPORTED_CLUSTER)

    server = _server(cluster)
    ca = cluster.material("certificate-authority")
    verify = not cluster.flag("insecure-skip-tls-verify")
    if ca is not None and not verify:
        raise cluster.error(
            "insecure-skip-tls-verify", "says not to verify, and certificate-authority to verify"
        )
    certificate = user.material("client-certificate")
    key = user.material("client-key")
    if (certificate is None) != (key is None):
        missing = "client-key" if key is None else "client-certificate"
        raise user.error(missing, "is missing: a certificate and its key go together")

    token_path = user.path("tokenFile")
    token = user.text("token")
    if token_path is not None:  # it is the one that is renewed, so client-go prefers it, too
        token = _decode_text(_read_file(token_path, user.name_of("tokenFile"), path))
        if not token.strip():
            raise user.error("tokenFile", f"({token_path}) is empty")
    if token is not None:
        token = token.strip()
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise user.error("token", "is not a bearer token")
    if (token is not None or certificate is not None) and server.startswith("http:"):
        raise cluster.error("server", "has to be https: the credentials would be readable")

    named = (ca, certificate, key)
    files = [path] + [material.path for material in named if material and material.path]
    return Kubeconfig(
        server=server,
        ca=ca,
        verify=verify,
        tls_server_name=cluster.text("tls-server-name"),
        token=token,
        certificate=certificate,
        key=key,
        files=tuple(files + ([token_path] if token_path else [])),
    )


def tls(config: Kubeconfig) -> ssl.SSLContext:
    """Make the TLS settings of a client. Raises `PodSourceError` for certificates that are none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if not config.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif config.ca is not None:
            with _as_file(config.ca) as path:
                context.load_verify_locations(path)
        else:
            context.load_default_certs()
        if config.certificate is not None and config.key is not None:
            with _as_file(config.certificate) as certificate, _as_file(config.key) as key:
                # Without a password OpenSSL would ask a terminal for that of an encrypted key.
                context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        what = "its certificates or its key cannot be used"
        raise PodSourceError(
            f"kubeconfig {config.files[0]}", f"{what}: {error.strerror}"
        ) from error
    return context


def stamp(paths: tuple[str, ...]) -> tuple[object, ...]:
    """Return what changes when one of the files does, also one behind a symbolic link."""
    stamps: list[object] = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            stamps.append(error.errno)
        else:
            stamps.append((status.st_ino, status.st_dev, status.st_mtime_ns, status.st_size))
    return tuple(stamps)


class _Section:
    """One object of a kubeconfig, which knows what it is called for its errors."""

    def __init__(self, fields: dict[Any, Any], path: str, name: str) -> None:
        self._fields = fields
        self._path = path
        self._name = name

    def error(self, key: str, what: str) -> PodSourceError:
        return PodSourceError(f"kubeconfig {self._path}", f"{self.name_of(key)} {what}")

    def name_of(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key

    def entry(self, list_name: str, name: str | None, kind: str) -> _Section:
        """Return what the list holds under a name."""
        entries = self._fields.get(list_name)
        if not isinstance(entries, list):
            raise self.error(list_name, "has to be a list")
        for entry in entries:
            if isinstance(entry, dict) and entry.get("name") == name:
                found = entry.get(kind)
                if not isinstance(found, dict):
                    raise self.error(list_name, f"has no {kind} under {shown(name)}")
                return _Section(found, self._path, kind)
        raise self.error(list_name, f"has no entry named {shown(name)}")

    def text(self, key: str, *, needed: bool = False) -> str | None:
        value = self._fields.get(key)
        if value is None or value == "":
            if needed:
                raise self.error(key, "is missing")
            return None
        if not isinstance(value, str):
            raise self.error(key, "has to be a string")
        return value

    def flag(self, key: str) -> bool:
        value = self._fields.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.error(key, "has to be true or false")
        return value

    def path(self, key: str) -> str | None:
        value = self.text(key)
        if value is None:
            return None
        if "\0" in value:
            raise self.error(key, "is not a path")
        return os.path.join(os.path.dirname(os.path.abspath(self._path)), value)

    def material(self, key: str) -> Material | None:
        """Return a file or its content; kubeconfigs may give both, and then the content counts."""
        encoded = self.text(f"{key}-data")
        if encoded is None:
            path = self.path(key)
            return None if path is None else Material(path, None)
        try:
            return Material(None, base64.b64decode("".join(encoded.split()), validate=True))
        except (binascii.Error, ValueError):
            # Without the cause: its traceback would lead a debugger straight to the key.
            raise self.error(f"{key}-data", "is not base64") from None

    def refuse(self, keys: tuple[str, ...]) -> None:
        for key in keys:
            if self._fields.get(key):
                raise self.error(key, f"is not supported: {_HINT}")


@contextmanager
def _as_file(material: Material) -> Iterator[str]:
    """Give a path for OpenSSL, which loads from files; content gets one without a name."""
    if material.data is None:
        yield material.path or ""
        return
    descriptor = os.memfd_create("ratchet")
    with open(descriptor, "wb") as file:
        file.write(material.data)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"


def _server(cluster: _Section) -> str:
    text = _unbracketed(cluster.text("server", needed=True) or "")
    try:
        url = urlsplit(text)
        port_is_right = url.port is None or url.port > 0
    except ValueError:
        raise cluster.error("server", "is not a URL") from None
    if (
        url.scheme not in ("https", "http")
        or not url.hostname
        or not port_is_right
        or not (text.isascii() and text.isprintable())
        or " " in text
        or "@" in url.netloc
        or url.query
        or url.fragment
    ):
        raise cluster.error("server", "is not a URL such as https://host:6443")
    # The scheme as urlsplit has it, in lower case.
    return f"{url.scheme}://{text.partition('://')[2].rstrip('/')}"


def _unbracketed(url: str) -> str:
    """Return a URL without the brackets that belong to IPv6 addresses alone (RFC 3986 §3.2.2).

    Calico's node container writes https://[10.96.0.1]:443.
    """
    scheme, separator, rest = url.partition("://[")
    host, bracket, port = rest.partition("]")
    if not separator or not bracket or ":" in host:
        return url
    return f"{scheme}://{host}{port}"


def _decode(content: bytes, path: str) -> dict[Any, Any]:
    try:
        decoded = json.loads(content)
    except (ValueError, RecursionError):
        decoded = _decode_yaml(content, path)
    if not isinstance(decoded, dict):
        raise PodSourceError(f"kubeconfig {path}", "it is not an object")
    return decoded


def _decode_yaml(content: bytes, path: str) -> Any:
    import yaml  # noqa: PLC0415 - 20 ms, and not needed for JSON

    # Not the faster CSafeLoader, which crashes the process on a hundred thousand brackets.
    class Loader(yaml.SafeLoader):
        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            super().flatten_mapping(node)
            if len(node.value) > MAX_KEYS:
                raise yaml.YAMLError("merge keys without end")

    try:
        return yaml.load(content, Loader)  # noqa: S506 - it is a safe loader
    # PyYAML lets all errors of the types that it constructs through: dates, numbers, keys.
    except Exception as error:  # noqa: BLE001
        # Only where: what stands there may be a secret. For the same reason without the cause.
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise PodSourceError(f"kubeconfig {path}", f"it is neither JSON nor YAML{where}") from None


def _decode_text(content: bytes) -> str:
    return content.decode("latin-1")


def _read_file(path: str, what: str, kubeconfig: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PodSourceError(
            f"kubeconfig {kubeconfig}", f"{what}: cannot read {path}: {error.strerror}"
        ) from error
    if len(content) > MAX_BYTES:
        raise PodSourceError(f"kubeconfig {kubeconfig}", f"{what}: {path} is larger than 1 MiB")
    return content
