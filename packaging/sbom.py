"""What is in a built folder, written into it: a list that scanners read, and each package's own.

    python packaging/sbom.py FOLDER SOURCES [LIBC]    with the Python that the folder is of

`sbom.cdx.json` (CycloneDX 1.5) names the Python packages whose modules are in the folder, Python
itself, the JavaScript library of the tool's page, and the package of the distribution from which
each shared library was copied. The packages' .dist-info directories lie beside their modules, as
where pip installs them, because most scanners look for those. SOURCES is what ratchet.spec has
written: where each library came from. LIBC is the distribution's package that the front is linked
with.

Nothing in it differs between two builds of the same things: packaging/install.sh tells builds by
their content. Nothing names a path of the machine that built it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ratchetctl.topo.graph import library as javascript

OWN = "ratchet-cni"
SBOM = "sbom.cdx.json"
FILE = "ratchet:file"  # the property of a shared library that says which file it is
# RECORD lists files that are not there, and direct_url.json a path of this machine.
KEPT = ("METADATA", "WHEEL", "top_level.txt", "licenses", "LICENSE", "LICENCE", "NOTICE", "COPYING")
# Packages that leave no module of theirs behind, but are in every program.
BOOTLOADER = "pyinstaller"
ASSETS = "ratchetctl/topo/graph/assets"

Component = dict[str, Any]


def main(folder: Path, sources: Path, libc: str | None = None) -> None:
    """Write the list, and copy the packages' own."""
    library = folder / "lib"
    modules = set(_modules(library))
    components = []
    for found in metadata.distributions():
        name = found.metadata["Name"]
        is_there = name in (OWN, BOOTLOADER) or any(
            _module(str(file)) in modules for file in found.files or ()
        )
        if is_there:
            if name != BOOTLOADER:
                _copy(found, library)
            components.append(_package(found))
    binaries: dict[str, str] = json.loads(sources.read_text())
    components += _libraries(folder, binaries)
    components.append(_javascript(library))
    components.append({"type": "platform", "name": "cpython", "version": platform.python_version()})
    system, release = _distribution()
    components.append({"type": "operating-system", "name": system, "version": release})
    if libc is not None and _version(libc) is not None:
        components.append(_of_distribution(libc))
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": OWN, "version": _own_version()}},
        "components": sorted(components, key=json.dumps),
    }
    (folder / SBOM).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


def _own_version() -> str:
    return metadata.version(OWN)


# Python packages ---------------------------------------------------------------------------------


def _modules(library: Path) -> Iterator[str]:
    """Give the files of modules below a folder, without what tells source and compiled apart."""
    for path in library.rglob("*"):
        if path.suffix in (".pyc", ".so", ".py"):
            yield _module(str(path.relative_to(library)))


def _module(path: str) -> str:
    return path.removesuffix(".pyc").removesuffix(".py")


def _package(found: metadata.Distribution) -> Component:
    name, version = found.metadata["Name"], found.version
    canonical = name.lower().replace("_", "-").replace(".", "-")
    return {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{canonical}@{quote(version)}",
    }


def _copy(found: metadata.Distribution, library: Path) -> None:
    """Copy what says which package it is, and its licences."""
    name = found.metadata["Name"].replace("-", "_")
    target = library / f"{name}-{found.version}.dist-info"
    for own in library.glob(f"{name}-*.dist-info"):
        shutil.rmtree(own)
    target.mkdir()
    # An editable installation may be described by an .egg-info, with the same content.
    described = found.read_text("METADATA") or found.read_text("PKG-INFO")
    (target / "METADATA").write_text(str(described), encoding="utf-8")
    for file in found.files or ():
        parts = file.parts
        if len(parts) > 1 and parts[0].endswith(".dist-info") and parts[1].startswith(KEPT):
            copy = target.joinpath(*parts[1:])
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), copy)


# The library of the tool's page -----------------------------------------------------------------


def _javascript(folder: Path) -> Component:
    digest = hashlib.sha256((folder / ASSETS / javascript.FILE).read_bytes()).hexdigest()
    return {
        "type": "library",
        "name": javascript.NAME,
        "version": javascript.VERSION,
        "purl": f"pkg:npm/{javascript.NAME}@{javascript.VERSION}",
        "licenses": [{"license": {"id": javascript.LICENCE}}],
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }


# Shared libraries --------------------------------------------------------------------------------


def _libraries(folder: Path, binaries: dict[str, str]) -> Iterator[Component]:
    """Give the shared libraries, with the package of the distribution that each is of."""
    for path in sorted((folder / "lib").glob("*.so*")):
        name = path.name
        source = binaries.get(name)
        package = None if source is None else _package_of(source)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        component = {"type": "file", "name": name} if package is None else _of_distribution(package)
        component["hashes"] = [{"alg": "SHA-256", "content": digest}]
        component["properties"] = [{"name": FILE, "value": f"lib/{name}"}]
        yield component


def _package_of(path: str) -> str | None:
    """Return the distribution's package that a file is of; None where that is not known."""
    real = os.path.realpath(path)
    # Debian has merged /usr, and its database names some files without it.
    for one in (real, real.removeprefix("/usr")):
        said = _output("dpkg-query", "--search", one)
        if said:
            return said.partition(": ")[0].partition(",")[0].partition(":")[0]
    return None


def _of_distribution(package: str) -> Component:
    version = _version(package) or "unknown"
    name, release = _distribution()
    return {
        "type": "library",
        "name": package,
        "version": version,
        "purl": f"pkg:deb/{name}/{package}@{quote(version)}?distro={name}-{release}",
    }


def _distribution() -> tuple[str, str]:
    try:
        found = platform.freedesktop_os_release()
    except OSError:
        found = {}
    return found.get("ID", "linux"), found.get("VERSION_ID", "unknown")


def _version(package: str) -> str | None:
    return _output("dpkg-query", "--show", "--showformat=${Version}", package) or None


def _output(*argv: str) -> str:
    try:
        ran = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=30)
        return ran.stdout.strip()
    except OSError:  # another kind of distribution
        return ""


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
