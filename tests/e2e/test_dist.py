"""`make dist`: what a release consists of is whole, and the same each time."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from ratchet import __version__
from tests.e2e import test_build
from tests.e2e.test_build import PROGRAMS
from tests.lab.deployment import FOLDERS, rendered

pytestmark = test_build.pytestmark

ROOT = Path(__file__).resolve().parents[2]
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
NAME = f"ratchet-{__version__}-linux-{ARCH}"


def make(folder: Path) -> None:
    script = str(ROOT / "packaging" / "dist.sh")
    done = subprocess.run(
        [script, str(PROGRAMS), str(folder), str(Path(sys.executable).parents[1])],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist") / "release"
    make(folder)
    return folder


def test_the_checksums_are_those_of_all_files(release: Path) -> None:
    lines = [line.split() for line in (release / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in lines} == {*os.listdir(release)} - {"SHA256SUMS"}
    for digest, name in lines:
        assert hashlib.sha256((release / name).read_bytes()).hexdigest() == digest


@pytest.mark.slow
def test_a_release_is_the_same_each_time(release: Path, tmp_path: Path) -> None:
    (tmp_path / "ratchet-0.0.1.yaml").write_text("of another version")
    (tmp_path / f"ratchet-{__version__}-linux-s390x.tar.gz").write_text("of another machine")
    make(tmp_path)
    others = {f"ratchet-{__version__}-linux-s390x.tar.gz"}
    assert set(os.listdir(tmp_path)) == {*os.listdir(release), *others}
    for path in release.iterdir():
        if path.name != "SHA256SUMS":
            assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_archive_of_the_programs_installs_itself(release: Path, tmp_path: Path) -> None:
    with tarfile.open(release / f"{NAME}.tar.gz") as archive:
        assert {member.uid for member in archive} == {0}
    subprocess.run(["tar", "-C", tmp_path, "-xzf", release / f"{NAME}.tar.gz"], check=True)
    folder = tmp_path / NAME
    command = [str(folder / "install.sh"), "install", "ratchet.d", str(tmp_path / "node")]
    subprocess.run([*command, "/opt/cni/bin", "/usr/local/bin"], cwd=folder, check=True)
    test_build.assert_answers_version(tmp_path / "node/opt/cni/bin/ratchet")


def test_the_python_packages_hold_what_they_should(release: Path) -> None:
    wheel = zipfile.ZipFile(release / f"ratchet_cni-{__version__}-py3-none-any.whl")
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {
        *("ratchet", "ratchet_child", "ratchetctl"),
        f"ratchet_cni-{__version__}.dist-info",
    }
    with tarfile.open(release / f"ratchet_cni-{__version__}.tar.gz") as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    for needed in ("front/front.c", "packaging/build.sh", "requirements/develop.txt", "setup.cfg"):
        assert needed in names
    assert "deploy/overlays/k3s/kustomization.yaml" in names


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_manifests_are_the_rendered_ones(release: Path, folder: str) -> None:
    suffix = "" if folder == "." else f"-{os.path.basename(folder)}"
    text = (release / f"ratchet-{__version__}{suffix}.yaml").read_text()
    assert list(yaml.safe_load_all(text)) == rendered(folder)


def test_every_package_in_the_programs_is_named(release: Path) -> None:
    bom = json.loads((release / f"{NAME}.cdx.json").read_text())
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.5")
    named = {_canonical(component["name"]) for component in bom["components"]}
    tops = {path.name.partition(".")[0] for path in (PROGRAMS / "lib").iterdir()}
    owners = importlib.metadata.packages_distributions()
    ours = {"ratchet-cni"}
    used = {_canonical(owner) for top in tops & owners.keys() for owner in owners[top]} - ours
    assert "python-etcd" in used
    assert used <= named, used - named


def _canonical(name: str) -> str:
    """Return a package's name as PyPI compares it (PEP 503)."""
    return name.replace("_", "-").replace(".", "-").lower()
