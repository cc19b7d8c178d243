"""The front by itself: it carries out words, and whatever else it hears makes it the parent."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.fake_child import (
    ANSWER,
    BE_PARENT,
    BECOME,
    HOLD,
    INPUT,
    LAST_WORDS,
    OUT_OF_TIME,
    PARENT,
    RUN,
    SAY,
    TOO_MUCH_OUTPUT,
    Connection,
    FakeChild,
    Script,
    program,
    word,
)
from tests.lab.programs import has_front

pytestmark = pytest.mark.root  # the front believes in nobody else
LAST = b'{"code": 11}\n'
# By hand, RATCHET_FRONT_INPUTS=10000 is the long run.
FUZZ_INPUTS = int(os.environ.get("RATCHET_FRONT_INPUTS") or 150)
# Rare enough for every run, and larger than what a pipe or a socket holds.
LARGE = 3 << 20


@pytest.fixture(scope="module", params=["release", "sanitized"])
def child(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FakeChild]:
    if not has_front():
        pytest.skip("no C compiler")
    # A sanitized front takes longer to start than a child may take to answer.
    made = FakeChild(tmp_path_factory.mktemp("front"), request.param, "-DFIRST_WORD_MS=1000")
    yield made
    made.close()


def shown_by_parent(data: bytes, reason: str) -> bytes:
    """Return what the parent prints that is given this input."""
    sum_of = subprocess.run(["cksum"], input=data, capture_output=True, check=True).stdout.decode()
    return f"parent --front={reason} mark {sum_of}".encode()


# What is carried out


def test_hello_is_environment_and_input_as_they_came(child: FakeChild) -> None:
    heard: list[Connection] = []

    def script(front: Connection) -> None:
        heard.append(front)
        front.say(word(ANSWER))

    child.call(script, environ={"EMPTY": "", "LINES": "a\nb=c"})
    assert heard[0].environ == b"MARK=mark\0EMPTY=\0LINES=a\nb=c\0"
    assert heard[0].input == INPUT
    assert heard[0].net == os.stat("/proc/self/ns/net").st_ino
    assert heard[0].mount == os.stat("/proc/self/ns/mnt").st_ino


@pytest.mark.parametrize("size", [0, 1, LARGE])
def test_answer_is_printed(child: FakeChild, size: int) -> None:
    text = b"x" * size
    ran = child.call(lambda front: front.say(word(ANSWER, text, exit_code=7)))
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, text, b"")


def test_what_is_said_goes_to_standard_error(child: FakeChild) -> None:
    ran = child.call(lambda front: front.say(word(SAY, b"a line\n") + word(ANSWER, b"done")))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"done", b"a line\n")


def test_program_gets_input_environment_and_standard_streams_only(child: FakeChild) -> None:
    told: list[tuple[int, int, int, bytes]] = []
    text = "cat; env; ls /proc/self/fd; grep Sig[IB] /proc/self/status; echo oh >&2; exit 3"

    def script(front: Connection) -> None:
        # `ls` has the folder open that it lists.
        front.say(word(RUN, program("/bin/sh", {"PATH": "/bin", "A": "1"})), text.encode())
        told.append(front.reply())
        front.say(word(ANSWER, b"done"))

    ran = child.call(script)
    error, status, flags, output = told[0]
    assert (error, os.waitstatus_to_exitcode(status), flags) == (0, 3, 0)
    lines = output.decode().split()
    assert "A=1" in lines
    assert "MARK=mark" not in lines
    assert lines[lines.index("0") : lines.index("0") + 4] == ["0", "1", "2", "3"]
    assert "4" not in lines
    # SIGPIPE and SIGXFSZ are ignored by Python, and are not by what it starts.
    ignored = int(lines[lines.index("SigIgn:") + 1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)
    assert (ran.stdout, ran.stderr) == (b"done", b"oh\n")


@pytest.mark.parametrize(
    ("text", "options", "flags"),
    [
        ("kill -9 $$", {}, 0),
        ("exec sleep 30", {"run_ms": 200}, OUT_OF_TIME),
        ("exec >&-; exec sleep 30", {"run_ms": 200}, OUT_OF_TIME),
        ("exec yes", {"most": 100_000}, TOO_MUCH_OUTPUT),
        ("exec yes", {}, TOO_MUCH_OUTPUT),
    ],
)
def test_program_that_does_not_end_well_is_killed(
    child: FakeChild, text: str, options: dict[str, int], flags: int
) -> None:
    told: list[tuple[int, int, int, bytes]] = []

    def script(front: Connection) -> None:
        front.say(word(RUN, program("/bin/sh", {"PATH": "/bin"}), **options), text.encode())
        told.append(front.reply())
        front.say(word(ANSWER, b"done"))

    assert child.call(script).stdout == b"done"
    error, status, found, output = told[0]
    assert (error, found, output) == (0, flags, b"")
    assert os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGPIPE)


def test_output_of_any_size_is_told(child: FakeChild) -> None:
    told: list[tuple[int, int, int, bytes]] = []

    def script(front: Connection) -> None:
        front.say(word(RUN, program("/bin/cat")), b"y" * LARGE)
        told.append(front.reply())
        front.say(word(ANSWER))

    child.call(script)
    assert told == [(0, 0, 0, b"y" * LARGE)]


def test_becoming_a_program_leaves_nothing_of_the_front(child: FakeChild) -> None:
    text = b"cat; echo $0 $A; ls /proc/self/fd | wc -l; exit 5"
    gone: list[bool] = []

    def script(front: Connection) -> None:
        front.say(word(BECOME, program("/bin/sh", {"A": "1", "PATH": "/bin"})), text)
        gone.append(front.closed())

    ran = child.call(script)
    assert (ran.returncode, ran.stdout, ran.stderr) == (5, b"/bin/sh 1\n4\n", b"")
    assert gone == [True]


@pytest.mark.parametrize("kind", [RUN, BECOME])
def test_program_that_cannot_be_executed_is_told_and_input_is_kept(
    child: FakeChild, kind: int
) -> None:
    told: list[tuple[int, int, int, bytes]] = []

    def script(front: Connection) -> None:
        for _ in range(2):
            front.say(word(kind, program("/nonexistent/plugin")), b"other")
            told.append(front.reply())
        front.say(word(PARENT))

    assert child.call(script).stdout == shown_by_parent(INPUT, "told")
    assert told == [(2, 0, 0, b"")] * 2


# What makes it the parent


def _says_nothing(front: Connection) -> None:
    front.closed()


NONSENSE = {
    "nothing": b"",
    "text": b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\n",
    "another version": word(ANSWER, b"x", magic=1),
    "half a word": word(ANSWER, b"x")[:20],
    "half a payload": word(ANSWER, b"x" * 100)[:-1],
    "an unknown word": word(9, b"x"),
    "no word at all": word(0, b"x"),
    "a payload without end": word(ANSWER, b"x", size=0xFFFFFFFF),
    "a wait without end": word(HOLD, b"x", wait_ms=0xFFFFFFFF),
    "an unknown policy": word(HOLD, b"x", lost=2),
    "last words that were never said": word(SAY, b"", late=LAST_WORDS) + b"?" * 36,
    "a program without input": word(RUN, program("/bin/true")),
    "a program without a name": word(BECOME, b""),
    "a name without an end": word(BECOME, b"/bin/true"),
}


@pytest.mark.parametrize("words", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_makes_it_the_parent(child: FakeChild, words: bytes) -> None:
    ran = child.call(lambda front: front.say(words))
    assert ran.stdout in [shown_by_parent(INPUT, why) for why in ("nonsense", "lost")]
    assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("words", "inputs"),
    [
        (word(ANSWER, b"x"), 1),
        (word(HOLD, LAST), 1),
        (word(RUN, program("/bin/true")), 2),
        (word(BECOME, b"/bin/true"), 1),
        (word(BECOME, b""), 1),
    ],
)
def test_descriptors_that_should_not_come_make_it_the_parent(
    child: FakeChild, words: bytes, inputs: int
) -> None:
    ran = child.call(lambda front: front.say(words, *[b"other"] * inputs))
    assert ran.stdout == shown_by_parent(INPUT, "nonsense")


def test_silence_makes_it_the_parent_in_time(child: FakeChild) -> None:
    started = time.monotonic()
    ran = child.call(_says_nothing)
    assert ran.stdout == shown_by_parent(INPUT, "late")
    assert time.monotonic() - started < 3


def test_nobody_behind_the_socket_makes_it_the_parent(child: FakeChild, tmp_path: Path) -> None:
    os.rename(child.path, child.path + ".away")
    try:
        assert child.call(None).stdout == shown_by_parent(INPUT, "no-child")
    finally:
        os.rename(child.path + ".away", child.path)


def test_full_backlog_makes_it_the_parent_at_once(child: FakeChild) -> None:
    waiting = []
    child.listener.listen(1)
    try:
        for _ in range(10):
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            waiting.append(one)
            try:
                one.connect(child.path)
            except BlockingIOError:
                break
        started = time.monotonic()
        assert child.call(None).stdout == shown_by_parent(INPUT, "busy")
        assert time.monotonic() - started < 1
    finally:
        for one in waiting:
            one.close()
        child.listener.listen()
        child.listener.setblocking(False)
        while True:
            try:
                child.listener.accept()[0].close()
            except BlockingIOError:
                break


def test_socket_of_another_user_is_told_nothing(child: FakeChild) -> None:
    os.rename(child.path, child.path + ".away")
    text = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.setuid(65534); s.listen()\n"
        "print('made', flush=True)\n"
        "print(s.accept()[0].recv(100), flush=True)\n"
    )
    try:
        with subprocess.Popen(
            [sys.executable, "-c", text, child.path], stdout=subprocess.PIPE
        ) as stranger:
            assert stranger.stdout is not None
            assert stranger.stdout.readline() == b"made\n"
            assert child.call(None).stdout == shown_by_parent(INPUT, "stranger")
            assert stranger.stdout.read() == b"b''\n"
    finally:
        os.rename(child.path + ".away", child.path)


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, LARGE])
def test_input_that_is_too_large_is_the_parents_as_a_whole(child: FakeChild, size: int) -> None:
    data = b"z" * size
    fits = size < 1 << 20

    def script(front: Connection) -> None:
        assert fits == (front.input == data)
        front.say(word(PARENT))

    if fits:
        assert child.call(script, data).stdout == shown_by_parent(data, "told")
    else:
        assert child.call(None, data).stdout == shown_by_parent(data, "input")


@pytest.mark.parametrize("first", [b"", b"first"])
def test_input_that_comes_slowly_is_the_parents_as_a_whole(child: FakeChild, first: bytes) -> None:
    with subprocess.Popen(
        [child.front], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"MARK": "mark"}
    ) as front:
        assert front.stdin is not None
        assert front.stdout is not None
        front.stdin.write(first)
        front.stdin.flush()
        time.sleep(0.8)
        front.stdin.write(b"second")
        front.stdin.close()
        assert front.stdout.read() == shown_by_parent(first + b"second", "input")


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0</dev/null"])
def test_streams_that_are_not_there_are_the_parents(child: FakeChild, closed: str) -> None:
    """What is opened next would have their numbers, so nothing is opened."""
    child.parent.rename(child.parent.with_suffix(".away"))
    child.parent.write_text('#!/bin/sh\necho "$1" > $0.shown\n')
    child.parent.chmod(0o755)
    try:
        subprocess.run(["sh", "-c", f"exec {child.front} {closed}"], stdin=subprocess.PIPE)
        assert Path(f"{child.parent}.shown").read_text() == "--front=streams\n"
    finally:
        child.parent.with_suffix(".away").rename(child.parent)


def test_parent_that_is_missing_is_an_error_on_standard_output(child: FakeChild) -> None:
    child.parent.rename(child.parent.with_suffix(".away"))
    try:
        ran = child.call(lambda front: front.say(word(PARENT)))
    finally:
        child.parent.with_suffix(".away").rename(child.parent)
    assert ran.returncode == 1
    assert b'"code": 199' in ran.stdout


# What was agreed for the case that no word comes


@pytest.mark.parametrize("policy", [BE_PARENT, LAST_WORDS])
@pytest.mark.parametrize("fate", ["lost", "late", "nonsense"])
def test_held_front_does_what_was_agreed(child: FakeChild, fate: str, policy: int) -> None:
    agreed = {"lost": policy} if fate == "lost" else {"late": policy}

    def script(front: Connection) -> None:
        front.say(word(HOLD, LAST, exit_code=1, wait_ms=300, **agreed))
        assert front.reply() == (0, 0, 0, b"")
        if fate == "nonsense":
            front.say(b"?" * 36)
        if fate != "lost":
            front.closed()

    ran = child.call(script)
    if policy == LAST_WORDS:
        assert (ran.returncode, ran.stdout) == (1, LAST)
    else:
        assert (ran.returncode, ran.stdout) == (0, shown_by_parent(INPUT, fate))


@pytest.mark.parametrize("policy", [BE_PARENT, LAST_WORDS])
def test_child_that_dies_while_a_program_runs_is_lost(child: FakeChild, policy: int) -> None:
    """The program runs to its end all the same: it may have begun to change something."""
    mark = child.parent.with_suffix(".mark")

    def script(front: Connection) -> None:
        front.say(word(HOLD, LAST, exit_code=1, lost=policy))
        front.reply()
        text = f"sleep 0.3; echo >{mark}".encode()
        front.say(word(RUN, program("/bin/sh", {"PATH": "/bin"}), lost=policy), text)

    ran = child.call(script)
    assert mark.exists()
    mark.unlink()
    expected = LAST if policy == LAST_WORDS else shown_by_parent(INPUT, "lost")
    assert ran.stdout == expected


# Whatever comes


def test_no_words_whatever_harm_the_front(child: FakeChild) -> None:
    """Words with changes in random places, always the same: a sanitizer would say what broke."""
    dice = random.Random(20251128)
    for number in range(FUZZ_INPUTS if child.kind == "sanitized" else FUZZ_INPUTS // 10):
        words, inputs = _mutated(dice)
        ran = child.call(_saying(words, inputs))
        told = f"input {number}: {words!r}, {ran!r}"
        assert ran.returncode >= 0, told
        assert b"Sanitizer" not in ran.stderr, told
        assert b"runtime error" not in ran.stderr, told


def _saying(words: bytes, inputs: int) -> Script:
    def script(front: Connection) -> None:
        with contextlib.suppress(OSError):
            front.say(words, *[b"exit 0"] * inputs)

    return script


def _mutated(dice: random.Random) -> tuple[bytes, int]:
    kinds = [dice.choice([ANSWER, BECOME, RUN, HOLD, SAY, PARENT]) for _ in range(3)]
    payloads = [b"", b"x" * dice.randrange(5000), program("/nonexistent/a", {"A": "1"}), b"\0" * 9]
    words = [word(kind, dice.choice(payloads), wait_ms=50) for kind in kinds]
    data = bytearray(b"".join(words))
    for _ in range(dice.randrange(6)):
        place = dice.randrange(len(data))
        data[place] = dice.choice([0, 1, 2, 4, 0x7F, 0x80, 0xFF, dice.randrange(256)])
    if dice.random() < 0.2:
        del data[dice.randrange(len(data)) :]
    return bytes(data), dice.choice([0, 0, 1, 1, 2])
