"""Each folder that clusters have: installed, upgraded, changed underneath, taken away again."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ratchet import __version__
from ratchet.cni.config import plugins_of
from ratchet.config import Config
from ratchetctl.errors import InstallError
from ratchetctl.install import installation, wrapping
from ratchetctl.install.credentials import ServiceAccount
from ratchetctl.install.installation import NoNetworkError, Site
from tests.unit.ratchetctl.install.folders import (
    ANNOTATIONS,
    CALICO_LIST,
    FLANNEL_LIST,
    FOLDERS,
    Folder,
    network,
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


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def called(configuration: dict[str, Any]) -> list[dict[str, Any]]:
    """Return with what a runtime calls the plugins of a configuration (CNI spec 1.1.0 §4)."""
    common = {"name": configuration["name"], "cniVersion": configuration.get("cniVersion", "")}
    if "plugins" not in configuration:
        return [{**configuration, **common}]
    return [{**plugin, **common} for plugin in configuration["plugins"]]


def handed_on(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return with what the plugins of before are called now, whoever calls them."""
    if "plugins" in found:
        return called({**found, "plugins": found["plugins"][:-1]})
    assert found["delegate"]["name"] == found["name"]
    return [{"cniVersion": "", **plugin} for plugin in plugins_of(found["delegate"])]


def forms(folder: Folder) -> tuple[str, ...]:
    return wrapping.FORMS[:1] if folder.is_multus else wrapping.FORMS


CASES = [(folder, form) for folder in FOLDERS for form in forms(folder)]


@pytest.mark.parametrize(
    ("folder", "form"), CASES, ids=[f"{folder.name}-{form}" for folder, form in CASES]
)
class TestFolders:
    def test_is_installed_upgraded_changed_underneath_and_as_it_was(
        self, node: Node, folder: Folder, form: str
    ) -> None:
        node.write(folder)
        site = replace(node.site, form=form)
        before = node.both()
        node.install(1, site)
        name, found = node.first()
        assert found["name"] == folder.taken()["name"]
        assert found.get("cniVersion") == folder.taken().get("cniVersion")
        assert handed_on(found) == called(folder.taken())
        assert name not in before[0]
        installed = node.both()
        node.install(1, site)
        assert node.both() == installed

        node.install(2, site)
        assert node.first() == (name, found)
        assert (node.bin_dir / "ratchet").read_text() == "ratchet 2"

        later = _changed(folder.taken())
        path = node.conf_dir / folder.first
        path.write_text(json.dumps(later))
        before[0][folder.first] = tree(node.conf_dir)[folder.first]
        assert installation.configure(site).changed
        assert handed_on(node.first()[1]) == called(later)
        assert not installation.configure(site).changed

        node.uninstall()
        assert node.both() == before
        node.uninstall()
        assert node.both() == before

    def test_asks_the_runtime_for_what_the_plugins_asked_for(
        self, node: Node, folder: Folder, form: str
    ) -> None:
        node.write(folder)
        node.install(1, replace(node.site, form=form))
        _, found = node.first()
        asked = {
            key
            for plugin in found.get("plugins", [found])
            for key in plugin.get("capabilities", {})
        }
        assert asked == {*folder.capabilities, ANNOTATIONS}

    def test_checks_as_before(self, node: Node, folder: Folder, form: str) -> None:
        node.write(folder)
        node.install(1, replace(node.site, form=form))
        _, found = node.first()
        where = found if "plugins" in found else found["delegate"]
        assert where.get("disableCheck") == folder.taken().get("disableCheck")


