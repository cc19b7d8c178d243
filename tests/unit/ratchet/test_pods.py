"""Who the pod is and which label source settles what its labels are."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet import pods
from ratchet.cni.skel import Request
from ratchet.config import Config
from ratchet.docker import Container
from ratchet.errors import ChildError, CniError, ConfigError, PodSourceError, PodUnknownError
from ratchet.pods import Pod, cni_args, find_pod, identity, is_eligible

KUBERNETES_ARGS = (
    "K8S_POD_UID=0c2b;IgnoreUnknown=1;K8S_POD_NAME=in-1.a;K8S_POD_INFRA_CONTAINER_ID=77;"
    "K8S_POD_NAMESPACE=team-a"
)
FROM_API = ({"ratchet": "true", "from": "api"}, {"note": "api"})
FROM_ENGINE = Container("ns", "box", "u1", {"from": "engine"}, {"note": "engine"})


class Sources:
    """Stands for the child, the API server and the engine, and notes who was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.child: Any = None
        self.api: Any = FROM_API
        self.engine: Any = FROM_ENGINE

    def ask_child(self, namespace: str, name: str, uid: str | None) -> Any:
        self.asked.append(f"child {namespace}/{name}/{uid}")
        return self._answer(self.child)

    def read_pod(self, namespace: str, name: str, uid: str | None) -> Any:
        self.asked.append(f"api {namespace}/{name}/{uid}")
        return self._answer(self.api)

    def read_container(self, socket_path: str, container_id: str, timeout_s: float) -> Any:
        self.asked.append(f"engine {container_id}")
        return self._answer(self.engine)

    @staticmethod
    def _answer(answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> Sources:
    sources = Sources()

    class Reader:
        def __init__(self, kubeconfig: str, timeout_s: float) -> None:
            assert kubeconfig == "/kubeconfig"

        def read(self, namespace: str, name: str, uid: str | None) -> Any:
            return sources.read_pod(namespace, name, uid)

        def close(self) -> None:
            sources.asked.append("closed")

    monkeypatch.setattr(importlib.import_module("ratchet.kubernetes"), "PodReader", Reader)
    monkeypatch.setattr(
        importlib.import_module("ratchet.docker"), "read_container", sources.read_container
    )
    return sources


def find(
    sources: Sources,
    args: str = "",
    request: dict[str, Any] | None = None,
    *,
    socket: str = "/no/socket",
    **keys: Any,
) -> Pod:
    config = Config.parse({"name": "net", "type": "ratchet", "docker_socket": socket} | keys)
    return find_pod(
        config,
        Request("ADD", container_id="cid", ifname="eth0", args=args, config=request or {}),
        sources.ask_child,
    )


def runtime(labels: Any = None, annotations: Any = None) -> dict[str, Any]:
    request: dict[str, Any] = {}
    if labels is not None:
        request["args"] = {"cni": {"labels": labels}}
    if annotations is not None:
        request["runtimeConfig"] = {"io.kubernetes.cri.pod-annotations": annotations}
    return request


# The runtime ------------------------------------------------------------------------------------


def test_labels_of_the_runtime_settle_it(sources: Sources) -> None:
    pod = find(sources, KUBERNETES_ARGS, runtime({"ratchet": "true"}), kubeconfig="/kubeconfig")
    assert (pod.namespace, pod.name, pod.uid) == ("team-a", "in-1.a", "0c2b")
    assert (pod.labels, pod.annotations) == ({"ratchet": "true"}, {})
    assert is_eligible(pod)
    assert sources.asked == []


@pytest.mark.parametrize("labels", [{}, []])
def test_no_labels_of_the_runtime_settle_it_as_well(sources: Sources, labels: Any) -> None:
    pod = find(sources, KUBERNETES_ARGS, runtime(labels), kubeconfig="/kubeconfig")
    assert not is_eligible(pod)
    assert sources.asked == []


def test_labels_come_as_the_conventions_list_as_well(sources: Sources) -> None:
    labels = [{"key": "ratchet", "value": "true"}, {"key": "app", "value": "x"}]
    assert find(sources, "", runtime(labels)).labels == {"ratchet": "true", "app": "x"}


def test_annotations_come_beside_labels_of_the_runtime(sources: Sources) -> None:
    pod = find(sources, "", runtime({"a": "b"}, {"ratchet.pair_ip": "::1"}))
    assert (pod.labels, pod.annotations) == ({"a": "b"}, {"ratchet.pair_ip": "::1"})


@pytest.mark.parametrize("word", ["true", "false"])
def test_annotations_with_the_key_settle_it(sources: Sources, word: str) -> None:
    request = runtime(None, {"ratchet": word})
    pod = find(sources, KUBERNETES_ARGS, request, kubeconfig="/kubeconfig")
    assert (pod.labels, pod.annotations) == ({}, {"ratchet": word})
    assert sources.asked == []


@pytest.mark.parametrize("annotations", [{}, {"ratchet.primary": "true"}])
def test_annotations_without_the_key_leave_it_to_the_api_server(
    sources: Sources, annotations: dict[str, str]
) -> None:
    request = runtime(None, annotations)
    pod = find(sources, KUBERNETES_ARGS, request, kubeconfig="/kubeconfig")
    assert (pod.labels, pod.annotations) == FROM_API


def test_label_source_runtime_asks_nobody_else(sources: Sources, tmp_path: Any) -> None:
    keys = {"label_source": "runtime", "kubeconfig": "/kubeconfig", "socket": str(tmp_path)}
    assert not is_eligible(find(sources, KUBERNETES_ARGS, {}, **keys))
    annotated = find(sources, KUBERNETES_ARGS, runtime(None, {"a": "b"}), **keys)
    assert annotated.annotations == {"a": "b"}
    assert sources.asked == []


@pytest.mark.parametrize(
    "request_config",
    [
        {"args": None},
        {"args": {}},
        {"args": {"cni": None}},
        {"args": {"cni": {"labels": None}}},
        {"runtimeConfig": None},
        {"runtimeConfig": {"io.kubernetes.cri.pod-annotations": None}},
    ],
)
def test_null_is_as_good_as_nothing(sources: Sources, request_config: dict[str, Any]) -> None:
    pod = find(sources, KUBERNETES_ARGS, request_config, kubeconfig="/kubeconfig")
    assert pod.labels == FROM_API[0]


@pytest.mark.parametrize(
    ("request_config", "key"),
    [
        ({"args": []}, "args"),
        ({"args": {"cni": "x"}}, "args.cni"),
        (runtime("x"), "args.cni.labels"),
        (runtime({"ratchet": True}), "args.cni.labels.ratchet"),
        (runtime({"ratchet": None}), "args.cni.labels.ratchet"),
        (runtime(["x"]), "args.cni.labels"),
        (runtime([{"value": "x"}]), "args.cni.labels"),
        (runtime([{"key": "a"}]), "args.cni.labels.a"),
        (runtime([{"key": [], "value": "x"}]), "args.cni.labels"),
        ({"runtimeConfig": 1}, "runtimeConfig"),
        (runtime(None, []), "runtimeConfig.io.kubernetes.cri.pod-annotations"),
        (runtime(None, {"a": 1}), "runtimeConfig.io.kubernetes.cri.pod-annotations.a"),
    ],
)
def test_wrong_types_from_the_runtime_are_configuration_errors(
    sources: Sources, request_config: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        find(sources, "", request_config)
    assert caught.value.key == key


# Kubernetes -------------------------------------------------------------------------------------


def test_the_child_is_asked_first(sources: Sources) -> None:
    sources.child = ({"ratchet": "true"}, {"a": "b"})
    pod = find(sources, KUBERNETES_ARGS, kubeconfig="/kubeconfig")
    assert (pod.labels, pod.annotations) == sources.child
    assert sources.asked == ["child team-a/in-1.a/0c2b"]


@pytest.mark.parametrize("child", [None, ChildError("it hangs")])
def test_without_a_child_that_answers_the_parent_asks_itself(sources: Sources, child: Any) -> None:
    sources.child = child
    pod = find(sources, KUBERNETES_ARGS, kubeconfig="/kubeconfig")
    assert (pod.labels, pod.annotations) == FROM_API
    assert sources.asked[1:] == ["api team-a/in-1.a/0c2b", "closed"]


@pytest.mark.parametrize("error", [PodUnknownError("x"), PodSourceError("x")])
@pytest.mark.parametrize("who", ["child", "api"])
def test_not_to_know_is_never_no(
    sources: Sources, tmp_path: Any, error: CniError, who: str
) -> None:
    setattr(sources, who, error)
    with pytest.raises(type(error)):
        find(sources, KUBERNETES_ARGS, kubeconfig="/kubeconfig", socket=str(tmp_path))
    assert "engine cid" not in sources.asked


@pytest.mark.parametrize("args", ["", "K8S_POD_NAME=a", "K8S_POD_NAMESPACE=a", "K8S_POD_NAME="])
def test_pods_outside_kubernetes_are_not_asked_for_there(sources: Sources, args: str) -> None:
    pod = find(sources, args, kubeconfig="/kubeconfig")
    assert not is_eligible(pod)
    assert sources.asked == []


def test_label_source_kubernetes_needs_a_kubeconfig_and_a_name(sources: Sources) -> None:
    with pytest.raises(ConfigError) as caught:
        find(sources, KUBERNETES_ARGS, label_source="kubernetes")
    assert caught.value.key == "kubeconfig"
    with pytest.raises(CniError, match="CNI_ARGS") as unnamed:
        find(sources, "", label_source="kubernetes", kubeconfig="/kubeconfig")
    assert unnamed.value.code == 4


def test_label_source_kubernetes_does_not_look_at_the_runtimes(sources: Sources) -> None:
    keys = {"label_source": "kubernetes", "kubeconfig": "/kubeconfig"}
    pod = find(sources, KUBERNETES_ARGS, runtime({"ratchet": "false"}), **keys)
    assert pod.labels == FROM_API[0]


# The engine -------------------------------------------------------------------------------------


def test_the_engine_is_asked_without_kubernetes_names(sources: Sources, tmp_path: Any) -> None:
    pod = find(sources, "", kubeconfig="/kubeconfig", socket=str(tmp_path))
    assert (pod.namespace, pod.name, pod.uid) == ("ns", "box", "u1")
    assert (pod.labels, pod.annotations) == ({"from": "engine"}, {"note": "engine"})
    assert sources.asked == ["engine cid"]


def test_the_engine_is_asked_without_a_kubeconfig(sources: Sources, tmp_path: Any) -> None:
    pod = find(sources, KUBERNETES_ARGS, socket=str(tmp_path))
    assert (pod.namespace, pod.name, pod.uid) == ("team-a", "in-1.a", "0c2b")
    assert pod.labels == {"from": "engine"}


def test_a_container_without_a_namespace_is_in_the_default_one(
    sources: Sources, tmp_path: Any
) -> None:
    sources.engine = Container(None, None, None, {}, {})
    pod = find(sources, "", socket=str(tmp_path))
    assert (pod.namespace, pod.name, pod.uid) == ("default", None, None)


def test_a_container_that_the_engine_does_not_have_is_another_runtimes(
    sources: Sources, tmp_path: Any
) -> None:
    sources.engine = None
    assert not is_eligible(find(sources, "", socket=str(tmp_path)))


def test_label_source_docker_has_to_know_the_container(sources: Sources) -> None:
    sources.engine = None
    with pytest.raises(PodUnknownError):
        find(sources, "", label_source="docker")


def test_an_engine_that_does_not_answer_is_an_error(sources: Sources, tmp_path: Any) -> None:
    sources.engine = PodUnknownError("x")
    with pytest.raises(PodUnknownError):
        find(sources, "", socket=str(tmp_path))


def test_without_any_source_a_pod_has_no_labels(sources: Sources) -> None:
    pod = find(sources, KUBERNETES_ARGS)
    assert not is_eligible(pod)
    assert (pod.labels, pod.annotations) == ({}, {})
    assert sources.asked == []


# CNI_ARGS ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("", {}),
        ("A=1", {"A": "1"}),
        ("A=1;B=2;", {"A": "1", "B": "2"}),
        ("A=;B=x=y", {"A": "", "B": "x=y"}),
    ],
)
def test_cni_args_are_pairs(text: str, args: dict[str, str]) -> None:
    assert cni_args(text) == args


