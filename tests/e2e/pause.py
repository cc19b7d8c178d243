"""What runs in the tests' pods: a program that waits, made here, and an image that holds it.

No registry is asked, no compiler needed, and no program of the machine taken: a few instructions
behind an ELF header (elf(5)) wait for signals for ever, which is what a pause image's program does.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import struct
import tarfile
from typing import Any

IMAGE = "ratchet.test/pause:1"

# machine -> ELF's number, OCI's name, and: system call pause(2) or ppoll(2) with nothing, again.
_MACHINES = {
    "x86_64": (62, "amd64", bytes.fromhex("b8220000000f05ebf7")),
    "aarch64": (
        183,
        "arm64",
        struct.pack(
            "<7I",
            0xD2800000,  # mov x0, #0
            0xD2800001,  # mov x1, #0
            0xD2800002,  # mov x2, #0
            0xD2800003,  # mov x3, #0
            0xD2800928,  # mov x8, #73 (ppoll)
            0xD4000001,  # svc #0
            0x17FFFFFA,  # b to the start
        ),
    ),
}
_BASE = 0x400000
_HEADERS = 64 + 56


def program() -> bytes:
    """Return an executable for this machine."""
    machine, _, code = _MACHINES[platform.machine()]
    size = _HEADERS + len(code)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little endian
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH", 2, machine, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)  # PT_LOAD, r-x
    return header + segment + code


def write_root(directory: str) -> None:
    """Write a root file system: the program, and the folders on which a runtime mounts."""
    for name in ("dev", "etc", "proc", "run", "sys", "tmp"):
        os.makedirs(os.path.join(directory, name))
    path = os.path.join(directory, "pause")
    with open(path, "wb") as file:
        file.write(program())
    os.chmod(path, 0o755)


def write_image(path: str) -> None:
    """Write an image archive (OCI image layout 1.0)."""
    files: dict[str, bytes] = {}

    def blob(content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        files[f"blobs/sha256/{digest}"] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    layer = _tar({"pause": program()}, mode=0o755)
    layer_descriptor = blob(layer, "application/vnd.oci.image.layer.v1.tar")
    config = {
        "architecture": _MACHINES[platform.machine()][1],
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [layer_descriptor["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(_json(config), "application/vnd.oci.image.config.v1+json"),
        "layers": [layer_descriptor],
    }
    descriptor = blob(_json(manifest), "application/vnd.oci.image.manifest.v1+json")
    descriptor["annotations"] = {"io.containerd.image.name": IMAGE}
    files["index.json"] = _json({"schemaVersion": 2, "manifests": [descriptor]})
    files["oci-layout"] = _json({"imageLayoutVersion": "1.0.0"})
    with open(path, "wb") as file:
        file.write(_tar(files))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _tar(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = mode
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