def _changed(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration as a later version of its DaemonSet writes it."""
    later = json.loads(json.dumps(configuration))
    for plugin in later.get("plugins", [later])[:1]:
        plugin["mtu"] = 1380
    if "plugins" in later:
        later["plugins"].append({"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}})
    assert isinstance(later, dict)
    return later


def test_there_are_twenty_folders_and_more() -> None:
    assert len({folder.name for folder in FOLDERS}) == len(FOLDERS) > 20


# The name ----------------------------------------------------------------------------------------


def test_a_file_that_comes_first_later_does_not_stay_first(node: Node) -> None:
    node.write(FLANNEL)
    node.install()
    (node.conf_dir / "00-multus.conf").write_text(
        json.dumps({"name": "m", "type": "multus", "delegates": [FLANNEL_LIST]})
    )
    node.install()
    assert node.first()[1]["delegate"]["type"] == "multus"
    (node.conf_dir / "00--first.conf").write_text(
        json.dumps({"name": "first", "type": "bridge", "cniVersion": "1.0.0"})
    )
    node.install()
    assert node.first()[1]["delegate"]["name"] == "first"
    ours = [name for name in os.listdir(node.conf_dir) if "ratchet." in name and name[0] == "0"]
    assert len(ours) == 1


def test_a_name_that_nothing_can_come_before_is_named(node: Node) -> None:
    (node.conf_dir / "!first.conf").write_text(json.dumps({"name": "a", "type": "bridge"}))
    before = tree(node.conf_dir)
    with pytest.raises(InstallError, match=r"comes before !first.conf: rename that file"):
        installation.configure(node.site)
    node.uninstall()
    assert tree(node.conf_dir) == before


def test_multus_and_istio_do_not_see_the_file(node: Node) -> None:
    """They look for .conf and .conflist; Multus would make Ratchet its delegate, and so on."""
    node.write(next(folder for folder in FOLDERS if folder.name == "multus-thick"))
    node.install()
    seen = [name for name in os.listdir(node.conf_dir) if name.endswith((".conf", ".conflist"))]
    assert sorted(seen) == ["00-multus.conf", "10-calico.conflist"]


def test_multus_is_not_chained(node: Node) -> None:
    node.write(next(folder for folder in FOLDERS if folder.name == "multus-thin"))
    before = node.both()
    with pytest.raises(InstallError, match=r"00-multus.conf is Multus's.*use the delegate form"):
        installation.configure(replace(node.site, form="chained"))
    node.uninstall()
    assert node.both() == before


def test_the_form_can_be_changed(node: Node) -> None:
    node.write(FLANNEL)
    before = node.both()
    node.install()
    node.install(1, replace(node.site, form="chained"))
    name, found = node.first()
    assert name.endswith(".conflist")
    assert [plugin["type"] for plugin in found["plugins"]] == ["flannel", "portmap", "ratchet"]
    node.install(1, replace(node.site, form="agent"))
    assert node.first() == ("10-flannel.conflist", FLANNEL_LIST)
    node.install()
    assert node.first()[1]["delegate"] == FLANNEL_LIST
    node.uninstall()
    assert node.both() == before


# What is there already ---------------------------------------------------------------------------


def test_a_ratchet_of_somebody_else_stays_as_it_is(node: Node) -> None:
    by_hand = {
        "cniVersion": "1.0.0",
        "name": "ratchet",
        "type": "ratchet",
        "etcd_host": "10.0.0.9",
        "delegate": FLANNEL_LIST,
    }
    (node.conf_dir / "10-ratchet.conf").write_text(json.dumps(by_hand))
    (node.bin_dir / "ratchet.d" / "abc").mkdir(parents=True)
    (node.bin_dir / "ratchet.d" / "abc" / "ratchet").write_text("by make install")
    (node.bin_dir / "ratchet").symlink_to("ratchet.d/abc/ratchet")
    before = node.both()
    node.install()
    assert node.first() == ("10-ratchet.conf", by_hand)
    assert (node.bin_dir / "ratchet").read_text() == "ratchet 1"
    child = json.loads((node.conf_dir / "ratchet.node" / "ratchet.conf").read_text())
    assert Config.parse(child).etcd_host == "10.0.0.9:2379"
    node.uninstall()
    assert node.both() == before


def test_a_ratchet_below_multus_is_not_wrapped_again(node: Node) -> None:
    inner = {"name": "cbr0", "type": "ratchet", "etcd_host": "10.0.0.9", "delegate": FLANNEL_LIST}
    multus = {"name": "multus-cni-network", "type": "multus", "delegates": [inner]}
    (node.conf_dir / "00-multus.conf").write_text(json.dumps(multus))
    node.install()
    assert node.first() == ("00-multus.conf", multus)
    child = json.loads((node.conf_dir / "ratchet.node" / "ratchet.conf").read_text())
    assert child["name"] == "cbr0"


def test_the_first_ratchet_comes_back(node: Node) -> None:
    """Ratchet CNI v0.1.0 has plain programs of the same names."""
    node.write(FLANNEL)
    for name in ("ratchet", "ratchet-child"):
        (node.bin_dir / name).write_text("v0.1.0")
        (node.bin_dir / name).chmod(0o755)
    before = node.both()
    node.install(1)
    node.install(2)
    assert (node.bin_dir / "ratchet").read_text() == "ratchet 2"
    node.uninstall()
    assert node.both() == before


def test_what_somebody_installed_over_ours_comes_back(node: Node) -> None:
    node.write(FLANNEL)
    node.install(1)
    (node.bin_dir / "ratchet").unlink()
    (node.bin_dir / "ratchet").write_text("theirs")
    node.install(2)
    assert (node.bin_dir / "ratchet").read_text() == "ratchet 2"
    node.uninstall()
    assert (node.bin_dir / "ratchet").read_text() == "theirs"
    assert not (node.bin_dir / "ratchet-child").exists()


def test_what_somebody_installed_over_ours_is_not_taken_away(node: Node) -> None:
    node.write(FLANNEL)
    node.install(1)
    (node.bin_dir / "ratchet").unlink()
    (node.bin_dir / "ratchet").write_text("theirs")
    node.uninstall()
    assert (node.bin_dir / "ratchet").read_text() == "theirs"


def test_another_version_is_replaced_and_the_one_before_stays_for_who_runs_it(node: Node) -> None:
    node.write(FLANNEL)
    before = node.both()
    for number in (1, 2, 3):
        node.install(number)
        builds = {path.name for path in (node.bin_dir / "ratchet.node").iterdir()}
        assert len(builds) == min(number, 2)
    path = node.conf_dir / node.first()[0]
    path.write_text(path.read_text().replace(__version__, "9.9.9"))
    node.install(1)
    assert "9.9.9" not in path.read_text()
    node.uninstall()
    assert node.both() == before


def test_no_network_is_an_error_that_changes_nothing(node: Node) -> None:
    (node.conf_dir / "00-half.conflist").write_text('{"name": ')
    before = node.both()
    with pytest.raises(NoNetworkError, match=r"holds no network.*00-half.conflist is not JSON"):
        installation.configure(node.site)
    assert node.both() == before


def test_a_version_that_ratchet_does_not_know_is_named(node: Node) -> None:
    (node.conf_dir / "10-new.conflist").write_text(
        json.dumps(network("new", {"type": "bridge"}, version="2.0.0"))
    )
    site = with_all(node)
    before = node.both()
    with pytest.raises(InstallError, match=r"10-new.conflist: cniVersion 2.0.0 is not known"):
        installation.configure(site)
    assert node.both() == before


def test_folders_and_dangling_links_are_passed_over(node: Node) -> None:
    node.write(FLANNEL)
    (node.conf_dir / "00-folder.conf").mkdir()
    (node.conf_dir / "01-gone.conf").symlink_to("/nonexistent")
    before = node.both()
    node.install()
    assert node.first()[1]["delegate"] == FLANNEL_LIST
    node.uninstall()
    assert node.both() == before


def test_a_folder_that_cannot_be_written_to_is_named(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everywhere but on a read-only file system."""
    node.write(FLANNEL)
    before = node.both()

    def refuse(path: object, *args: object, **keys: object) -> int:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(os, "makedirs", refuse)
    with pytest.raises(InstallError, match=r"cannot install the programs: .*: Read-only"):
        node.install()
    with pytest.raises(InstallError, match=r"cannot write the network configuration: .*Read-only"):
        installation.configure(node.site)
    monkeypatch.undo()
    assert node.both() == before


def test_a_folder_that_is_not_there_is_named(node: Node) -> None:
    node.conf_dir.rmdir()
    with pytest.raises(InstallError, match=r"cannot open .*net.d: No such file"):
        node.install()


# Killed ------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is no more."""


STEPS = ("link", "mkdir", "replace", "rmdir", "symlink", "unlink")


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int, *, after: bool) -> None:
    """Have the process die at the n-th change of a name, before it or after it."""
    left = [number]

    def wrapped(step: str) -> Callable[..., object]:
        real = getattr(os, step)

        def do(*args: object, **keys: object) -> object:
            left[0] -= 1
            if left[0] < 0 or (left[0] == 0 and not after):
                raise Killed
            done = real(*args, **keys)
            if left[0] == 0:
                raise Killed
            return done

        return do

    for step in STEPS:
        monkeypatch.setattr(os, step, wrapped(step))


