"""Writes what a build of the programs consists of, as CycloneDX 1.5 in JSON.

    sbom.py OUTPUT PROGRAMS    of programs that were built in this interpreter's environment

Named are Ratchet, what it needs to run (its requirements and theirs, as they are installed), what
else of the environment has got into the folder, Python and OpenSSL. The same programs give the same
file.
"""

from __future__ import annotations

import json
import os
import platform
import re
import ssl
import sys
import uuid
from importlib import metadata
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = "ratchet-cni"
_CANONICAL = re.compile(r"[-_.]+")


def bom(programs: str) -> dict[str, Any]:
    """Return the bill of materials."""
    found: dict[str, metadata.Distribution] = {}
    needs: dict[str, list[str]] = {}
    waiting = [ROOT, *_within(programs)]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = metadata.distribution(name)
        needs[name] = sorted(set(_requirements(found[name])))
        waiting += needs[name]
    ours = _component(found.pop(ROOT), "application")
    components = [_component(found[name], "library") for name in sorted(found)]
    components += [
        _plain("python", platform.python_version(), "PSF-2.0", "pkg:generic/python"),
        _plain("openssl", ssl.OPENSSL_VERSION.split()[1], "Apache-2.0", "pkg:generic/openssl"),
    ]
    references = {component["name"]: component["bom-ref"] for component in (ours, *components)}
    dependencies = [
        {"ref": references[name], "dependsOn": [references[other] for other in others]}
        for name, others in sorted(needs.items())
    ]
    digest = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([ours, components], sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{digest}",
        "version": 1,
        "metadata": {"component": ours},
        "components": components,
        "dependencies": dependencies,
    }


def _within(programs: str) -> list[str]:
    """Return the names of the distributions of which something is in the folder."""
    owners = metadata.packages_distributions()
    tops = {name.partition(".")[0] for name in os.listdir(os.path.join(programs, "lib"))}
    return [_canonical(owner) for top in sorted(tops & owners.keys()) for owner in owners[top]]


def _requirements(distribution: metadata.Distribution) -> list[str]:
    """Return the names of what it needs here, without extras."""
    found = []
    for text in distribution.requires or ():
        requirement = Requirement(text)
        marker: Marker | None = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            found.append(_canonical(requirement.name))
    return found


def _canonical(name: str) -> str:
    return _CANONICAL.sub("-", name).lower()


def _component(distribution: metadata.Distribution, kind: str) -> dict[str, Any]:
    name, version = _canonical(distribution.metadata["Name"]), distribution.version
    purl = f"pkg:pypi/{name}@{version}"
    component = {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}
    license_name = _license(distribution)
    if license_name:
        component["licenses"] = [{"license": {"name": license_name}}]
    return component


def _license(distribution: metadata.Distribution) -> str | None:
    own = distribution.metadata
    said = own.get("License-Expression") or own.get("License")
    if said and "\n" not in said:
        return str(said)
    for classifier in own.get_all("Classifier") or ():
        if classifier.startswith("License :: "):
            return str(classifier.rpartition(" :: ")[2])
    return None


def _plain(name: str, version: str, license_name: str, purl: str) -> dict[str, Any]:
    full = f"{purl}@{version}"
    return {
        "type": "library",
        "bom-ref": full,
        "name": name,
        "version": version,
        "purl": full,
        "licenses": [{"license": {"name": license_name}}],
    }


if __name__ == "__main__":
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(bom(sys.argv[2]), file, indent=2)
        file.write("\n")
