"""The manifests in deploy/: valid for the Kubernetes that people run, and nothing too much."""

from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click import Command, Context, Group

from ratchet import __version__
from ratchet.config import Config
from ratchetctl.cli import cli
from ratchetctl.install import certificates, installation, wrapping
from tests.lab.deployment import FOLDERS, Object, kustomize, rendered

VERSIONS = ("1.26", "1.31", "1.37")
PARTS = ("initContainers", "containers")


def one(folder: str, kind: str, name: str = "ratchet") -> Object:
    (found,) = (
        each
        for each in rendered(folder)
        if (each["kind"], each["metadata"]["name"]) == (kind, name)
    )
    assert isinstance(found, dict)
    return found


def pod_of(obj: Object) -> Object:
    spec = template_of(obj)["spec"]
    assert isinstance(spec, dict)
    return spec


def template_of(obj: Object) -> Object:
    """Return what pods of an object are made of; empty where it makes none."""
    spec = obj.get("spec", {})
    found: Object = spec.get("jobTemplate", {}).get("spec", spec).get("template", {})
    return found


def container(pod: Object, name: str) -> Object:
    (found,) = (each for part in PARTS for each in pod.get(part, ()) if each["name"] == name)
    assert isinstance(found, dict)
    return found


def env(pod: Object, name: str) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container(pod, name)["env"]}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(version: str) -> None:
    different = {json.dumps(obj, sort_keys=True) for folder in FOLDERS for obj in rendered(folder)}
    for text in sorted(different):
        kubernetes_validate.validate(json.loads(text), version, strict=True)