def run_killed(
    monkeypatch: pytest.MonkeyPatch, number: int, after: bool, work: Callable[[], None]
) -> bool:
    """Run until killed; whether it was."""
    with monkeypatch.context() as patch:
        kill_at(patch, number, after=after)
        try:
            work()
        except Killed:
            return True
    return False


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


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("what", ["install", "upgrade", "uninstall"])
def test_killed_at_any_point_pods_start_and_the_next_run_mends_it(
    node: Node, monkeypatch: pytest.MonkeyPatch, what: str, after: bool
) -> None:
    node.write(FLANNEL)
    (node.bin_dir / "ratchet").write_text("v0.1.0")
    site = with_all(node)
    before = node.both()
    number = 0
    killed = True
    while killed:
        number += 1
        if what != "install":
            node.install(1, site)

        def work() -> None:
            if what == "uninstall":
                installation.uninstall(site)
            else:
                node.install(2, site)

        killed = run_killed(monkeypatch, number, after, work)
        # A runtime can go on at once: what it takes is whole, and what that names is there.
        name, found = node.first()
        if name != "10-flannel.conflist":
            assert found["delegate"] == FLANNEL_LIST
            for path in named_files(found):
                assert os.path.getsize(path) > 0, path
            assert (node.bin_dir / "ratchet").read_text().startswith("ratchet ")
        if what == "uninstall":
            installation.uninstall(site)
        else:
            node.install(2, site)
            assert node.ours()["delegate"] == FLANNEL_LIST
            left = [str(path) for path in node.root.rglob("*.new")]
            assert left == []
            assert not (node.bin_dir / "ratchet.node" / "partial").exists()
            installation.uninstall(site)
        assert node.both() == before, number
    assert number > 10


