"""The image: nothing but the programs, the same each time, and enough to install a node with.

It is built from scratch with this machine's C library, so nothing is fetched, and into a storage of
the test's own. Its programs run with the image's files alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ratchet import __version__
from tests.e2e import test_build
from tests.e2e.images import NAME, Images
from tests.e2e.test_build import PROGRAMS

pytestmark = [pytest.mark.root, test_build.pytestmark]

MOST_BYTES = 60_000_000


@pytest.fixture
def root(images: Images, tmp_path: Path) -> Path:
    """Return a folder with the image's files."""
    mounted = images.podman("image", "mount", f"{NAME}:first")
    try:
        shutil.copytree(mounted, tmp_path / "root", symlinks=True)
    finally:
        images.podman("image", "unmount", f"{NAME}:first")
    return tmp_path / "root"


def run(root: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program that sees the image's files and, of this machine, /proc alone."""
    (root / "proc").mkdir(exist_ok=True)
    inside = 'mount --bind /proc "$0/proc" && exec /usr/sbin/chroot "$0" "$@"'
    return subprocess.run(
        ["/usr/bin/unshare", "--mount", "sh", "-c", inside, str(root), *command],
        env=environ,
        input='{"cniVersion": "1.0.0"}',
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.slow
def test_the_same_programs_make_the_same_image(images: Images) -> None:
    first = images.podman("image", "inspect", "--format", "{{.Id}}", f"{NAME}:first")
    assert images.make("second") == first


def test_it_holds_the_programs_and_the_c_library(root: Path, images: Images) -> None:
    paths = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    ours = {path for path in paths if path.parts[:2] == ("opt", "ratchet")}
    assert {str(path.relative_to("opt/ratchet")) for path in ours} == {
        str(path.relative_to(PROGRAMS))
        for path in Path(PROGRAMS).rglob("*")
        if path.is_file() and path.name != ".built"
    }
    others = {path.name.partition(".so")[0] for path in paths if path not in ours}
    assert "libc" in others
    assert {name for name in others if not name.startswith(("lib", "ld-"))} == set()
    size = images.podman("image", "inspect", "--format", "{{.Size}}", f"{NAME}:first")
    assert int(size) < MOST_BYTES


def test_it_says_what_it_is(images: Images) -> None:
    (found,) = json.loads(images.podman("image", "inspect", f"{NAME}:first"))
    assert found["Config"]["Labels"]["org.opencontainers.image.version"] == __version__
    assert found["Config"]["Entrypoint"] == ["/opt/ratchet/ratchetctl"]


def test_its_programs_install_a_node_and_leave_it(root: Path) -> None:
    net_d, bin_dir = root / "etc/cni/net.d", root / "opt/cni/bin"
    net_d.mkdir(parents=True)
    bin_dir.mkdir(parents=True)
    usual = {"name": "cbr0", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]}
    (net_d / "10-usual.conflist").write_text(json.dumps(usual))
    ratchetctl = "/opt/ratchet/ratchetctl"
    done = run(root, ratchetctl, "node", "install", RATCHET_ETCD_SERVICE_HOST="10.96.0.9")
    assert done.returncode == 0, done.stderr
    assert json.loads((net_d / "00-ratchet.json").read_text())["delegate"] == usual
    # What is on the node now runs there: the plugin, the child, the tool.
    done = run(root, "/opt/cni/bin/ratchet", CNI_COMMAND="VERSION")
    assert "1.0.0" in json.loads(done.stdout)["supportedVersions"], done.stderr
    assert run(root, "/opt/cni/bin/ratchet-child", "--help").returncode == 0
    assert __version__ in run(root, "/opt/cni/bin/ratchetctl", "version").stdout
    done = run(root, ratchetctl, "node", "uninstall")
    assert done.returncode == 0, done.stderr
    assert os.listdir(net_d) == ["10-usual.conflist"]
    assert os.listdir(bin_dir) == []
