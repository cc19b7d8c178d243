"""Every error that Ratchet answers, in one tree and with one table of codes.

Each class fixes its code and its sentence; who raises it says what the error is about (``subject``)
and what lay beneath it (``details``). Modules at a boundary translate errno, etcd and HTTP errors
into these and chain the cause. Nobody matches message text.

::

    CniError                    1..99   the specification's own (ratchet/cni/errors.py)
    ├── DelegateError           101     a delegate is missing, killed, silent or out of time
    └── RatchetError            199     something that should not happen: the log has the traceback
        ├── ConfigError         7       a key of the network configuration is wrong
        ├── PodUnknownError     11      the pod's labels cannot be read now; try again later
        ├── StoreError          50      etcd is not available (the child's; no operation answers it)
        ├── LabelError          100     a label of the pod is wrong
        ├── PodSourceError      102     the pod's labels cannot be read; trying again will not help
        ├── LinkWaitError       103     "wait": "all", and the links were not up in time
        ├── StateError          104     the state directory cannot be written
        ├── CheckError          105     CHECK found something that is not as it should be
        ├── ChildError          106     the child cannot be started or does not answer
        └── KernelError         107     the kernel refused an interface, address or namespace

Imported by every call: it must stay small.
"""

from __future__ import annotations

from ratchet.cni.errors import (
    INVALID_CONFIG,
    NOT_AVAILABLE,
    TRY_AGAIN_LATER,
    CniError,
    DelegateError,
)

__all__ = [
    "CheckError",
    "ChildError",
    "CniError",
    "ConfigError",
    "DelegateError",
    "KernelError",
    "LabelError",
    "LinkWaitError",
    "PodSourceError",
    "PodUnknownError",
    "RatchetError",
    "StateError",
    "StoreError",
]


LONGEST_NAME = 100
LONGEST_ALLOWED = 500  # it may repeat a label's name


class RatchetError(CniError):
    """An error of Ratchet's own; by itself one that should not happen."""

    code = 199
    sentence = "internal error: {}"

    def __init__(self, subject: str, details: str = "") -> None:
        super().__init__(type(self).code, type(self).sentence.format(subject), details)
        self.subject = subject


class ConfigError(RatchetError):
    """A key of the network configuration has a value that is not allowed."""

    code = INVALID_CONFIG
    sentence = "invalid network configuration: {}"

    def __init__(self, key: str, value: object, allowed: str) -> None:
        # Labels and annotations have keys, too.
        self.key = key if len(key) <= LONGEST_NAME and key.isprintable() else shown(key)
        what = f"{self.key} is missing" if value is None else f"{self.key} is {shown(value)}"
        super().__init__(f"{what}; allowed is {allowed}")

    @classmethod
    def misspelt(cls, key: str, meant: str) -> ConfigError:
        """Return the error for a key that nobody knows and that is nearly one of ours."""
        self = cls.__new__(cls)
        RatchetError.__init__(self, f"{shown(key)} is not a key; did you mean {meant}?")
        self.key = key
        return self


class LabelError(RatchetError):
    """A label (or annotation) has a value that is not allowed; ``None`` means it is missing."""

    code = 100
    sentence = "invalid label: {}"

    def __init__(self, label: str, value: str | None, allowed: str) -> None:
        self.label = label if len(label) <= LONGEST_NAME else f"{label[:LONGEST_NAME]}..."
        what = f"{self.label} is missing" if value is None else f"{self.label} is {shown(value)}"
        super().__init__(f"{what}; allowed is {allowed[:LONGEST_ALLOWED]}")


class PodUnknownError(RatchetError):
    code = TRY_AGAIN_LATER
    sentence = "the pod's labels cannot be read now; try again later: {}"
    source_answers = False
    """Whether that is the pod's trouble and not the source's."""

    @classmethod
    def no_such_pod(cls, pod: str, why: str) -> PodUnknownError:
        self = cls(pod, why)
        self.source_answers = True
        return self


class PodSourceError(RatchetError):
    code = 102
    sentence = "the pod's labels cannot be read; check the label source: {}"


class LinkWaitError(RatchetError):
    code = 103
    sentence = "links were not up in time: {}"


class StateError(RatchetError):
    code = 104
    sentence = "the state directory cannot be used: {}"

    @classmethod
    def open_to_others(cls, state_dir: str, part: str) -> StateError:
        return cls(
            f"state_dir is {state_dir}",
            f"somebody other than root can write to {part}, or replace it",
        )


class CheckError(RatchetError):
    code = 105
    sentence = "the pod is not as it was attached: {}"


class ChildError(RatchetError):
    code = 106
    sentence = "the child cannot be used: {}"


class KernelError(RatchetError):
    code = 107
    sentence = "cannot {}"


class StoreError(RatchetError):
    code = NOT_AVAILABLE
    sentence = "etcd is not available: {}"


def shown(value: object) -> str:
    """Return a value as an error message may show it: on one line and not without end."""
    text = ascii(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 120 else text[:117] + "..."