def named_files(found: dict[str, Any]) -> list[str]:
    paths = [found[key] for key in ("kubeconfig", "etcd_ca_cert", "etcd_cert", "etcd_key")]
    return [*paths, found["child_path"]]


def test_installing_at_once_from_two_sides_is_in_turn(node: Node) -> None:
    node.write(FLANNEL)
    node.install(1)
    shutil.rmtree(node.bin_dir / "ratchet.node")
    node.install(1)  # half of it was taken away by hand
    assert (node.bin_dir / "ratchet").read_text() == "ratchet 1"


# What it says ------------------------------------------------------------------------------------


def test_the_node_tells_the_rest(node: Node) -> None:
    node.write(FLANNEL)
    node.install(1, replace(with_all(node), node_address="192.168.7.1"))
    ours = node.ours()
    folder = str(node.conf_dir / "ratchet.node")
    config = Config.parse(ours)
    assert config.etcd_host == "10.96.7.7:2379"
    assert config.parent_address == "192.168.7.1"
    assert config.child_path == str(node.bin_dir / "ratchet-child")
    assert config.state_dir == "/run/ratchet/cbr0"
    assert config.kubeconfig == f"{folder}/ratchet.kubeconfig"
    assert config.etcd_cert == f"{folder}/etcd/tls.crt"
    kubeconfig = json.loads(Path(config.kubeconfig).read_text())
    assert kubeconfig["clusters"][0]["cluster"]["server"] == "https://10.96.0.1:443"
    for path in Path(folder).rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert Path(folder).stat().st_mode & 0o077 == 0


