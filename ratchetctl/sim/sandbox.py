"""A pod's own mount, PID and UTS namespaces, beside its network, for what runs in it.

They are made when the first program is started in the pod, so that a pod in which nothing runs
costs nothing. The namespaces live as long as their first process (`sleep`): when that is killed,
the kernel kills everything else in them, wherever it has hidden. The pod's network namespace is
older and stays: it is the runtime's, and the plugins know it by its path.

Inside,

- the host name is the pod's, /etc/hosts, /etc/hostname and /etc/resolv.conf are its own;
- /run is the pod's folder in the simulation's directory, so that programs keep their sockets and
  pid files where they always do, and control programs (vtysh, birdc) find those of this pod;
- /proc shows the pod's processes, /sys its interfaces;
- files can be put at any path but one in /, as volumes are in a container;
- everything else is the machine's.

A thread that has entered a mount namespace cannot work outside any more. So everything inside is
done by threads that do nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from ratchetctl.errors import SimError
from ratchetctl.sim import environment, netns, processes, syscalls
from ratchetctl.sim.directory import PodState, SimDirectory, held
from ratchetctl.sim.sandbox_files import OWN, Placing, own_files

NAMESPACES = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWPID
# The first process has children that are not its own, and would have to wait for each.
_INIT = (
    "mount -n -t proc proc /proc && echo ready &&"
    " exec env --ignore-signal=CHLD sleep 2147483647 >/dev/null 2>&1"
)
_READY = "ready\n"
HOST_NAME_CHARS = 63  # what the kernel and a kubelet take
_RUN = "/run"
# As a shell answers: execve(2) says that there is no such program, or that it cannot be run.
NOT_FOUND, NOT_EXECUTABLE = 127, 126
_NO_OUTPUT = "(it said nothing)"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The namespaces of a pod: its folder, and the pid of the first process."""

    pod: PodState
    folder: str
    init: int

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program inside; options are Popen's. Raises SimError where it cannot be run."""

        def inside() -> subprocess.Popen[Any]:
            self._enter()
            try:
                return subprocess.Popen(command, cwd="/", env=self.environ(), **options)
            except OSError as error:
                raise SimError(f"{command[0]}: {error.strerror}") from error

        return _in_a_thread(inside)

    def run(self, command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Run a program inside to its end, output and errors in one. Raises SimError."""
        process = self.start(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        with process:
            try:
                said, _ = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise SimError(f"{command[0]} did not end in {timeout_s:.0f} s") from error
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(command, process.returncode, said or "")

    def execute(self, command: Sequence[str], environ: Mapping[str, str]) -> int:
        """Run a person's command inside, with this process's streams; its wait status.

        What a terminal sends goes to the command as well, and only it decides what that means.
        """
        here = os.getcwd()
        with self.held() as descriptor:
            # Of this process's children only; itself it stays outside.
            syscalls.setns(descriptor, syscalls.CLONE_NEWPID, f"into {self.pod.full_name}")
            pid = os.fork()
            if pid == 0:
                self._become(descriptor, here, command, environ)
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: os.kill(pid, number))
        while True:
            _, status = os.waitpid(pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                return status
            # Ctrl-Z: stop with it, and go on with it.
            os.kill(os.getpid(), signal.SIGSTOP)
            os.kill(pid, signal.SIGCONT)

    def place(self, files: Mapping[str, str], folders: Sequence[str] = ()) -> list[str]:
        """Put files where programs look for them; the folders hold only those, and are the pod's.

        Returns a sentence for each file that has no place.
        """

        def inside() -> list[str]:
            self._enter()
            return Placing({**own_files(self.pod), **files}, folders).carry_out()

        return _in_a_thread(inside)

    def own(self, path: str) -> str:
        """Return where a path of the pod's own folders lies on the machine."""
        if path.startswith(f"{_RUN}/"):
            return self.folder + path.removeprefix(_RUN)
        return self.folder + OWN.removeprefix(_RUN) + path

    def environ(self) -> dict[str, str]:
        return {**environment.clean(), "HOSTNAME": self.pod.name}

    def _enter(self) -> None:
        """Put the calling thread inside. What it starts is born inside; itself it keeps its pid."""
        syscalls.unshare(syscalls.CLONE_FS)
        netns.enter(self.pod.netns)
        with self.held() as descriptor:
            syscalls.setns(descriptor, NAMESPACES, f"into {self.pod.full_name}")

    def _become(
        self, descriptor: int, here: str, command: Sequence[str], environ: Mapping[str, str]
    ) -> NoReturn:
        """Be a person's command, in a process that was forked for it, which never goes back."""
        try:
            netns.enter(self.pod.netns)
            syscalls.setns(descriptor, NAMESPACES, f"into {self.pod.full_name}")
            with contextlib.suppress(OSError):
                os.chdir(here)
            become(command, environ)
        except OSError as error:
            sys.stderr.write(f"ratchetctl: {error}\n")
            sys.stderr.flush()
        finally:
            os._exit(NOT_EXECUTABLE)

    @contextlib.contextmanager
    def held(self) -> Iterator[int]:
        """Give a pidfd of the first process, which its pid may no longer be. Raises SimError."""
        try:
            descriptor = os.pidfd_open(self.init)
        except ProcessLookupError as error:
            raise SimError(f"{self.pod.full_name} was ended meanwhile") from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def of(directory: SimDirectory, pod: PodState) -> Sandbox:
    """Return a pod's namespaces, made where there are none. Raises SimError.

    Two who want them at the same moment get the same.
    """
    folder = directory.run(pod)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o755)
    with held(folder):
        found = _first_process(folder, pod)
        if found is None:
            found = _make(directory, pod, folder)
        return Sandbox(pod, folder, found)


