"""The layout of one network's state directory, and how its files are written.

Parents, the child and ratchetctl meet in this directory, so where things lie in it is said once.
It is on the path of every pod (is there a record? is there a socket?) and imports nothing. What a
record holds is ``ratchet.attachments``' business, who listens on the socket ``ratchet.spawn``'s
and the child's.
"""

from __future__ import annotations

import _thread
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ratchet.config import Config

RECORDS = "attachments"
BOOTS = "boot"
RECORD_SUFFIX = ".json"
SOCKET = "child.sock"
LOCK = "child.lock"
SETTINGS = "settings.json"
AT_REST = "at-rest"  # the child has ended with nothing left to do, in the boot that the file names
GIVEN_UP = "given-up"  # the child died again and again, and was not started any more
BOOT_ID = "/proc/sys/kernel/random/boot_id"
VOLATILE = ("/run/", "/var/run/")  # emptied by a reboot: file-hierarchy(7)
VERSIONS = "versions"

_LASTING = "/var/lib"
# stat(2), without the 2 ms that its module costs: inode(7)
_TYPE, _LINK, _STICKY = 0o170000, 0o120000, 0o1000
_MOST_LINKS = 40  # path_resolution(7)
_EPERM = 1  # errno(3)


def attachment_name(container_id: str, ifname: str) -> str:
    """Return an attachment's name, as record files and the child's requests have it."""
    return f"{container_id}.{ifname}"


def record_path(state_dir: str, container_id: str, ifname: str) -> str:
    """Return where an attachment's record lies."""
    return f"{state_dir}/{RECORDS}/{attachment_name(container_id, ifname)}{RECORD_SUFFIX}"


def boot_path(state_dir: str, container_id: str, ifname: str) -> str:
    """Return where the record is kept until the boot network's DEL has succeeded."""
    return f"{state_dir}/{BOOTS}/{attachment_name(container_id, ifname)}{RECORD_SUFFIX}"


def failed_path(state_dir: str, what: str) -> str:
    """Return where it is kept that something fails again and again."""
    return f"{state_dir}/{what}.failed.json"


def versions_path(state_dir: str, program: str) -> str:
    """Return where it is kept which versions of the specification a plugin's program knows."""
    return f"{state_dir}/{VERSIONS}/{os.path.basename(program)}"


def known_versions(state_dir: str, program: str) -> list[str] | None:
    """Return what a program is known to know; None when it is not known, or not of this file."""
    try:
        fd = os.open(versions_path(state_dir, program), os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, 8192)
        finally:
            os.close(fd)
        of, stamped, versions = text.decode("utf-8", "surrogateescape").split("\n")
        return versions.split() if of == program and stamped == stamp(program) else None
    except (OSError, ValueError):
        return None


def stamp(path: str) -> str:
    """Return what changes when a file is replaced or written. Raises OSError."""
    status = os.stat(path)
    return f"{status.st_dev} {status.st_ino} {status.st_mtime_ns} {status.st_size}"


def lasting_dir(state_dir: str) -> str | None:
    """Return where is kept what must outlive the machine; None where the state directory does.

    /run is memory. What the boot network's plugins keep on the disk, such as addresses that are
    taken, is still there after a reboot, and so must be what is needed to give it back.
    """
    for memory in VOLATILE:
        if state_dir.startswith(memory):
            return f"{_LASTING}/{state_dir[len(memory) :]}"
    return None


def lasting_path(state_dir: str, container_id: str, ifname: str) -> str | None:
    """Return where an attachment with a boot network of its own is kept on the disk."""
    folder = lasting_dir(state_dir)
    return None if folder is None else boot_path(folder, container_id, ifname)


def is_attached(config: Config, container_id: str, ifname: str) -> bool:
    """Tell whether an attachment is ours to check or to detach, without reading its record."""
    state_dir = config.state_dir
    return (
        os.path.lexists(record_path(state_dir, container_id, ifname))
        or os.path.lexists(boot_path(state_dir, container_id, ifname))
        or is_lasting(state_dir, container_id, ifname)
    )


def is_lasting(state_dir: str, container_id: str, ifname: str) -> bool:
    """Tell whether the disk remembers an attachment."""
    path = lasting_path(state_dir, container_id, ifname)
    return path is not None and os.path.lexists(path)


