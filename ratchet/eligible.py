"""What becomes of an eligible pod: attached, checked, detached, collected.

Each step writes down what it is about to do before it does it, so that a parent that is killed at
any moment leaves nothing that a DEL or GC would not find: the record comes before the boot
network's ADD, and its second name before the record is given to the child. Interfaces and etcd
keys are the child's: here it is only told to look.
"""

from __future__ import annotations

import time

from ratchet import boot, labels, log, messages, netns, reported, spawn, status
from ratchet.attachments import Attachment, Directory
from ratchet.cni import config as cni_config
from ratchet.cni import invoke
from ratchet.cni import result as cni_result
from ratchet.cni.dataclasses import replace
from ratchet.cni.errors import CniError
from ratchet.errors import CheckError, ConfigError, LinkWaitError, StateError
from ratchet.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ratchet.cni.skel import Request
    from ratchet.config import Config
    from ratchet.pods import Pod

# The child answers at the end of its own limit; this is for its answer, and for its start.
GRACE_S = 5.0
CHECK_TIMEOUT_S = 3.0
TELL_TIMEOUT_S = 3.0


def attach(config: Config, request: Request, pod: Pod) -> dict[str, Any]:
    """ADD. Nothing is changed before the labels are known to be right; what fails is undone."""
    identity = netns.require(request.netns)
    wiring = labels.parse(pod.labels, pod.annotations, own_name=pod.name, cni_ifname=request.ifname)
    labels.require_at_most(config.max_links, wiring)
    reported.check(config, wiring)
    directory = Directory(config.state_dir)
    invoke.begin()
    before = directory.read(request.container_id, request.ifname)
    if before is not None and before.is_finished and _is_in(before, request.netns, identity):
        again = replace(_wired(before, pod, wiring), netns_identity=identity)
        return _attach_again(config, directory, again)
    _clear_leftover(directory, request, before)

    attachment = _attachment(config, request, pod, wiring, identity)
    boot.require(attachment.boot, request)
    started = time.monotonic()
    kubernetes = _other_name(attachment)
    log.info("ADD", netns=attachment.netns, kubernetes=kubernetes, **_fields(attachment))
    with Undo() as undo:
        _record(config, directory, attachment, undo)
        attachment = _boot(directory, attachment, request, undo)
        undo.callback(_quietly, attachment, _hand_over, config, directory, attachment)
        directory.write(attachment)
        if _is_lasting(config):
            directory.keep_lasting(attachment)
        answer = _answer(config, attachment)
        _await_links(config, attachment)
        undo.drop()
    log.info("attached", took_s=_took_s(started), **_fields(attachment))
    return answer


def detach(config: Config, request: Request) -> bool:
    """DEL: False when there is, after all, no record to read. Safe to call twice.

    Only a failing DEL of the boot network, and a state directory that cannot be written, are
    errors: the runtime then tries again, and finds what is left to do.
    """
    directory = Directory(config.state_dir)
    attachment = directory.read(request.container_id, request.ifname)
    if attachment is None:
        attachment = directory.kept_boot(request.container_id, request.ifname)
        if attachment is None:
            return False
    invoke.begin()
    log.info("DEL", **_fields(attachment))
    _detach(config, directory, attachment, request, request.netns)
    return True


def check(config: Config, request: Request) -> bool:
    """CHECK: False when there is no record. Raises CheckError, and the boot network's errors."""
    directory = Directory(config.state_dir)
    attachment = directory.read(request.container_id, request.ifname)
    if attachment is None:
        return False
    if not attachment.is_finished:
        raise CheckError(f"the ADD of {attachment.name} has not finished")
    started = time.monotonic()
    _check_same_netns(attachment, request)
    if not cni_config.forbids(config.boot_network or config.delegate or {}, "CHECK"):
        boot.check(attachment, request, _result_to_check(attachment, request))
    question = messages.Check(attachment.name, CHECK_TIMEOUT_S)
    answer = spawn.ask(config, question, CHECK_TIMEOUT_S + GRACE_S)
    failure = messages.Failure.from_json(answer)
    if failure is not None:
        raise CheckError(f"{attachment.pod}: {failure.msg}", failure.details)
    if not status.Links.from_json(answer).complete:
        raise CheckError(f"links of {attachment.pod}", _describe(answer))
    log.info("CHECK succeeded", took_s=_took_s(started), **_fields(attachment))
    return True


def collect_garbage(
    config: Config, request: Request, valid: set[tuple[str, str]]
) -> list[CniError]:
    """GC: detach every attachment that is not valid any more, and return what went wrong."""
    directory = Directory(config.state_dir)
    found = {(each.container_id, each.ifname): each for each in directory.kept_boots()}
    found |= {(each.container_id, each.ifname): each for each in directory.live()}
    errors = []
    invoke.begin()
    for key, attachment in found.items():
        if key in valid or attachment.network != config.name:
            continue
        log.info("an attachment is no longer valid and will be detached", **_fields(attachment))
        try:
            _detach(config, directory, attachment, request, _remaining_netns(attachment))
        except CniError as exc:
            errors.append(exc)
    return errors


