"""The files of a pod: put over the machine's, in the mount namespace of the calling thread.

A container's image has a place for every file; here the places are the machine's, and nothing of
the machine is changed. A file that is there is covered by the pod's own. Where none is, the nearest
folder is covered by an overlay that has it. What is written to such places stays the pod's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ratchetctl.sim import syscalls
from ratchetctl.sim.directory import PodState

# Seen from inside, where /run is the pod's folder.
OWN = "/run/.ratchet"
_UPPER, _WORK = f"{OWN}/upper", f"{OWN}/work"
_LOCALHOST = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
# What stands between options of a mount, and between an overlay's folders.
_SEPARATORS = frozenset(",:\\")


def own_files(pod: PodState) -> dict[str, str]:
    """Return what a runtime writes for every pod."""
    result = pod.result or {}
    addresses = [str(one.get("address", "")).partition("/")[0] for one in result.get("ips", ())]
    dns = result.get("dns") or {}
    resolver = [f"nameserver {one}" for one in dns.get("nameservers", ())]
    if search := dns.get("search"):
        resolver.append(f"search {' '.join(search)}")
    return {
        "/etc/hostname": f"{pod.name}\n",
        "/etc/hosts": _LOCALHOST
        + "".join(f"{one}\t{pod.name}\n" for one in addresses or ["127.0.1.1"]),
        "/etc/resolv.conf": "".join(f"{line}\n" for line in resolver),
    }


class Placing:
    """Files by their paths, and folders that hold nothing but them."""

    def __init__(self, files: Mapping[str, str], folders: Sequence[str]) -> None:
        self._files, self._folders = files, folders
        self._covered = ["/run"]
        self._refused: list[str] = []

    def carry_out(self) -> list[str]:
        """Put them there; a sentence for each file that has no place."""
        wanted = [*(f"{folder}/." for folder in self._folders), *self._files]
        refused = {path for path in wanted if not self._has_place(path)}
        for folder in self._folders:
            if f"{folder}/." not in refused:
                self._cover_folder(folder)
        for path, content in self._files.items():
            if path not in refused:
                try:
                    self._write(path, content)
                except OSError as error:
                    self._refuse(path, error.strerror or str(error))
        return self._refused

    def _has_place(self, path: str) -> bool:
        """Say whether a file can be put there, after covering the nearest folder if need be."""
        place = os.path.dirname(path) if path.endswith("/.") else path
        if os.path.exists(place) or self._is_covered(place):
            return True
        folder = os.path.dirname(place)
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        if folder == "/" or _SEPARATORS & set(folder):
            self._refuse(place, f"the machine has none, and in {folder} a pod can have none either")
            return False
        try:
            upper, work = _UPPER + folder, _WORK + folder
            os.makedirs(upper, exist_ok=True)
            os.makedirs(work, exist_ok=True)
            options = f"lowerdir={folder},upperdir={upper},workdir={work}"
            syscalls.mount("overlay", folder, "overlay", 0, options)
        except OSError as error:
            self._refuse(place, error.strerror or str(error))
            return False
        self._covered.append(folder)
        return True

    def _cover_folder(self, folder: str) -> None:
        own = OWN + folder
        os.makedirs(own, exist_ok=True)
        os.makedirs(folder, exist_ok=True)
        syscalls.mount(own, folder, None, syscalls.MS_BIND)
        self._covered.append(folder)

    def _write(self, path: str, content: str) -> None:
        # /etc/resolv.conf may be a link into /run, where the machine's own file is not seen.
        real = os.path.realpath(path)
        place = real if self._is_covered(real) else OWN + real
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w", encoding="utf-8") as file:
            file.write(content)
        if place != real:
            syscalls.mount(place, real, None, syscalls.MS_BIND)

    def _is_covered(self, path: str) -> bool:
        return any(path.startswith(f"{folder}/") for folder in self._covered)

    def _refuse(self, path: str, why: str) -> None:
        self._refused.append(f"{path}: {why}")