def is_left_alone(state_dir: str) -> bool:
    """Tell whether something may be left to do here and no child runs.

    So it is when all of its processes were killed, and after a boot. For every pod that is not
    ours this costs one stat, or a look at the lock where there is a child, which is not woken.
    """
    mark = f"{state_dir}/{AT_REST}"
    try:
        if state_dir.startswith(VOLATILE):
            os.stat(mark)
            return False
        if _content(mark) == _content(BOOT_ID):
            return False
    except OSError:
        pass
    try:
        lock = os.open(f"{state_dir}/{LOCK}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        os.lockf(lock, os.F_TEST, 0)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def mark_at_rest(state_dir: str) -> None:
    """Note that nothing is left to do until a pod is attached. Never raises."""
    try:
        write_private(f"{state_dir}/{AT_REST}", _content(BOOT_ID))
    except OSError:
        return


def _content(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 64)
    finally:
        os.close(fd)


def open_to_others(path: str, *, by_group: bool = True) -> str | None:
    """Return the part of a path that somebody other than root could replace; None without one.

    A directory may be written by its owner only, or be sticky as /tmp is, and each part belongs to
    root or to whom this process runs as. What is not there yet is made by us, but not in a sticky
    directory, where anybody may be faster. Symbolic links are followed as the kernel does.

    ``by_group``: whether a directory that a group can write is one that others can write.
    """
    owners = (0, os.geteuid())
    parts = path.split("/")
    done = ""
    links = 0
    while parts:
        part = parts.pop(0)
        if part == "..":
            done = os.path.dirname(done)
        if part in ("", ".", ".."):
            continue
        here = f"{done}/{part}"
        try:
            status = os.lstat(here)
            if status.st_uid not in owners:
                return here
            if status.st_mode & _TYPE == _LINK:
                links += 1
                target = os.readlink(here)
                if links > _MOST_LINKS:
                    return here
                parts = target.split("/") + parts
                done = "" if target.startswith("/") else done
                continue
        except FileNotFoundError:
            return here if _can_be_written(done or "/", by_group=by_group) else None
        except OSError:
            return None
        if _is_open(status, by_group=by_group) and not status.st_mode & _STICKY:
            return here
        done = here
    return None


def _can_be_written(folder: str, *, by_group: bool) -> bool:
    try:
        return _is_open(os.lstat(folder), by_group=by_group)
    except OSError:
        return True


def _is_open(status: os.stat_result, *, by_group: bool) -> bool:
    group = 0o020 if by_group and status.st_gid != 0 else 0
    return bool(status.st_mode & (0o002 | group))


def make_private(path: str) -> None:
    """Make a directory and what is missing above it, its owner's only.

    Raises OSError, also where somebody other than root could replace it. That is looked at once it
    is there: until then, whoever may write above it could have been faster.
    """
    if not os.path.isdir(path):
        _require_private(path)
        _make(path, 0o700)
    _require_private(path)


def make_readable(path: str) -> None:
    """Make a directory that all may read, with what is missing above it, for a log.

    Raises OSError as ``make_private`` does. A group may write above it: on Debian and Ubuntu
    /var/log is the group's of the system's own log.
    """
    if not os.path.isdir(path):
        _require_private(path, by_group=False)
        _make(path, 0o755)
    _require_private(path, by_group=False)


def _require_private(path: str, *, by_group: bool = True) -> None:
    part = open_to_others(path, by_group=by_group)
    if part is not None:
        raise PermissionError(
            _EPERM, f"somebody other than root can write to {part}, or replace it"
        )


def _make(path: str, mode: int) -> None:
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        _make(parent, mode)
    try:
        os.mkdir(path, mode)
    except FileExistsError:  # another parent was faster
        if not os.path.isdir(path):
            raise


def write_private(path: str, data: bytes) -> None:
    """Write a file, or replace it as a whole, readable by its owner only. Raises OSError.

    It is not synced to the disk: a power cut takes the pods with it, and /run is memory.
    """
    folder, name = os.path.split(path)
    make_private(folder)
    # The thread's ID, which is the process ID of a parent: none writes two files at a time.
    temporary = f"{folder}/.{name}.{_thread.get_native_id()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(temporary, flags, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError:
        remove(temporary)
        raise


def read_private(path: str) -> bytes:
    """Read a file that nobody but root, or whom this process runs as, can have written.

    Raises OSError, also for any other file.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags)
    try:
        status = os.fstat(fd)
        if status.st_uid not in (0, os.geteuid()) or _is_open(status, by_group=True):
            raise PermissionError(_EPERM, "somebody other than root could have written it")
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def remove(path: str) -> None:
    """Remove a file as far as that is possible. Never raises."""
    try:  # noqa: SIM105 - contextlib would cost a pod's ADD 2 ms
        os.unlink(path)
    except OSError:
        pass