def _remaining_netns(attachment: Attachment) -> str:
    """Return the namespace of a pod of which no runtime knows any more, "" without one."""
    path = attachment.netns
    # One under /proc is named by a process ID, which may be another's by now.
    return "" if path.startswith("/proc/") or netns.identity_at(path) is None else path


def _is_in(attachment: Attachment, path: str, identity: netns.Identity) -> bool:
    """Tell whether an attachment is in the namespace that stands at a path now."""
    return attachment.netns == path and attachment.netns_identity in (None, identity)


def _check_same_netns(attachment: Attachment, request: Request) -> None:
    found = netns.require(request.netns)
    if found != (attachment.netns_identity or netns.identity_at(attachment.netns)):
        raise CheckError(
            f"{attachment.name} is in another namespace than CNI_NETNS",
            f"it is attached to {attachment.netns}, CNI_NETNS is {request.netns}",
        )


def _result_to_check(attachment: Attachment, request: Request) -> dict[str, Any] | None:
    """Return what the boot network is to find: the runtime's prevResult. Raises ConfigError.

    CNI spec 1.1.0 §2, CHECK: a later plugin of the runtime's list may have changed what the boot
    network made. Where we have made up an address for the pod, prevResult has that one, too, and
    the boot network would not find it.
    """
    previous, own = request.config.get("prevResult"), attachment.result
    if previous is None:
        return own
    try:
        cni_result.parse(previous)
    except ValueError as exc:
        raise ConfigError("prevResult", previous, f"a result ({exc})") from exc
    return previous if cni_result.parse(own).ips_of(attachment.ifname) else own


# The steps of ADD --------------------------------------------------------------------------------


def _attachment(
    config: Config,
    request: Request,
    pod: Pod,
    wiring: labels.Wiring,
    identity: netns.Identity,
) -> Attachment:
    return Attachment(
        container_id=request.container_id,
        ifname=request.ifname,
        netns=request.netns,
        netns_identity=identity,
        network=config.name,
        namespace=pod.namespace,
        kubernetes_name=pod.name,
        uid=pod.uid,
        **wiring.recorded(),
        attached_at=time.time(),
        boottime_s=time.clock_gettime(time.CLOCK_BOOTTIME),
        boot=boot.of(config, request),
        result=None,
    )


def _wired(attachment: Attachment, pod: Pod, wiring: labels.Wiring) -> Attachment:
    """Return the attachment with what its labels say now."""
    return replace(
        attachment,
        namespace=pod.namespace,
        kubernetes_name=pod.name,
        uid=pod.uid,
        **wiring.recorded(),
    )


def _attach_again(config: Config, directory: Directory, attachment: Attachment) -> dict[str, Any]:
    """Answer an ADD that is repeated. The boot network is left alone: its ADD is not for twice."""
    directory.write(attachment)
    answer = _answer(config, attachment)
    _await_links(config, attachment)
    log.info("attached again", **_fields(attachment))
    return answer


def _clear_leftover(directory: Directory, request: Request, before: Attachment | None) -> None:
    """Detach the boot network of an earlier ADD that was killed, or whose DEL did not succeed."""
    leftover = before or directory.kept_boot(request.container_id, request.ifname)
    if leftover is None:
        return
    log.warning("an earlier ADD has not finished", **_fields(leftover))
    own = request.netns if leftover.netns == request.netns else ""
    _quietly(leftover, boot.delete, leftover, request, own)
    _quietly(leftover, directory.forget_boot, request.container_id, request.ifname)


def _is_lasting(config: Config) -> bool:
    """Tell whether a DEL after a reboot must be told whose the pod was, and not the delegate's."""
    return config.boot_network is not None


def _record(config: Config, directory: Directory, attachment: Attachment, undo: Undo) -> None:
    if attachment.boot is None:
        return  # nothing will be changed before the record is written as a whole
    container_id, ifname = attachment.container_id, attachment.ifname
    undo.callback(_quietly, attachment, directory.remove, container_id, ifname)
    directory.write(attachment)
    if _is_lasting(config):
        directory.keep_lasting(attachment)


def _boot(directory: Directory, attachment: Attachment, request: Request, undo: Undo) -> Attachment:
    """Run the boot network's ADD and return the attachment with its result."""
    if attachment.boot is None:
        previous = request.config.get("prevResult")
        if previous is None:
            allowed = "a plugin's configuration, unless ratchet is chained after another plugin"
            raise ConfigError("boot_network", None, allowed)
        try:
            cni_result.parse(previous)
        except ValueError as exc:
            raise ConfigError("prevResult", previous, f"a result ({exc})") from exc
        return attachment.with_result(previous)
    # A plugin that fails may have done half of its work (CNI spec 1.1.0 §2: DEL cleans up).
    undo.callback(_quietly, attachment, _detach_boot, directory, attachment, request, request.netns)
    started = time.monotonic()
    used, result = boot.add(attachment.boot, request)
    log.info("boot network attached", took_s=_took_s(started), **_fields(attachment))
    if directory.read(attachment.container_id, attachment.ifname) is None:
        raise StateError(f"{attachment.name} was detached while it was being attached")
    return replace(attachment, boot=used, result=result)


