"""One request of a runtime, from its environment and standard input to the one answer.

The answer goes to standard output. The skeleton checks everything that the specification demands of
any plugin, calls the operation and prints its result or its error. It takes environment, streams
and operations as arguments, so that a test needs no process, and nothing else in Ratchet writes to
standard output.

What is required of each operation is what libcni's own skeleton demands, where it says more than
the specification: an empty CNI_NETNS is right for DEL and wrong for ADD and CHECK.
"""

from __future__ import annotations

from ratchet import names
from ratchet.cni import codec, config, version
from ratchet.cni.errors import (
    INCOMPATIBLE_VERSION,
    INVALID_ENVIRONMENT,
    IO_FAILURE,
    CniError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    class Reader(Protocol):
        def read(self) -> bytes: ...

    class Writer(Protocol):
        def write(self, data: bytes, /) -> object: ...
        def flush(self) -> object: ...


_OF_ATTACHMENT = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")
# CNI spec 1.1.0 §2, "Parameters", of each operation.
REQUIRED = {
    "ADD": _OF_ATTACHMENT,
    "CHECK": _OF_ATTACHMENT,
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    "GC": ("CNI_PATH",),
    "STATUS": ("CNI_PATH",),
    "VERSION": (),
}


class Request:
    """One call of the plugin, its environment and its configuration checked.

    Written by hand, without ``dataclasses``: that module would cost a pod's ADD 8 ms.
    """

    __slots__ = (
        "args",
        "command",
        "config",
        "config_bytes",
        "container_id",
        "environ",
        "ifname",
        "netns",
        "path",
    )

    def __init__(
        self,
        command: str,
        *,
        container_id: str = "",
        netns: str = "",
        ifname: str = "",
        args: str = "",
        path: str = "",
        environ: Mapping[str, str] | None = None,
        config_bytes: bytes = b"",
        config: dict[str, Any] | None = None,
    ) -> None:
        self.command = command
        self.container_id = container_id
        self.netns = netns
        self.ifname = ifname
        self.args = args
        self.path = path
        self.environ: Mapping[str, str] = {} if environ is None else environ
        self.config_bytes = config_bytes
        self.config: dict[str, Any] = {} if config is None else config


def main(
    environ: Mapping[str, str],
    stdin: Reader,
    stdout: Writer,
    operations: Mapping[str, Callable[[Request], dict[str, Any] | None]],
    crashed: Callable[[Exception], CniError] | None = None,
) -> int:
    """Serve one request and return the exit code.

    ``crashed`` turns an exception that no operation should raise into the error that goes up.
    """
    spoken = [version.LATEST]
    try:
        answer = _serve(environ, stdin, operations, spoken)
        data = b"" if answer is None else codec.encode(answer) + b"\n"
    except CniError as exc:
        return _print(stdout, error(exc, spoken[0]), 1)
    except Exception as exc:
        if crashed is None:
            raise
        return _print(stdout, error(crashed(exc), spoken[0]), 1)
    return _print(stdout, data, 0)


def needs_stdin(environ: Mapping[str, str]) -> bool:
    """Tell whether a request cannot be answered without what is on standard input."""
    return environ.get("CNI_COMMAND") != "VERSION" and _wrong_environment(environ) is None


def _serve(
    environ: Mapping[str, str],
    stdin: Reader,
    operations: Mapping[str, Callable[[Request], dict[str, Any] | None]],
    spoken: list[str],
) -> dict[str, Any] | None:
    """Return the answer; ``spoken`` becomes the cniVersion that an error must have."""
    command = environ.get("CNI_COMMAND", "")
    if command == "VERSION":
        return _version(stdin)
    wrong = _wrong_environment(environ)
    try:
        data = _read(stdin)
        found = config.decode(data)
    except CniError:
        if wrong is not None:  # the environment comes first, as in libcni's skeleton
            raise wrong from None
        raise
    stated = found.get("cniVersion", "")
    if isinstance(stated, str) and version.is_supported(stated):
        # CNI spec 1.1.0 §5, "Error": cniVersion as in the configuration.
        spoken[0] = stated or version.UNSTATED
    if wrong is not None:
        raise wrong
    request = Request(
        command,
        container_id=environ.get("CNI_CONTAINERID", ""),
        netns=environ.get("CNI_NETNS", ""),
        ifname=environ.get("CNI_IFNAME", ""),
        args=environ.get("CNI_ARGS", ""),
        path=environ["CNI_PATH"],
        environ=environ,
        config_bytes=data,
        config=found,
    )
    config.check(request.config)
    _check_attachment(request)
    if not version.allows(stated, command):
        raise CniError(
            INCOMPATIBLE_VERSION,
            f"the configuration's cniVersion does not know {command}",
            f"cniVersion is {stated or version.UNSTATED}, "
            f"{command} came with {version.SINCE[command]}",
        )
    return operations[command](request)


def _wrong_environment(environ: Mapping[str, str]) -> CniError | None:
    """Return the error for an unknown operation, or for a variable that it lacks."""
    command = environ.get("CNI_COMMAND", "")
    known = f"known are {', '.join(REQUIRED)}"
    if command == "":
        what = "CNI_COMMAND is missing: this is a CNI plugin, which a container runtime executes"
        return CniError(INVALID_ENVIRONMENT, what, known)
    if command not in REQUIRED:
        return CniError(INVALID_ENVIRONMENT, f"CNI_COMMAND is {command[:64]!a}", known)
    missing = [key for key in REQUIRED[command] if not environ.get(key)]
    if not missing:
        return None
    return CniError(
        INVALID_ENVIRONMENT,
        f"{', '.join(missing)} missing in the environment",
        f"{command} needs {', '.join(REQUIRED[command])}",
    )


def _check_attachment(request: Request) -> None:
    """Check container ID and interface name, where the operation has them. Raises CniError 4."""
    if "CNI_CONTAINERID" not in REQUIRED[request.command]:
        return
    if not names.is_identifier(request.container_id):
        raise CniError(
            INVALID_ENVIRONMENT,
            f"CNI_CONTAINERID is {request.container_id[:64]!a}",
            "it must begin with a letter or digit and hold only these, '_', '.' and '-'",
        )
    if not names.is_ifname(request.ifname):
        raise CniError(
            INVALID_ENVIRONMENT,
            f"CNI_IFNAME is {request.ifname[:64]!a}",
            f"it must be {names.EXISTING_IFNAME}",
        )


def _read(stdin: Reader) -> bytes:
    try:
        return stdin.read()
    except OSError as exc:
        raise CniError(IO_FAILURE, "cannot read standard input", str(exc)) from exc


def _version(stdin: Reader) -> dict[str, Any]:
    """Answer VERSION. What stands on standard input need not be right, nor be there.

    CNI spec 1.1.0 §2, VERSION, gives it the cniVersion of its answer; libcni's plugins ignore it.
    """
    stated = ""
    try:  # noqa: SIM105 - contextlib would cost a pod's ADD 2 ms
        stated = config.decode(_read(stdin)).get("cniVersion", "")
    except CniError:
        pass
    known = isinstance(stated, str) and stated in version.SUPPORTED
    return {
        "cniVersion": stated if known else version.LATEST,
        "supportedVersions": list(version.SUPPORTED),
    }


def error(exc: CniError, spoken: str) -> bytes:
    """Return what an error looks like on standard output, in this cniVersion."""
    told = {"cniVersion": spoken, "code": exc.code, "msg": exc.msg}
    if exc.details:
        told["details"] = exc.details
    return codec.encode(told) + b"\n"


def _print(stdout: Writer, data: bytes, exit_code: int) -> int:
    try:
        stdout.write(data)
        stdout.flush()
    except OSError:  # the runtime has gone, and nobody is left to tell
        return 1
    return exit_code
