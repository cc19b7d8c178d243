"""The built programs as a node has them: installed, linked to, moved, run by a runtime."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from ratchetctl.topo.graph import library as javascript

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(os.environ.get("RATCHET_PLUGIN_DIR") or ROOT / "dist" / "ratchet.d")
TIMEOUT_S = 30
UNITS = "/usr/local/lib/systemd/system"
MUSL_BYTES = 200_000  # less than what a front with glibc has

pytestmark = pytest.mark.skipif(
    not (PROGRAMS / "lib").is_dir() and os.environ.get("RATCHET_REQUIRE_ROOT") != "1",
    reason=f"no built programs in {PROGRAMS}: make build",
)


def run(
    program: Path, *arguments: str, environ: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *arguments],
        env=dict(environ or {}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def assert_answers_version(program: Path, environ: Mapping[str, str] | None = None) -> None:
    ran = run(
        program,
        environ={"CNI_COMMAND": "VERSION", **(environ or {})},
        stdin='{"cniVersion": "1.0.0"}',
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    answer = json.loads(ran.stdout)
    assert answer["cniVersion"] == "1.0.0"
    assert {"0.1.0", "0.3.1", "1.0.0", "1.1.0"} <= set(answer["supportedVersions"])


def install(destination: Path, programs: Path = PROGRAMS, what: str = "install") -> Path:
    """Install below a folder, return the folder of the plugins."""
    arguments = [what, str(programs), str(destination), "/opt/cni/bin", "/usr/local/bin", UNITS]
    subprocess.run(
        [str(ROOT / "packaging" / "install.sh"), *arguments], check=True, timeout=TIMEOUT_S
    )
    return destination / "opt/cni/bin"


def test_the_parent_answers_in_an_empty_environment() -> None:
    assert_answers_version(PROGRAMS / "ratchet")


@pytest.mark.parametrize(
    "environ",
    [
        {"LD_LIBRARY_PATH": "/opt/containerd/lib"},
        {"LD_LIBRARY_PATH": ""},
        {"LC_ALL": "C"},
        {"LANG": "xx_YY.ISO-8859-1"},
        {"PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere", "PYTHONSTARTUP": "/nowhere"},
    ],
    ids=",".join,
)
def test_the_parent_answers_whatever_the_runtime_has_in_its_environment(
    environ: dict[str, str],
) -> None:
    assert_answers_version(PROGRAMS / "ratchet", environ)


def test_the_parent_answers_through_a_symbolic_link(tmp_path: Path) -> None:
    link = tmp_path / "ratchet"
    link.symlink_to(PROGRAMS / "ratchet")
    assert_answers_version(link)


def test_the_programs_work_after_they_were_moved(tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "with a blank"
    shutil.copytree(PROGRAMS, moved, symlinks=True)
    assert_answers_version(moved / "ratchet")
    assert run(moved / "ratchet-child", "--help").returncode == 0


def test_the_other_programs_say_what_they_are_for() -> None:
    child = run(PROGRAMS / "ratchet-child", "--help")
    assert (child.returncode, child.stderr) == (0, "")
    assert "--state-dir" in child.stdout
    tool = run(PROGRAMS / "ratchetctl", "--help")
    assert (tool.returncode, tool.stderr) == (0, "")
    assert "sim" in tool.stdout
    # Help is made of docstrings, which an optimised build would have lost.
    assert "on this machine" in run(PROGRAMS / "ratchetctl", "sim", "--help").stdout


def test_a_delegate_sees_nothing_of_the_loader(tmp_path: Path) -> None:
    plugin = tmp_path / "seeing"
    seen = tmp_path / "environ"
    plugin.write_text(f'#!/bin/sh\ncat /proc/self/environ >{seen}\necho "{{}}"\n')
    plugin.chmod(0o755)
    environ = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/var/run/netns/none",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(tmp_path),
        "LD_LIBRARY_PATH": "/opt/containerd/lib",
        "PATH": os.environ["PATH"],
    }
    config = {
        "cniVersion": "1.0.0",
        "name": "net",
        "type": "ratchet",
        "state_dir": str(tmp_path / "state"),
        "use_labels": False,
        "delegate": {"type": "seeing"},
    }
    ran = run(PROGRAMS / "ratchet", environ=environ, stdin=json.dumps(config))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "{}\n", "")
    entries = [entry for entry in seen.read_text().split("\0") if entry]
    found = dict(entry.split("=", 1) for entry in entries)
    found.pop("PWD", None)  # the shell's own
    assert found == environ


def test_an_error_is_an_answer_on_standard_output() -> None:
    ran = run(PROGRAMS / "ratchet", environ={"CNI_COMMAND": "ADD"}, stdin="{}")
    assert ran.returncode != 0
    assert json.loads(ran.stdout)["code"] > 0


def test_nothing_of_the_build_tool_s_start_up_is_in_the_programs() -> None:
    """PyInstaller's importer and its hooks are not in the programs, only modules as files."""
    names = {path.name for path in (PROGRAMS / "lib").iterdir()}
    assert "base_library.zip" not in names
    assert not [name for name in names if name.startswith(("pyi", "PyInstaller"))]


