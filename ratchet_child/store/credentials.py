"""What this node shows etcd and what it expects of etcd: certificates, and a user's password.

They are read when etcd is first asked, not when the child starts: a file that is missing must not
keep links inside the node from being made. They are read again when one of the files has changed,
so that certificates and passwords can be renewed under a child that runs; until then every request
goes by what was read. Certificates of etcd are always verified; nothing in here can turn that off.

Apart from the store so that no request needs to know of files. What is read here is shown nowhere.
"""

from __future__ import annotations

import os
import socket
import ssl
import stat
import threading

from ratchet import log
from ratchet.config import Config
from ratchet.errors import StoreError

PROBE_TIMEOUT_S = 1.0

Stamp = tuple[int, ...] | int


class Access:
    """What was read at one moment. By hand, so that no `repr` shows the password."""

    __slots__ = ("context", "password", "stamps", "username")

    def __init__(
        self,
        stamps: tuple[Stamp, ...],
        context: ssl.SSLContext | None,
        username: str | None,
        password: str | None,
    ) -> None:
        self.stamps = stamps
        self.context = context  # None without TLS
        self.username = username
        self.password = password


class Credentials:
    """The files of one configuration. Safe to use from many threads."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._files = {
            key: path
            for key in ("etcd_ca_cert", "etcd_cert", "etcd_key", "etcd_password_file")
            if (path := getattr(config, key)) is not None
        }
        self._lock = threading.Lock()
        self._access: Access | None = None

    def access(self) -> Access:
        """Read the files as they are now. *Raises* StoreError, which names the wrong file."""
        stamps = tuple(_stamp(path) for path in self._files.values())
        access = self._access
        if access is not None and access.stamps == stamps:
            return access
        with self._lock:
            if self._access is None or self._access.stamps != stamps:
                again = self._access is not None
                self._access = None
                # A file that changes after the stamps were taken is read once more.
                self._access = self._read(stamps)
                self._tell(again=again)
            return self._access

    # What went wrong ------------------------------------------------------------------------------

    def why_forbidden(self) -> str:
        config = self._config
        if config.etcd_username is None:
            return "it wants a user: give etcd_username and etcd_password_file"
        return (
            f"it refuses the user {config.etcd_username}: the password in"
            f" {config.etcd_password_file} is wrong, there is no such user, or none of its roles"
            f" may do this below {config.etcd_prefix}"
        )

    def why_distrusted(self, error: ssl.SSLCertVerificationError) -> str:
        trusted = self._config.etcd_ca_cert or "the system's authorities, without etcd_ca_cert"
        return f"its certificate is not trusted: {error.verify_message}; trusted is {trusted}"

    def why_hung_up(self, host: str, port: int) -> str | None:
        """Return why etcd hangs up; None when it does not do so again.

        Found out with a handshake and nothing more: who has sent a request by the time at which
        etcd refuses a certificate (RFC 8446 §2: after the handshake) may not hear why any more.
        """
        context = self.access().context
        if context is None:
            return "it hung up; should it want TLS: etcd_ca_cert turns that on"
        try:
            connection = socket.create_connection((host, port), PROBE_TIMEOUT_S)
        except OSError:
            return None
        is_trusted = False
        try:
            with connection, context.wrap_socket(connection, server_hostname=host) as tls:
                is_trusted = True
                tls.recv(1)
        except TimeoutError:
            return None
        except ssl.SSLCertVerificationError as error:
            return self.why_distrusted(error)
        except OSError as error:
            if not is_trusted and "ALERT" not in (getattr(error, "reason", None) or ""):
                return "it does not speak TLS, which etcd_ca_cert and etcd_cert turn on"
        if self._config.etcd_cert is None:
            return "it wants a client certificate: give etcd_cert and etcd_key"
        return (
            f"it refuses the client certificate {self._config.etcd_cert}: it has expired, or"
            " etcd's --trusted-ca-file does not know who issued it"
        )

    # Reading --------------------------------------------------------------------------------------

    def _read(self, stamps: tuple[Stamp, ...]) -> Access:
        for key, path in self._files.items():
            _must_open(key, path)
        config = self._config
        context = _context(config) if config.etcd_tls else None
        password = None
        if config.etcd_password_file is not None:
            password = _password(config.etcd_password_file)
        return Access(stamps, context, _as_sent(config.etcd_username), _as_sent(password))

    def _tell(self, *, again: bool) -> None:
        if again:
            log.info("etcd's certificates and password were read again", **self._files)
        for key in ("etcd_key", "etcd_password_file"):
            path = self._files.get(key)
            if path is not None and _is_readable_by_others(path):
                log.warning("a file with a secret can be read by more than its owner", file=path)
        if self._config.etcd_username is not None and not self._config.etcd_tls:
            log.warning("etcd's password is sent in clear text, because there is no etcd_ca_cert")


def _context(config: Config) -> ssl.SSLContext:
    """Return how TLS is spoken: etcd's certificate and its name are verified."""
    try:
        # Without a file: the authorities that the system trusts.
        context = ssl.create_default_context(cafile=config.etcd_ca_cert)
    except ssl.SSLError as error:
        raise _unusable("etcd_ca_cert", config.etcd_ca_cert, "holds no PEM certificate") from error
    if config.etcd_cert is not None:
        try:
            context.load_cert_chain(config.etcd_cert, config.etcd_key, password=_refuse_passphrase)
        except ssl.SSLError as error:
            raise _blamed(config, error) from error
        except _PassphraseError as error:
            raise _unusable("etcd_key", config.etcd_key, "is encrypted") from error
    return context


def _blamed(config: Config, error: ssl.SSLError) -> StoreError:
    """Return which of certificate and key is wrong, and how."""
    if error.reason == "KEY_VALUES_MISMATCH":
        return _unusable("etcd_key", config.etcd_key, f"is not the key of {config.etcd_cert}")
    try:
        ssl.create_default_context(cafile=config.etcd_cert)
    except ssl.SSLError:
        return _unusable("etcd_cert", config.etcd_cert, "holds no PEM certificate")
    return _unusable("etcd_key", config.etcd_key, "holds no PEM key")


class _PassphraseError(Exception):
    """OpenSSL asks for a passphrase; left alone it would ask on a terminal."""


def _refuse_passphrase() -> str:
    raise _PassphraseError


def _password(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            password = file.read().strip()
    except OSError as error:
        raise _unusable("etcd_password_file", path, error.strerror or repr(error)) from error
    except UnicodeDecodeError:
        # Without a cause: that one holds the bytes.
        raise _unusable("etcd_password_file", path, "is not UTF-8 text") from None
    if not password:
        # python-etcd would go on as a guest.
        raise _unusable("etcd_password_file", path, "is empty")
    return password


def _as_sent(text: str | None) -> str | None:
    """Return a text whose Latin-1 bytes, which urllib3 sends, are the UTF-8 that etcd expects."""
    return None if text is None else text.encode().decode("latin-1")


def _must_open(key: str, path: str) -> None:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        if os.path.isdir(path):
            raise _unusable(key, path, "is a directory")
    except OSError as error:
        raise _unusable(key, path, error.strerror or repr(error)) from error


def _unusable(key: str, path: str | None, why: str) -> StoreError:
    return StoreError(f"{key} {path}", why)


def _stamp(path: str) -> Stamp:
    """Return what changes with the file, even behind a symbolic link; the errno without a file."""
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno or -1
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _is_readable_by_others(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False
