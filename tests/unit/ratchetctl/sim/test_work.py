"""What of a pod can run on a machine without images."""

from __future__ import annotations

import json
from pathlib import Path

from ratchetctl import manifest
from ratchetctl.sim.work import Work

YAML = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: m}
data: {frr.conf: "router bgp 1\\n", bird.conf: "", x: "1"}
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  initContainers:
    - {name: first, image: i, command: [ip], args: [link]}
    - {name: own, image: i}
  containers:
    - {name: shell, image: i, command: [sleep, "9"], volumeMounts: [%s]}
    - name: silent
      image: i
      lifecycle: {postStart: {exec: {command: [ip, route]}}}
    - {name: system, image: i, command: [/sbin/init]}
  volumes: [{name: v, configMap: {name: m}}]
"""


def work(path: Path, mount: str) -> Work:
    file = path / "p.yaml"
    file.write_text(YAML % mount)
    found = manifest.read([str(file)])
    return Work.of(found.pods[0], found.config_maps)


def test_commands_run_first_or_on_and_what_begins_a_system_does_not(tmp_path: Path) -> None:
    found = work(tmp_path, "{name: v, mountPath: /srv/x, subPath: x}")
    assert found.router is None
    assert found.first == (("first", ("ip", "link")),)
    assert found.commands == (("shell", ("sleep", "9")),)
    assert found.after == (("silent.postStart", ("ip", "route")),)
    assert found.silent == ("silent",)
    assert found.unable == (("system", "/sbin/init is for its image only"),)
    assert found.files == (("/srv/x", "1"),)


def test_a_container_with_a_routers_configuration_is_that_router(tmp_path: Path) -> None:
    found = work(tmp_path, "{name: v, mountPath: /etc/frr}")
    assert found.router == "frr"
    assert found.commands == ()
    assert ("/etc/frr/frr.conf", "router bgp 1\n") in found.files
    assert work(tmp_path, "{name: v, mountPath: /b/bird.conf, subPath: bird.conf}").router == "bird"


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    found = work(tmp_path, "{name: v, mountPath: /etc/frr}")
    assert Work.from_json(json.loads(json.dumps(found.to_json()))) == found