def test_settings_win(node: Node) -> None:
    node.write(FLANNEL)
    settings = node.root / "settings.json"
    settings.write_text(
        json.dumps(
            {
                "etcd_host": "etcd.example",
                "etcd_ca_cert": "/etc/ssl/ca.pem",
                "parent_interface": "eth1",
                "kubeconfig": "/etc/kubernetes/kubelet.conf",
                "wait": "none",
                "boot_network": {"type": "loopback"},
            }
        )
    )
    site = replace(with_all(node), settings_file=str(settings), node_address="192.168.7.1")
    node.install(1, site)
    config = Config.parse(node.ours())
    assert config.etcd_host == "etcd.example:2379"
    assert (config.etcd_ca_cert, config.etcd_cert) == ("/etc/ssl/ca.pem", None)
    assert (config.parent_interface, config.parent_address) == ("eth1", None)
    assert (config.kubeconfig, config.wait) == ("/etc/kubernetes/kubelet.conf", "none")
    assert not (node.conf_dir / "ratchet.node" / "token").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{", "settings.json is not JSON"),
        ("[]", "settings.json is not a JSON object"),
        ('{"delegate": {"type": "bridge"}}', "delegate: the installer writes this key itself"),
        ('{"name": "x"}', "name: the installer writes this key itself"),
        ('{"etcd_hosts": "x"}', "etcd_host"),
        ('{"wait": "sometimes"}', "sometimes"),
    ],
)
def test_wrong_settings_are_named_and_nothing_is_written(
    node: Node, settings: str, message: str
) -> None:
    node.write(FLANNEL)
    (node.root / "settings.json").write_text(settings)
    before = node.both()
    with pytest.raises(InstallError, match=message):
        installation.configure(replace(node.site, settings_file=str(node.root / "settings.json")))
    assert node.both() == before


def test_without_an_etcd_it_says_what_to_set(node: Node) -> None:
    node.write(FLANNEL)
    before = node.both()
    with pytest.raises(InstallError, match="set etcd_host, or install the Service ratchet-etcd"):
        installation.configure(replace(with_all(node), etcd=None))
    assert node.both() == before


def test_records_stay_where_they_are_when_the_network_gets_another_name(node: Node) -> None:
    """A DEL of a pod that is attached looks for its record there."""
    node.write(FLANNEL)
    node.install()
    (node.conf_dir / "10-flannel.conflist").write_text(json.dumps(CALICO_LIST))
    node.install()
    assert node.first()[1]["name"] == "k8s-pod-network"
    assert Config.parse(node.ours()).state_dir == "/run/ratchet/cbr0"


def test_the_agent_alone_leaves_the_network_configurations_alone(node: Node) -> None:
    site = replace(node.site, form="agent")
    before = node.both()
    installation.configure(site)
    assert [path.name for path in node.conf_dir.iterdir()] == ["ratchet.node"]
    child = json.loads((node.conf_dir / "ratchet.node" / "ratchet.conf").read_text())
    assert Config.parse(child).state_dir == "/run/ratchet/ratchet"
    assert child["attach"] == "agent"
    node.uninstall()
    assert node.both() == before