def _answer(config: Config, attachment: Attachment) -> dict[str, Any]:
    """Return the boot network's result in our version, with an address for the pod.

    containerd and CRI-O refuse a pod without one on CNI_IFNAME.
    """
    found = attachment.result or {}
    result = cni_result.parse(found)
    completed = result
    if not result.ips_of(attachment.ifname):
        address = reported.choose(
            config, attachment.public_ip, attachment.addresses, attachment.container_id
        )
        completed = result.with_pod_address(attachment.ifname, attachment.netns, address)
    if completed is result and cni_result.is_of(found, config.cni_version):
        return found
    return cni_result.serialise(completed, config.cni_version, attachment.ifname)


def _await_links(config: Config, attachment: Attachment) -> None:
    """Wake the child and wait as the configuration's ``wait`` says. Raises LinkWaitError."""
    wait = "all" if config.wait == "all" else "present"
    request = messages.Attached(attachment.name, wait, config.wait_seconds)
    try:
        if config.wait == "none" or (config.wait == "present" and config.wait_seconds == 0):
            spawn.tell(config, request, TELL_TIMEOUT_S)
            return
        timeout_s = config.wait_seconds + GRACE_S
        answer = spawn.ask(config, request, timeout_s)
    except CniError as exc:
        if config.wait == "all":
            raise LinkWaitError(f"{attachment.pod}: {exc.msg}", exc.details) from exc
        log.warning("links will follow", error=exc, **_fields(attachment))
        return
    if answer.get("ok") and status.Links.from_json(answer).complete:
        return
    said = _describe(answer)
    if config.wait == "all":
        raise LinkWaitError(f"{attachment.pod}, after {config.wait_seconds:g} s", said)
    log.info("links will follow", waiting=said, **_fields(attachment))


# The steps of DEL --------------------------------------------------------------------------------


def _detach(
    config: Config, directory: Directory, attachment: Attachment, request: Request, netns: str
) -> None:
    """Hand the record to the child and detach the boot network. Raises StateError and CniError."""
    failure, started = None, time.monotonic()
    try:
        _hand_over(config, directory, attachment)
    except StateError as exc:  # the boot network is detached all the same
        failure = exc
    _detach_boot(directory, attachment, request, netns)
    if failure is not None:
        raise failure
    log.info("detached", took_s=_took_s(started), **_fields(attachment))


def _hand_over(config: Config, directory: Directory, attachment: Attachment) -> None:
    """Mark the record deleted, and tell the child to clean up after it. Raises StateError."""
    if attachment.boot is not None:
        # Once the record is the child's, it may be gone before the boot network's DEL succeeds.
        _quietly(attachment, directory.keep_boot, attachment.container_id, attachment.ifname)
    if directory.mark_deleted(attachment.container_id, attachment.ifname):
        _quietly(attachment, spawn.tell, config, messages.Deleted(attachment.name), TELL_TIMEOUT_S)


def _detach_boot(
    directory: Directory, attachment: Attachment, request: Request, netns: str
) -> None:
    """Run the boot network's DEL, which is kept in mind until it has succeeded.

    Raises CniError as the plugin gives it, and StateError: the runtime then tries again, while
    nobody else would ever forget what is kept.
    """
    if attachment.boot is None:
        return
    _quietly(attachment, directory.keep_boot, attachment.container_id, attachment.ifname)
    boot.delete(attachment, request, netns)
    directory.forget_boot(attachment.container_id, attachment.ifname)


def _quietly(attachment: Attachment, step: Callable[..., object], *args: object) -> None:
    """Do a step whose failure must not keep others from being done; it is logged."""
    try:
        step(*args)
    except CniError as exc:
        log.warning(exc.msg, code=exc.code, details=exc.details or None, **_fields(attachment))


def _describe(answer: dict[str, Any]) -> str:
    """Return what the child says of links that are not up."""
    failure = messages.Failure.from_json(answer)
    if failure is not None:
        return f"{failure.msg} {failure.details}".strip()
    waiting = [
        f"{link.ifname} to {link.peer}: {link.error or link.state}"
        for link in status.Links.from_json(answer).links
        if link.state != status.UP
    ]
    return ", ".join(waiting) or "nothing is known of its links"


def _other_name(attachment: Attachment) -> str | None:
    """Return Kubernetes' name where the pod is called something else in all other lines."""
    name = attachment.kubernetes_name
    return None if name == attachment.pod else name


def _took_s(started: float) -> str:
    return f"{time.monotonic() - started:.3f}"


def _fields(attachment: Attachment) -> dict[str, Any]:
    return {
        "pod": attachment.pod_in_logs,
        "container": attachment.container_id,
        "links": ",".join(attachment.ifnames) or None,
    }