@pytest.mark.parametrize("text", ["A", "=1", "A=1;B", ";=;"])
def test_malformed_cni_args_are_error_4(text: str) -> None:
    with pytest.raises(CniError, match="CNI_ARGS") as caught:
        cni_args(text)
    assert caught.value.code == 4


@pytest.mark.parametrize(
    "args",
    [
        {"K8S_POD_NAMESPACE": "../x"},
        {"K8S_POD_NAMESPACE": "A"},
        {"K8S_POD_NAMESPACE": "a.b"},
        {"K8S_POD_NAMESPACE": "-a"},
        {"K8S_POD_NAMESPACE": "a" * 64},
        {"K8S_POD_NAMESPACE": "é"},
        {"K8S_POD_NAMESPACE": "a", "K8S_POD_NAME": "a/b"},
        {"K8S_POD_NAMESPACE": "a", "K8S_POD_NAME": ".."},
        {"K8S_POD_NAMESPACE": "a", "K8S_POD_NAME": "a..b"},
        {"K8S_POD_NAMESPACE": "a", "K8S_POD_NAME": "a_b"},
        {"K8S_POD_NAMESPACE": "a", "K8S_POD_NAME": "a" * 254},
        {"K8S_POD_NAMESPACE": "a", "K8S_POD_NAME": "a\n"},
        {"K8S_POD_NAME": "a/b"},
        {"K8S_POD_NAME": "a?b"},
        {"K8S_POD_UID": "a b"},
    ],
)
def test_what_cannot_be_a_pod_is_error_4(args: dict[str, str]) -> None:
    with pytest.raises(CniError, match="CNI_ARGS has an invalid K8S_POD_") as caught:
        identity(args)
    assert caught.value.code == 4


def test_a_name_without_a_namespace_may_be_an_engines() -> None:
    assert identity({"K8S_POD_NAME": "My_box"}) == (None, "My_box", None)


@given(text=st.text(max_size=80))
def test_any_cni_args_are_read_or_error_4(text: str) -> None:
    try:
        namespace, name, uid = identity(cni_args(text))
    except CniError as error:
        assert error.code == 4
    else:
        safe = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
        assert set((namespace or "") + (name or "") + (uid or "")) <= safe


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["cni", "labels", "key", "value", pods.ANNOTATIONS_CAPABILITY]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(args=json_values, runtime_config=json_values)
def test_any_request_configuration_is_read_or_a_configuration_error(
    args: Any, runtime_config: Any
) -> None:
    try:
        pod = find(Sources(), "", {"args": args, "runtimeConfig": runtime_config})
    except ConfigError:
        return
    for words in (pod.labels, pod.annotations):
        assert all(isinstance(word, str) for pair in words.items() for word in pair)
