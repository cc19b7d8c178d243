"""The operations of the plugin, each as its sequence of steps.

Most pods on a node are not ours, and this module is on the path of all of them. It decides whose a
pod is and turns into the delegate for the others (``ratchet.delegate`` knows how); what becomes of
an eligible pod is in ``ratchet.eligible``, imported as the first thing of the step that needs it
because that costs more than a whole pass-through.
"""

from __future__ import annotations

import os

from ratchet import delegate, log, pods, statedir
from ratchet.cni import config as cni_config
from ratchet.cni import invoke, version
from ratchet.cni.errors import CniError
from ratchet.config import Config
from ratchet.errors import (
    ChildError,
    PodSourceError,
    PodUnknownError,
    StateError,
    StoreError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ratchet.cni.skel import Request
    from ratchet.messages import Failure
    from ratchet.pods import Pod

    Result = dict[str, Any] | None

LABELS_TIMEOUT_S = 7.0  # the child gives the API server 5
SOURCE = "label_source"
# What cannot be done without the state directory, whosever pods there are.
_OF_THE_NODE = ("GC", "STATUS")
HEALTH_TIMEOUT_S = 3.0  # the child answers at once


def cmd_add(request: Request) -> Result:
    """CNI spec 1.1.0 §2, ADD."""
    config = _configured(request)
    pod = _eligible_pod(config, request)
    if pod is None:
        return _pass_through(config, request)
    _require_private(config)
    from ratchet import eligible  # noqa: PLC0415 - only for eligible pods

    return eligible.attach(config, request, pod)


def cmd_del(request: Request) -> Result:
    """CNI spec 1.1.0 §2, DEL. Safe to call twice.

    Labels are not looked at: by now the pod may be gone from the API server, or another may bear
    its name. The record says whose it was.
    """
    config = _configured(request)
    if _is_attached(config, request):
        from ratchet import eligible  # noqa: PLC0415 - only for eligible pods

        if eligible.detach(config, request):
            return None
    return _pass_through(config, request)


def cmd_check(request: Request) -> Result:
    """CNI spec 1.1.0 §2, CHECK."""
    config = _configured(request)
    if _is_attached(config, request):
        from ratchet import eligible  # noqa: PLC0415 - only for eligible pods

        if eligible.check(config, request):
            return None
    return _pass_through(config, request)


def cmd_gc(request: Request) -> Result:
    """CNI spec 1.1.0 §2, GC. Carries on past errors and reports them at the end."""
    config = _configured(request)
    _attend(config)
    valid = cni_config.valid_attachments(request.config)
    if valid is None:
        # A plugin that takes "no list" for "an empty list" would remove everything.
        log.warning("GC without cni.dev/valid-attachments: nothing is removed")
        return None
    from ratchet import eligible  # noqa: PLC0415 - only for eligible pods

    errors = eligible.collect_garbage(config, request, valid)
    for plugin in delegate.plugins_that_know(config, request, errors):
        handed = {key: value for key, value in request.config.items() if key in _GC_KEYS}
        try:
            invoke.run({**plugin, **handed}, request.path, request.environ)
        except CniError as exc:
            errors.append(exc)
    if len(errors) > 1:
        raise CniError(errors[0].code, errors[0].msg, "; ".join(map(str, errors)))
    if errors:
        raise errors[0]
    return None


def cmd_status(request: Request) -> Result:
    """CNI spec 1.1.0 §2, STATUS: the delegate's and the boot network's word.

    A runtime takes the whole node down for it, so it fails only where no pod could be started:
    etcd, without which an ADD succeeds, and a child that does not serve are told elsewhere.
    """
    from ratchet import repeated  # noqa: PLC0415 - not for a pod

    config = _configured(request)
    _attend(config)
    try:
        _require_ready(config, request)
    except CniError as exc:
        exc.repeats = repeated.note(config.state_dir, "STATUS", exc)
        raise
    repeated.over(config.state_dir, "STATUS")
    return None


def _require_ready(config: Config, request: Request) -> None:
    errors: list[CniError] = []
    for plugin in delegate.plugins_that_know(config, request, errors):
        invoke.run(plugin, request.path, request.environ)
    if errors:
        raise errors[0]
    if not config.use_labels:
        return
    from ratchet import messages, repeated, spawn  # noqa: PLC0415 - not for a pass-through

    try:
        answer = spawn.ask(config, messages.Health(), HEALTH_TIMEOUT_S)
    except CniError as exc:  # pods start all the same, and their links follow
        repeats = repeated.note(config.state_dir, "child", exc)
        if repeated.is_told(repeats):
            log.warning("links will wait for the child", error=exc, repeated=repeats or None)
        return
    repeated.over(config.state_dir, "child")
    refused = messages.NodeHealth.from_json(answer).labels
    if refused is not None:
        raise CniError(refused.code, refused.msg, refused.details)


OPERATIONS = {
    "ADD": cmd_add,
    "DEL": cmd_del,
    "CHECK": cmd_check,
    "GC": cmd_gc,
    "STATUS": cmd_status,
}
_GC_KEYS = (cni_config.VALID_ATTACHMENTS, cni_config.ATTACHMENTS)


def _configured(request: Request) -> Config:
    config = Config.parse(request.config)
    arm = invoke.arm()
    if arm is not None:
        arm.serve(config.state_dir)
    log.configure(config.log_file, config.log_level, "ratchet", to_stderr=True)
    config.replaceable = statedir.open_to_others(config.state_dir)
    if request.command in _OF_THE_NODE:
        _require_private(config)
    return config


def _require_private(config: Config) -> None:
    """Refuse a state directory that others can change: records say what a DEL runs, as root.

    A pod that is not ours does without: nothing is believed of what stands there, and nothing
    written, but whoever can change it must not keep such a pod from starting.
    """
    if config.replaceable is not None:
        raise StateError.open_to_others(config.state_dir, config.replaceable)


def _is_attached(config: Config, request: Request) -> bool:
    """Say whether there is a record. A DEL without one must not fail for the directory's sake."""
    if not statedir.is_attached(config, request.container_id, request.ifname):
        return False
    lasting = statedir.lasting_dir(config.state_dir)
    if config.replaceable is None and lasting is not None and os.path.lexists(lasting):
        config.replaceable = statedir.open_to_others(lasting)
    if config.replaceable is None:
        return True
    from ratchet.attachments import Directory  # noqa: PLC0415 - only where something is wrong

    # What is no record, or not root's, anybody may have put there to keep the pod from ending.
    if Directory(config.state_dir).has(request.container_id, request.ifname):
        _require_private(config)
    return False


def _eligible_pod(config: Config, request: Request) -> Pod | None:
    """Return the pod if it is ours. Raises rather than to take "do not know" for "no"."""
    if not config.use_labels:
        return None

    def ask_child(
        namespace: str, name: str, uid: str | None
    ) -> tuple[dict[str, str], dict[str, str]] | None:
        return _labels_from_child(config, namespace, name, uid)

    pod = pods.find_pod(config, request, ask_child)
    if config.replaceable is None and (
        pod.is_untold or os.path.lexists(statedir.failed_path(config.state_dir, SOURCE))
    ):
        from ratchet import repeated  # noqa: PLC0415 - for a configuration that makes no links

        if not pod.is_untold:
            repeated.over(config.state_dir, SOURCE)
        elif repeated.note(config.state_dir, SOURCE, pods.NO_SOURCE) == 0:
            log.warning(pods.NO_SOURCE)
    return pod if pods.is_eligible(pod) else None


def _labels_from_child(
    config: Config, namespace: str, name: str, uid: str | None
) -> tuple[dict[str, str], dict[str, str]] | None:
    """Return what the child reads of the API server; None when no child runs."""
    if config.replaceable is not None:
        return None  # anybody may answer there
    # Only where the runtime does not tell the labels.
    from ratchet import client, messages  # noqa: PLC0415

    answer = client.ask(config, messages.Labels(namespace, name, uid), LABELS_TIMEOUT_S)
    if answer is None:
        return None
    failure = messages.Failure.from_json(answer)
    if failure is not None:
        raise _failure(failure)
    try:
        found = messages.PodLabels.from_json(answer)
    except ValueError as exc:
        raise ChildError(str(exc)) from exc
    return found.labels, found.annotations


def _failure(failure: Failure) -> CniError:
    """Return the child's failure as an error; what it does not know of labels counts as its own."""
    if failure.code in (PodUnknownError.code, PodSourceError.code, StoreError.code):
        return CniError(failure.code, failure.msg, failure.details)
    return ChildError(failure.msg, failure.details)


def _pass_through(config: Config, request: Request) -> Result:
    """Become the delegate. Chained after another plugin without one: hand its result on.

    A delegate that answers an ADD in another cniVersion than ours is run instead, because it states
    that one or does not know ours. (Where we state none, the runtime takes what it gets.)
    """
    _attend(config)
    plugins = delegate.plugins(config, config.delegate, request)
    if not plugins:
        return delegate.previous(config, request) if request.command == "ADD" else None
    if request.command == "DEL":
        # CNI spec 1.1.0 §3, "Deleting an attachment": in reverse order.
        plugins.reverse()
    while len(plugins) > 1:
        plugin = plugins.pop(0)
        result = delegate.run(plugin, request)
        if request.command == "ADD":
            answer = delegate.answer(plugin, result, plugins[0].get("cniVersion"), request)
            plugins[0] = cni_config.with_result(plugins[0], answer)
    last, ours = plugins[0], config.cni_version
    if request.command == "ADD" and ours and not version.same(last.get("cniVersion"), ours):
        result = delegate.run(last, request)
        return delegate.answer(last, result, ours, request)
    return invoke.become(last, request.path, request.environ)


def _attend(config: Config) -> None:
    """Have the child started if it was killed, or has not looked after this node since its boot."""
    if not config.use_labels or config.replaceable is not None:
        return
    if statedir.is_left_alone(config.state_dir):
        from ratchet import spawn  # noqa: PLC0415 - hardly ever

        spawn.attend(config)
