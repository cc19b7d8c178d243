"""A node's folders for the tests of the installer, and what is in them."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

from ratchetctl.install import installation
from ratchetctl.install.credentials import ServiceAccount
from ratchetctl.install.installation import Site
from tests.unit.ratchetctl.install.folders import (
    FOLDERS,
    Folder,
)

Tree = dict[str, tuple[int, int, bytes | str]]
SUFFIXES = (".conf", ".conflist", ".json")
FLANNEL = next(folder for folder in FOLDERS if folder.name == "flannel")


def tree(folder: Path) -> Tree:
    """Return all that is below a folder: modes, times of files, contents, targets of links."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        key = str(path.relative_to(folder))
        if stat.S_ISLNK(status.st_mode):
            found[key] = (status.st_mode, 0, os.readlink(path))
        elif path.is_dir():
            found[key] = (status.st_mode, 0, "")
        else:
            found[key] = (status.st_mode, status.st_mtime_ns, path.read_bytes())
    return found


class Node:
    """A node's two folders, and builds to install on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.conf_dir, self.bin_dir = root / "net.d", root / "bin"
        self.conf_dir.mkdir()
        self.bin_dir.mkdir()
        (self.bin_dir / "bridge").write_bytes(b"\x7fELF")
        self.site = Site(
            conf_dir=str(self.conf_dir), bin_dir=str(self.bin_dir), etcd=("10.96.7.7", 2379)
        )

    def write(self, folder: Folder) -> None:
        for name, data in folder.contents().items():
            (self.conf_dir / name).write_bytes(data)
        (self.conf_dir / "multus.d").mkdir(exist_ok=True)

    def build(self, number: int) -> str:
        """Return a folder with built programs, which differ from build to build."""
        built = self.root / f"build{number}"
        if not built.exists():
            (built / "lib").mkdir(parents=True)
            (built / "lib" / "code.pyc").write_text(str(number))
            (built / ".built").touch()
            for name in ("ratchet", "ratchet-child", "ratchet-parent", "ratchetctl"):
                (built / name).write_text(f"{name} {number}")
                (built / name).chmod(0o755)
        return str(built)

    def install(self, number: int = 1, site: Site | None = None) -> None:
        installation.install_programs(site or self.site, self.build(number))
        installation.configure(site or self.site)

    def uninstall(self) -> None:
        installation.uninstall(self.site)

    def first(self) -> tuple[str, dict[str, Any]]:
        """Return what a runtime takes: go-cni, which does not go on after a broken file."""
        name = min(name for name in os.listdir(self.conf_dir) if name.endswith(SUFFIXES))
        found = json.loads((self.conf_dir / name).read_text())
        assert ("plugins" in found) == name.endswith(".conflist")
        return name, found

    def ours(self) -> dict[str, Any]:
        """Return Ratchet's own object in what a runtime takes."""
        _, found = self.first()
        plugin = found["plugins"][-1] if "plugins" in found else found
        assert plugin["type"] == "ratchet"
        assert isinstance(plugin, dict)
        return plugin

    def both(self) -> tuple[Tree, Tree]:
        return tree(self.conf_dir), tree(self.bin_dir)


def with_all(node: Node) -> Site:
    """Return a site with all that can be written: credentials and certificates, too."""
    account, certificates = node.root / "account", node.root / "certificates"
    for folder, names in ((account, ("token", "ca.crt")), (certificates, ETCD_FILES)):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
    return replace(
        node.site,
        account=ServiceAccount(str(account), "https://10.96.0.1:443"),
        etcd_certificates=str(certificates),
    )


ETCD_FILES = ("ca.crt", "tls.crt", "tls.key")
