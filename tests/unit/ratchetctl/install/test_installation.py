"""Each folder that clusters have: installed, upgraded, changed underneath, taken away again."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from typing import Any

import pytest

from ratchet import __version__
from ratchet.cni.config import plugins_of
from ratchet.config import Config
from ratchetctl.errors import InstallError
from ratchetctl.install import installation, wrapping
from ratchetctl.install.installation import NoNetworkError
from tests.unit.ratchetctl.install.folders import (
    ANNOTATIONS,
    FLANNEL_LIST,
    FOLDERS,
    Folder,
    network,
)
from tests.unit.ratchetctl.install.nodes import FLANNEL, Node, tree, with_all


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


def test_installing_at_once_from_two_sides_is_in_turn(node: Node) -> None:
    node.write(FLANNEL)
    node.install(1)
    shutil.rmtree(node.bin_dir / "ratchet.node")
    node.install(1)  # half of it was taken away by hand
    assert (node.bin_dir / "ratchet").read_text() == "ratchet 1"