def test_install_puts_relative_links_where_the_runtime_looks(tmp_path: Path) -> None:
    plugins = install(tmp_path)
    for program in (plugins / "ratchet", plugins / "ratchet-child"):
        assert program.is_symlink()
        assert not os.readlink(program).startswith("/")
    tool = tmp_path / "usr/local/bin/ratchetctl"
    assert not os.readlink(tool).startswith("/")
    assert_answers_version(plugins / "ratchet")
    assert run(plugins / "ratchet-child", "--help").returncode == 0
    assert run(tool, "--version").returncode == 0
    # As in an image: what was installed below DESTDIR is moved to where it will be.
    moved = tmp_path / "moved"
    (tmp_path / "opt").rename(moved)
    assert_answers_version(moved / "cni/bin/ratchet")


def test_install_twice_is_install_once_and_uninstall_leaves_other_plugins(tmp_path: Path) -> None:
    plugins = install(tmp_path)
    first = os.readlink(plugins / "ratchet")
    (plugins / "loopback").write_text("")
    install(tmp_path)
    assert os.readlink(plugins / "ratchet") == first
    assert len(list((plugins / "ratchet.d").iterdir())) == 1
    install(tmp_path, what="uninstall")
    assert [path.name for path in plugins.iterdir()] == ["loopback"]
    assert list((tmp_path / "usr/local/bin").iterdir()) == []
    install(tmp_path, what="uninstall")


def test_the_systemd_unit_is_installed_in_an_image_and_is_right(tmp_path: Path) -> None:
    install(tmp_path)
    unit = tmp_path / UNITS.lstrip("/") / "ratchet-child@.service"
    assert "ExecStart=/opt/cni/bin/ratchet-child --config /etc/cni/net.d/%i --stay" in (
        unit.read_text().splitlines()
    )
    verify = shutil.which("systemd-analyze")
    if verify is not None:
        # Of the program's own file, which is not installed here, nothing can be said.
        checked = tmp_path / unit.name
        checked.write_text(unit.read_text().replace("/opt/cni/bin/ratchet-child", "/bin/true"))
        ran = run(Path(verify), "verify", "--man=no", str(checked), environ=os.environ)
        assert (ran.returncode, ran.stderr) == (0, "")
    install(tmp_path, what="uninstall")
    assert not unit.exists()


def test_a_node_at_work_never_sees_half_an_update(tmp_path: Path) -> None:
    """Two builds in turn replace each other while the plugin is executed all the time."""
    builds = []
    for number in range(2):
        build = tmp_path / f"build{number}"
        shutil.copytree(PROGRAMS, build, symlinks=True)
        (build / "lib" / "BUILD").write_text(str(number))
        builds.append(build)
    plugins = install(tmp_path / "node", builds[0])
    done = threading.Event()
    failures: list[Exception] = []
    calls = 0

    def execute() -> None:
        nonlocal calls
        while not done.is_set():
            try:
                assert_answers_version(plugins / "ratchet")
            except (AssertionError, OSError, ValueError, subprocess.SubprocessError) as problem:
                failures.append(problem)
                return
            calls += 1

    node = threading.Thread(target=execute)
    node.start()
    try:
        for number in range(6):
            install(tmp_path / "node", builds[(number + 1) % 2])
    finally:
        done.set()
        node.join(TIMEOUT_S)
    assert not failures, failures[0]
    assert calls > 0
    # The build that was replaced stays for what still runs from it.
    assert len(list((plugins / "ratchet.d").iterdir())) == 2


def test_the_programs_need_no_library_of_the_build_machine() -> None:
    """Every shared library that Python needs besides the C library lies in the folder."""
    environ = {"LD_LIBRARY_PATH": str(PROGRAMS / "lib"), "PATH": os.environ["PATH"]}
    for library in [*PROGRAMS.glob("lib/*.so*"), *PROGRAMS.glob("lib/python3*/lib-dynload/*.so")]:
        needed = subprocess.run(
            ["ldd", str(library)],
            env=environ,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        ).stdout
        assert "not found" not in needed, f"{library}: {needed}"
        outside = [
            name
            for name in (line.split()[0] for line in needed.splitlines() if " => /" in line)
            if not (PROGRAMS / "lib" / name).exists()
        ]
        system = ("libc.", "libm.", "libdl.", "libpthread.", "librt.", "libutil.", "libresolv.")
        assert all(name.startswith((*system, "libgcc_s.", "ld-linux")) for name in outside), outside