def test_the_validation_finds_a_misspelt_field() -> None:
    daemonset = one(".", "DaemonSet")
    daemonset["spec"]["template"]["spec"]["hostNetwrk"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(daemonset, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_everything_is_in_one_namespace_which_goes_with_all(folder: str) -> None:
    for obj in rendered(folder):
        if obj["kind"] not in ("Namespace", "ClusterRole", "ClusterRoleBinding"):
            assert obj["metadata"]["namespace"] == "ratchet", obj["metadata"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_an_object_names_is_there(folder: str) -> None:
    objects = rendered(folder)
    names = {(obj["kind"], obj["metadata"]["name"]) for obj in objects}
    names |= {("Secret", name) for name, _ in certificates.SECRETS.values()}
    for obj in objects:
        if not template_of(obj):
            continue
        pod = pod_of(obj)
        assert ("ServiceAccount", pod["serviceAccountName"]) in names
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        claims = {each["metadata"]["name"] for each in obj["spec"].get("volumeClaimTemplates", ())}
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names
            if "secret" in volume:
                assert ("Secret", volume["secret"]["secretName"]) in names
        for part in PARTS:
            for each in pod.get(part, ()):
                for mount in each["volumeMounts"]:
                    assert mount["name"] in {*volumes, *claims}
        labels = template_of(obj)["metadata"]["labels"]
        for key, value in obj["spec"].get("selector", {}).get("matchLabels", {}).items():
            assert labels[key] == value


def test_the_nodes_may_do_what_the_agent_does_and_nothing_else() -> None:
    rules = one(".", "ClusterRole")["rules"]
    assert [(rule["apiGroups"], rule["resources"], rule["verbs"]) for rule in rules] == [
        ([""], ["pods"], ["get", "list", "watch"]),
        ([""], ["pods/status"], ["patch"]),
        (["events.k8s.io"], ["events"], ["create", "patch"]),
    ]
    for rule in one(".", "Role")["rules"]:
        assert rule["resourceNames"] == ["ratchet"]


def test_who_cleans_may_list_pods_and_is_nobody_on_its_node() -> None:
    (rule,) = one(".", "ClusterRole", "ratchet-clean")["rules"]
    assert (rule["resources"], rule["verbs"]) == (["pods"], ["list"])
    pod = pod_of(one(".", "CronJob", "ratchet-clean"))
    assert not {"hostNetwork", "hostPID"} & pod.keys()
    assert pod["securityContext"]["runAsNonRoot"]
    security = container(pod, "clean")["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert not security["allowPrivilegeEscalation"]


def test_operators_may_ask_the_agents_and_not_change_what_they_run() -> None:
    rules = one(".", "Role", "ratchet-operator")["rules"]
    assert [(rule["resources"], rule["verbs"]) for rule in rules] == [
        (["pods"], ["list"]),
        (["pods/status"], ["patch"]),
    ]


def test_the_job_may_change_its_own_secrets_only() -> None:
    for rule in one(".", "Role", "ratchet-certificates")["rules"]:
        if rule["verbs"] != ["create"]:
            names = {name for name, _ in certificates.SECRETS.values()}
            assert set(rule["resourceNames"]) == names


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_are_at_the_same_path_as_on_the_host(folder: str) -> None:
    """The configuration names them, and the plugin reads it outside of the container."""
    pod = pod_of(one(folder, "DaemonSet"))
    paths = {
        each["name"]: each["hostPath"]["path"] for each in pod["volumes"] if "hostPath" in each
    }
    for part in PARTS:
        for each in pod[part]:
            told = env(pod, each["name"])
            assert told["RATCHET_CONF_DIR"] == paths["net-d"]
            assert told.get("RATCHET_BIN_DIR", paths["bin"]) == paths["bin"]
            for mount in each["volumeMounts"]:
                if mount["name"] in ("net-d", "bin", "run-ratchet", "lib-ratchet"):
                    assert mount["mountPath"] == paths[mount["name"]]


def test_k3s_and_microk8s_have_folders_of_their_own() -> None:
    assert env(pod_of(one("overlays/k3s", "DaemonSet")), "install")["RATCHET_BIN_DIR"] == (
        "/var/lib/rancher/k3s/data/cni"
    )
    assert env(pod_of(one("overlays/microk8s", "DaemonSet")), "install")["RATCHET_CONF_DIR"] == (
        "/var/snap/microk8s/current/args/cni-network"
    )


@pytest.mark.parametrize("folder", FOLDERS)
def test_namespaces_that_the_host_mounts_later_reach_the_agent(folder: str) -> None:
    pod = pod_of(one(folder, "DaemonSet"))
    mounts = [m for m in container(pod, "agent")["volumeMounts"] if m["name"] == "netns"]
    assert [mount["mountPath"] for mount in mounts] == ["/run/netns", "/var/run/netns"]
    assert {mount["mountPropagation"] for mount in mounts} == {"HostToContainer"}
    assert (pod["hostNetwork"], pod["hostPID"]) == (True, True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_commands_are_those_of_the_programs(folder: str) -> None:
    for obj in rendered(folder):
        if not template_of(obj):
            continue
        pod = pod_of(obj)
        for each in (*pod.get("initContainers", ()), *pod["containers"]):
            program, *arguments = each["command"]
            if program == "/opt/ratchet/ratchetctl":
                command: Command | None = cli
                while isinstance(command, Group):
                    command = command.get_command(Context(command), arguments.pop(0))
                assert command is not None
                assert command.params
                options = {name for param in command.params for name in param.opts}
                assert {word for word in arguments if word.startswith("--")} <= options


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_settings_are_right_and_the_form_is_known(folder: str) -> None:
    settings = json.loads(one(folder, "ConfigMap")["data"]["settings.json"])
    wrapping.check_settings(settings)
    Config.parse({"name": "x", **settings})
    pod = pod_of(one(folder, "DaemonSet"))
    for name in ("install", "installer"):
        wanted = "agent" if folder.endswith("agent-only") else "delegate"
        assert env(pod, name)["RATCHET_FORM"] == wanted
        assert wanted in installation.FORMS
    has_service = any(obj["kind"] == "Service" for obj in rendered(folder))
    assert has_service != ("etcd_host" in settings)


@pytest.mark.parametrize("folder", FOLDERS)
def test_one_image_of_the_programs_has_the_version(folder: str) -> None:
    text = yaml.safe_dump_all(rendered(folder))
    images = {line.split()[-1] for line in text.splitlines() if "image: ghcr.io" in line}
    assert images == {f"ghcr.io/ratchet-cni/ratchet:{__version__}"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_etcd_runs_on_any_kind_of_node(folder: str) -> None:
    for obj in rendered(folder):
        if obj["kind"] == "StatefulSet":
            pod = pod_of(obj)
            assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
            assert "nodeAffinity" not in pod["affinity"]
            keys = {each["key"] for each in pod["tolerations"]}
            assert "node-role.kubernetes.io/control-plane" in keys


def test_three_members_have_volumes_and_one_has_none() -> None:
    three, single = (
        one(".", "StatefulSet", "ratchet-etcd"),
        one("overlays/kind", "StatefulSet", "ratchet-etcd"),
    )
    assert three["spec"]["replicas"] == 3
    assert len(three["spec"]["volumeClaimTemplates"]) == 1
    assert env(pod_of(three), "etcd")["MEMBERS"].count("=https://") == 3
    assert single["spec"]["replicas"] == 1
    assert "volumeClaimTemplates" not in single["spec"]
    assert env(pod_of(single), "etcd")["MEMBERS"].count("=https://") == 1


def test_the_renderer_refuses_what_it_does_not_know(tmp_path: Any) -> None:
    (tmp_path / "kustomization.yaml").write_text("namePrefix: a-\n")
    with pytest.raises(kustomize.UnknownError, match="namePrefix"):
        kustomize.render(str(tmp_path))


def test_a_patch_of_what_is_not_there_is_an_error(tmp_path: Any) -> None:
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [a.yaml]\n"
        "patches:\n- target: {kind: Service, name: a}\n"
        "  patch: '[{op: replace, path: /spec/type, value: x}]'\n"
    )
    (tmp_path / "a.yaml").write_text("kind: Service\nmetadata: {name: a}\nspec: {}\n")
    with pytest.raises(KeyError):
        kustomize.render(str(tmp_path))
