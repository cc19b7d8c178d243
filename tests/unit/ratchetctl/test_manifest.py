"""Kubernetes YAML: what is read, what is skipped with a note, what is refused and how."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from ratchetctl.errors import ManifestError, OperatorError
from ratchetctl.manifest import Manifest, Mount, read

POD = """
apiVersion: v1
kind: Pod
metadata: {name: a}
spec: {containers: [{name: c, image: i}]}
"""


def read_text(tmp_path: Path, text: str) -> Manifest:
    path = tmp_path / "pods.yaml"
    path.write_text(textwrap.dedent(text))
    return read([str(path)])


def test_reads_several_documents_and_lists(tmp_path: Path) -> None:
    found = read_text(
        tmp_path,
        POD
        + """
---
# only a comment
---
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Pod
    metadata: {name: b, namespace: other, labels: {ratchet: "true"}, annotations: {x: "1/2:3"}}
    spec:
      nodeName: node2
      nodeSelector: {side: left}
      containers: [{name: c, image: i, command: [sleep], args: ["1"]}]
  - apiVersion: v1
    kind: PodList
    items:
      - metadata: {name: c}
        spec: {containers: [{name: c, image: i}]}
""",
    )
    assert [(pod.namespace, pod.name) for pod in found.pods] == [
        ("default", "a"),
        ("other", "b"),
        ("default", "c"),
    ]
    b = found.pods[1]
    assert b.full_name == "other/b"
    assert b.labels == {"ratchet": "true"}
    assert b.annotations == {"x": "1/2:3"}
    assert (b.node_name, b.node_selector) == ("node2", {"side": "left"})
    assert b.containers[0].command == ("sleep", "1")
    assert found.notes == []


def test_notes_what_it_skips(tmp_path: Path) -> None:
    found = read_text(
        tmp_path,
        """
        {apiVersion: v1, kind: Service, metadata: {name: s}}
        ---
        {apiVersion: v1, kind: Service, metadata: {name: t}}
        ---
        {apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}
        ---
        {apiVersion: v1, kind: ConfigMap, metadata: {name: read-by-run}}
        """,
    )
    assert found.pods == []
    deployment, services = found.notes
    assert "document 3: Deployment d ignored" in deployment
    assert services.startswith("2 Service ignored")


def test_reads_folders_and_json(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(POD)
    (tmp_path / "a.json").write_text(
        '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "j"},'
        ' "spec": {"containers": [{"name": "c", "image": "i"}]}}'
    )
    (tmp_path / "README.md").write_text("not ours: [")
    assert [pod.name for pod in read([str(tmp_path)]).pods] == ["j", "a"]


def test_finds_the_config_maps_that_a_container_mounts(tmp_path: Path) -> None:
    found = read_text(
        tmp_path,
        """
        {apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {frr.conf: x}}
        ---
        apiVersion: v1
        kind: Pod
        metadata: {name: r}
        spec:
          volumes: [{name: v, configMap: {name: m}}, {name: w, emptyDir: {}}]
          containers:
            - name: c
              image: i
              volumeMounts:
                - {name: v, mountPath: /etc/frr/}
                - {name: v, mountPath: /x.conf, subPath: frr.conf}
                - {name: w, mountPath: /w}
        """,
    )
    assert found.pods[0].containers[0].mounts == (
        Mount("m", "/etc/frr"),
        Mount("m", "/x.conf", "frr.conf"),
    )
    assert found.config_maps["default", "m"] == {"frr.conf": "x"}


@pytest.mark.parametrize(
    ("change", "field", "shown"),
    [
        ("metadata: {name: A}", "metadata.name", "'A'"),
        ("metadata: {}", "metadata.name", "missing"),
        ("metadata: {generateName: a-}", "metadata.name", "generateName is not supported"),
        ("metadata: {name: 7}", "metadata.name", '"7" with the quotes'),
        ("metadata: {name: ../a}", "metadata.name", "'../a'"),
        ("metadata: {name: a, namespace: x_y}", "metadata.namespace", "'x_y'"),
        ("metadata: {name: a, labels: {r: true}}", "metadata.labels.r", '"true" with the quotes'),
        ("metadata: {name: a, labels: {r: 1.5}}", "metadata.labels.r", '"1.5" with the quotes'),
        ("metadata: {name: a, labels: {r: null}}", "metadata.labels.r", "must be a string"),
        ("metadata: {name: a, labels: {r: 10.0.0.1/24}}", "metadata.labels.r", "annotation"),
        ("metadata: {name: a, labels: {-r: x}}", "metadata.labels", "'-r'"),
        ("metadata: {name: a, labels: [x]}", "metadata.labels", "must be a mapping"),
        ("metadata: {name: a, annotations: {r: 1}}", "metadata.annotations.r", '"1"'),
        ("metadata: x", "metadata", "must be a mapping"),
        ("spec: {}", "spec.containers", "at least one container"),
        ("spec: {containers: {}}", "spec.containers", "at least one container"),
        ("spec: {containers: [x]}", "spec.containers[0]", "must be a mapping"),
        ("spec: {containers: [{name: c}]}", "spec.containers[0].image", "needs an image"),
        ("spec: {containers: [{image: i}]}", "spec.containers[0].name", "needs a name"),
        (
            "spec: {containers: [{name: c, image: i, command: [1]}]}",
            "spec.containers[0].command[0]",
            "1",
        ),
        ("spec: {nodeName: 3, containers: [{name: c, image: i}]}", "spec.nodeName", "3"),
        ("spec: {hostNetwork: 1, containers: [{name: c, image: i}]}", "spec.hostNetwork", "1"),
        ("apiVersion: v2", "apiVersion", "'v2'"),
        ("apiVersion: 1", "apiVersion", "must be a string"),
        ("kind: []", "kind", "must name a kind"),
    ],
)
def test_refuses_and_names_file_document_field_and_value(
    tmp_path: Path, change: str, field: str, shown: str
) -> None:
    parts = {
        "apiVersion": "apiVersion: v1",
        "kind": "kind: Pod",
        "metadata": "metadata: {name: a}",
        "spec": "spec: {containers: [{name: c, image: i}]}",
    }
    parts[change.partition(":")[0]] = change
    with pytest.raises(ManifestError) as caught:
        read_text(
            tmp_path, POD.replace("name: a", "name: first") + "---\n" + "\n".join(parts.values())
        )
    message = str(caught.value)
    assert "pods.yaml: document 2" in message
    assert f" {field}: " in message
    assert shown in message


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "just text",
        "- list",
        "a: b: c",
        "\tx: 1",
        "kind: Pod\nkind: Pod",
        "? [a]\n: b",
        "x: !!python/object/apply:os.system [true]",
        "[" * 2000,
    ],
)
def test_refuses_what_is_not_a_kubernetes_document(tmp_path: Path, text: str) -> None:
    with pytest.raises(ManifestError, match=r"pods\.yaml"):
        read_text(tmp_path, text)


def test_refuses_the_same_pod_twice(tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError, match=r"document 2: metadata\.name: 'a': is also in .*document 1"
    ):
        read_text(tmp_path, POD + "---" + POD)


def test_says_which_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"nothing\.yaml: No such file"):
        read([str(tmp_path / "nothing.yaml")])
    with pytest.raises(OperatorError, match=r"no \.yaml"):
        read([str(tmp_path)])
    (tmp_path / "latin.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(OperatorError, match="not UTF-8"):
        read([str(tmp_path / "latin.yaml")])


@pytest.mark.parametrize(
    "text",
    [
        "2025-01-31", "2001-12-14t21:59:43.10-05:00", "02:42:0a:00:00:01", "12:30:45", "190:20:30",
        "=", "0o", "0x", "1e999", "1234e5678", "1.2.3", "fale", "Yess", "10.0.0.1", "1-2",
    ],
)  # fmt: skip
def test_a_scalar_that_is_a_string_to_kubernetes_is_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(POD_WITH_ANNOTATION.format(text))
    (found,) = read([str(path)]).pods
    assert found.annotations == {"note": text}


@pytest.mark.parametrize(
    "text",
    [
        "0755", "08", "12345e6", "1_000", "0x1F", "0b101", "0o17", "1.5", ".5", "1.", "-7", "+7",
        ".inf", "-.Inf", ".NaN", "y", "Y", "no", "Off", "TRUE",
    ],
)  # fmt: skip
def test_a_scalar_that_is_none_to_kubernetes_is_quoted_as_it_is_written(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(POD_WITH_ANNOTATION.format(text))
    with pytest.raises(ManifestError) as caught:
        read([str(path)])
    assert f'write "{text}" with the quotes' in str(caught.value)


POD_WITH_ANNOTATION = """
apiVersion: v1
kind: Pod
metadata:
  name: a
  annotations:
    note: {}
spec:
  containers: [{{name: c, image: i}}]
"""