def find(directory: SimDirectory, pod: PodState) -> Sandbox | None:
    """Return a pod's namespaces if something runs in it."""
    folder = directory.run(pod)
    init = _first_process(folder, pod)
    return None if init is None else Sandbox(pod, folder, init)


def end(directory: SimDirectory, pod: PodState) -> None:
    """End what runs in a pod and empty its folder; its network stays. Safe to call twice."""
    found = find(directory, pod)
    if found is not None:
        processes.end_namespace(found.init)
    directory.forget_run(pod)


def kill(directory: SimDirectory, pod: PodState) -> None:
    """End what runs in a pod at once, whatever it is about. Safe to call twice."""
    found = find(directory, pod)
    if found is not None:
        with contextlib.suppress(SimError, ProcessLookupError), found.held() as descriptor:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)


def _make(directory: SimDirectory, pod: PodState, folder: str) -> int:
    os.makedirs(os.path.join(folder, "lock"), exist_ok=True)

    def inside() -> subprocess.Popen[str]:
        netns.enter(pod.netns)
        syscalls.unshare(NAMESPACES)
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        # The other pods' namespaces: a pod has no use for them, and would have them twice.
        syscalls.unmount(directory.netns(""))
        syscalls.mount(folder, _RUN, None, syscalls.MS_BIND)
        # A machine that forbids it shows a pod the machine's interfaces, which few programs read.
        with contextlib.suppress(OSError):
            syscalls.mount("sysfs", "/sys", "sysfs", 0)
        socket.sethostname(pod.name[:HOST_NAME_CHARS].rstrip("-."))
        Placing(own_files(pod), ()).carry_out()
        return subprocess.Popen(
            ("/bin/sh", "-c", _INIT),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env=environment.clean(),
            start_new_session=True,
        )

    try:
        process = _in_a_thread(inside)
    except OSError as error:
        raise SimError(f"{pod.full_name}: no namespaces for its processes: {error}") from error
    said = process.stdout.readline() if process.stdout else ""
    if said != _READY:
        process.kill()
        said += process.communicate()[0]
        raise SimError(
            f"{pod.full_name}: no namespaces for its processes: {said.strip() or _NO_OUTPUT}"
        )
    if process.stdout:
        process.stdout.close()
    with open(_pid_file(folder), "w", encoding="ascii") as file:
        file.write(str(process.pid))
    # It outlives us; Python would otherwise warn of a child that was not waited for.
    process.returncode = 0
    return process.pid


def _pid_file(folder: str) -> str:
    return os.path.join(folder, ".init")


def _first_process(folder: str, pod: PodState) -> int | None:
    """Return the pid that is noted, if it is still that of the first process of this pod."""
    try:
        with open(_pid_file(folder), encoding="ascii") as file:
            pid = int(file.read())
    except (OSError, ValueError):
        return None
    identity = netns.identity(pod.netns)
    is_ours = identity is not None and processes.namespace(str(pid)) == identity
    return pid if is_ours and processes.is_first(str(pid)) else None


def _in_a_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own, in which no signal is handled."""
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again where it belongs
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def become(command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Be a person's command from now on; end as a shell does where that cannot be."""
    try:
        os.execvpe(command[0], list(command), environ)  # noqa: S606 - what exec is for
    except OSError as error:
        sys.stderr.write(f"ratchetctl: {command[0]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)