def test_front_needs_no_linker_to_start_and_lies_anywhere_in_memory() -> None:
    argv = ("readelf", "--wide", "--file-header", "--program-headers", str(PROGRAMS / "ratchet"))
    said = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert "INTERP" not in said.stdout
    assert re.search(r"^ +Type: +DYN", said.stdout, re.MULTILINE)
    assert "GNU_RELRO" in said.stdout
    (stack,) = re.findall(r"GNU_STACK .*", said.stdout)
    assert " RWE " not in stack


# What is in it


def sbom() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PROGRAMS / "sbom.cdx.json").read_text())
    return found


def named(kind: str) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in sbom()["components"] if one["type"] == kind}


def test_every_python_package_in_the_folder_is_listed_and_lies_beside_its_modules() -> None:
    listed = named("library")
    own = {"ratchet", "ratchet_child", "ratchetctl"}
    standard = sys.stdlib_module_names | {"lib-dynload", "base_library"}
    packages = {
        entry.name.partition(".")[0]
        for entry in (PROGRAMS / "lib").iterdir()
        if (entry.is_dir() or entry.suffix == ".pyc") and not entry.name.endswith(".dist-info")
    }
    homes = metadata.packages_distributions()
    for package in packages - own - set(standard):
        if package.startswith(("_sysconfigdata", "python3")):
            continue
        assert set(homes.get(package, ())) & set(listed), f"{package} is of no listed package"
    for name, component in listed.items():
        if not component["purl"].startswith("pkg:pypi/") or name == "pyinstaller":
            continue
        text = name.replace("-", "_")
        folder = PROGRAMS / "lib" / f"{text}-{component['version']}.dist-info"
        fields = (folder / "METADATA").read_text().splitlines()
        assert f"Name: {name}" in fields
        assert f"Version: {component['version']}" in fields
    assert {"requests", "urllib3", "python-etcd", "certifi", "PyYAML", "ratchet-cni"} <= set(listed)


def test_every_shared_library_in_the_folder_is_listed_with_its_package() -> None:
    listed = {
        file["value"]: one
        for one in sbom()["components"]
        for file in one.get("properties", ())
        if file["name"] == "ratchet:file"
    }
    libraries = {f"lib/{path.name}": path for path in (PROGRAMS / "lib").glob("*.so*")}
    assert set(listed) == set(libraries)
    assert any(name.startswith("lib/libssl") for name in listed)
    for name, component in listed.items():
        (digest,) = component["hashes"]
        assert digest["content"] == hashlib.sha256(libraries[name].read_bytes()).hexdigest()
        if shutil.which("dpkg-query"):
            assert component["purl"].startswith("pkg:deb/"), name
            assert component["version"] != "unknown", name


def test_c_library_of_the_front_is_listed() -> None:
    is_small = (PROGRAMS / "ratchet").stat().st_size < MUSL_BYTES
    linked = "musl-dev" if is_small else "libc6-dev"
    assert set(named("library")) & {"musl-dev", "libc6-dev"} == {linked}


def test_javascript_of_the_topologies_page_is_built_in_and_listed() -> None:
    listed = named("library")[javascript.NAME]
    assert listed["purl"] == f"pkg:npm/{javascript.NAME}@{javascript.VERSION}"
    assert listed["hashes"] == [{"alg": "SHA-256", "content": javascript.SHA256}]
    assets = PROGRAMS / "lib" / "ratchetctl" / "topo" / "graph" / "assets"
    digest = hashlib.sha256((assets / javascript.FILE).read_bytes()).hexdigest()
    assert digest == javascript.SHA256
    assert (assets / javascript.LICENCE_FILE).exists()


def test_nothing_is_built_in_that_only_tests_or_nobody_use() -> None:
    assert not (PROGRAMS / "lib" / "dns").exists()
    assert "dnspython" not in named("library")
    for path in PROGRAMS.rglob("*"):
        if path.is_file() and path.suffix in (".pyc", ""):
            assert b"RATCHET_KILL_AT_STEP" not in path.read_bytes(), path


def test_the_list_names_no_path_of_the_machine_that_built_it() -> None:
    text = (PROGRAMS / "sbom.cdx.json").read_text()
    assert str(ROOT) not in text
    assert "/usr/" not in text
    assert not list((PROGRAMS / "lib").glob("*.dist-info/direct_url.json"))
    assert not list((PROGRAMS / "lib").glob("*.dist-info/RECORD"))
