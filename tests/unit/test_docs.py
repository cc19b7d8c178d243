"""What README.md, CONTRIBUTING.md, CHANGELOG.md and docs/ say is there, and what is there is said.

Keys, labels, error classes, commands and `make` targets are compared with the code in both
directions where that is possible; links and JSON are tried. Whether a sentence is true only its
reader can tell.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

import click
import pytest

from ratchet import annotations as told
from ratchet import errors, labels
from ratchet.cni import errors as cni_errors
from ratchet.config import OURS, Config
from ratchet_child.agent.seen import CONDITION
from ratchet_child.service import BadRequestError
from ratchetctl.cli import cli

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TABLE_ROW = re.compile(r"^\| *(.*?) *(?<!\\)\|", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
JSON_BLOCK = re.compile(r"^( *)```json\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def read(path: str) -> str:
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def pages() -> list[str]:
    found = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md"]
    for folder, _, names in os.walk(os.path.join(ROOT, "docs")):
        found += [
            os.path.relpath(os.path.join(folder, name), ROOT)
            for name in names
            if name.endswith(".md")
        ]
    return sorted(found)


def first_cells(text: str) -> Iterator[str]:
    """What stands as code in the first column of the page's tables."""
    for cell in TABLE_ROW.findall(text):
        yield from CODE.findall(cell)


# Configuration


def test_configuration_reference_has_every_key_and_no_other() -> None:
    text = read("docs/configuration.md")
    keys = text[text.index("\n## Keys\n") : text.index("\n## In a list\n")]
    assert set(first_cells(keys)) == set(OURS)


def json_blocks() -> list[tuple[str, str]]:
    return [
        (page, block)
        for page in pages()
        for _, block in JSON_BLOCK.findall(read(page))
        if not page.startswith("docs/decisions")
    ]


@pytest.mark.parametrize(("page", "block"), json_blocks())
def test_json_can_be_read_and_network_configurations_are_right(page: str, block: str) -> None:
    found = json.loads(block)
    for plugin in found.get("plugins", [found]):
        if plugin.get("type") == "ratchet":
            Config.parse({"name": found["name"], **plugin})


# Labels


def test_every_label_is_described() -> None:
    fields = {*labels.POD_FIELDS, *labels.LINK_FIELDS}
    described = set(first_cells(read("docs/labels.md")))
    assert {"ratchet", *(f"{labels.PREFIX}{field}" for field in fields)} <= described


def test_every_label_that_is_described_exists() -> None:
    text = read("docs/labels.md")
    fields = text[text.index("\n## Fields\n") : text.index("\n## Rules\n")]
    known = {"ratchet", *(labels.PREFIX + field for field in labels.POD_FIELDS)}
    known |= {labels.PREFIX + field for field in labels.LINK_FIELDS}
    assert set(first_cells(fields)) == known


# Errors


def error_classes() -> dict[str, int]:
    found = {
        name: cls.code for name, cls in vars(errors).items() if _is_error(cls, errors.RatchetError)
    }
    return {
        **found,
        errors.DelegateError.__name__: cni_errors.DELEGATE_FAILED,
        BadRequestError.__name__: BadRequestError.code,
    }


def _is_error(cls: object, parent: type[BaseException]) -> bool:
    return isinstance(cls, type) and issubclass(cls, parent)


def error_rows() -> list[list[str]]:
    text = read("docs/operations.md")
    table = text[text.index("\n## Error codes\n") :]
    rows = (line.strip("|").split("|") for line in table.splitlines() if re.match(r"\| \d", line))
    return [[cell.strip() for cell in row] for row in rows]


def test_every_error_class_is_in_the_table_with_its_code() -> None:
    table = {row[1].strip("`"): int(row[0]) for row in error_rows() if row[1]}
    del table[cni_errors.CniError.__name__]  # has many codes, see the next test
    assert table == error_classes()


def test_every_code_of_the_specification_is_in_the_table() -> None:
    codes = {value for name, value in vars(cni_errors).items() if name.isupper()}
    assert codes <= {int(row[0]) for row in error_rows()}


# Events and conditions

REASON = re.compile(
    r'\b(?:Note|_false)\(\s*"([A-Z]\w+)"|Condition\("True", "(\w+)"|reason = "(\w+)"'
)
REASON_OR = re.compile(r'"([A-Z]\w+)" if [\w.]+ else "([A-Z]\w+)"')


def reasons(*modules: str) -> set[str]:
    """Return the reasons that modules of the agent write."""
    found: set[str] = set()
    for module in modules:
        text = read(f"ratchet_child/agent/{module}.py")
        for pattern in (REASON, REASON_OR):
            found.update(word for words in pattern.findall(text) for word in words if word)
    return found


def described(page: str, beginning: str, end: str) -> set[str]:
    text = read(page)
    text = text[text.index(beginning) :]
    return set(first_cells(text[: text.index(end)]))


def test_every_reason_of_an_event_is_on_the_page_of_troubles_and_no_other() -> None:
    page = described("docs/troubleshooting.md", "\n| Event |", "\nThe condition `ratchet/links`")
    assert page - {"FailedCreatePodSandBox"} == reasons("notes", "agent")


def test_every_reason_of_the_condition_is_on_the_page_of_troubles_and_no_other() -> None:
    page = described("docs/troubleshooting.md", "\n| reason | status |", "\nIf a pod with the gate")
    assert page == reasons("conditions")
    assert len(page) == 6  # as many as docs/agent.md names


# Commands


def commands_of(group: click.Group) -> dict[str, click.Command]:
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def commands(group: click.Group, prefix: str) -> Iterator[str]:
    for name, command in commands_of(group).items():
        if command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}"


def test_every_command_is_described_and_no_other() -> None:
    text = read("docs/simulator.md")
    table = text[text.index("| command |") :]
    described = set(first_cells(table[: table.index("\n\n")]))
    assert described == set(commands(cli, "ratchetctl"))


def test_every_option_that_is_mentioned_exists() -> None:
    known = {"--help", "--stay", "--config"}
    pending: list[click.Command] = [cli]
    while pending:
        command = pending.pop()
        known |= {one for option in command.params for one in option.opts if one.startswith("--")}
        if isinstance(command, click.Group):
            pending += commands_of(command).values()
    mentioned = set(re.findall(r"(?<![-\w])--[a-z][-a-z]+", read("docs/simulator.md")))
    assert mentioned <= known


def test_every_make_target_that_is_mentioned_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    for page in pages():
        mentioned = set(re.findall(r"(?:`|^ +(?:sudo )?)make ([a-z]+)", read(page), re.MULTILINE))
        assert mentioned <= targets, page


# Modules


def test_every_module_and_test_that_is_mentioned_exists() -> None:
    for page in pages():
        for path in CODE.findall(read(page)):
            # A pod's condition and annotations, which are called as paths are.
            if path in (CONDITION, *told.EVERY):
                continue
            if re.fullmatch(r"(ratchet|ratchet_child|ratchetctl|tests|packaging)/[\w/.]+", path):
                assert os.path.exists(os.path.join(ROOT, path)), f"{page}: {path}"


def test_every_test_that_the_threat_model_names_exists_and_tests() -> None:
    named = named_tests(read("docs/threat-model.md"))
    assert len(named) > 50
    for one in named:
        file, _, name = one.partition("::")
        path = file if "/" in file else f"tests/integration/{file}"
        pattern = rf"^def {name}\(" if name else r"^def test_"
        assert re.search(pattern, read(path), re.MULTILINE), one


def test_the_threat_model_names_a_test_of_every_file_that_it_names() -> None:
    """A sentence names a file; the table at the end names the test in it that asserts it."""
    text, _, table = read("docs/threat-model.md").partition("## Which test holds what")
    single = {one.partition("::")[0] for one in named_tests(table) if "::" in one}
    assert named_tests(text) <= single


def named_tests(text: str) -> set[str]:
    """Return the files and the single tests that a page names."""
    return {one for one in CODE.findall(text) if re.fullmatch(r"[\w/]*test_\w+\.py(::\w+)?", one)}


def test_every_room_of_the_child_is_described() -> None:
    rooms = {
        entry.name
        for entry in os.scandir(os.path.join(ROOT, "ratchet_child"))
        if os.path.exists(os.path.join(entry.path, "__init__.py"))
    }
    for page in ("CONTRIBUTING.md", "docs/architecture.md"):
        described = set(first_cells(read(page)))
        assert {f"ratchet_child/{room}/" for room in rooms} <= described, page
    picture = read("docs/pictures/rooms.svg")
    assert all(re.search(rf">{room}/?<", picture) for room in rooms)


def test_every_module_of_the_parent_is_in_the_picture() -> None:
    picture = read("docs/pictures/rooms.svg")
    modules = {
        entry.name.removesuffix(".py")
        for entry in os.scandir(os.path.join(ROOT, "ratchet"))
        if not entry.name.startswith("__")
    }
    assert {one for one in modules if not re.search(rf">{one}/?<", picture)} == set()


def test_every_function_of_the_child_that_the_architecture_names_exists() -> None:
    """What is written as `Class.method`, and as `function` beside a module, is there."""
    text = read("docs/architecture.md")
    sources = "".join(
        read(os.path.join(folder, name))
        for package in ("ratchet", "ratchet_child")
        for folder, _, names in os.walk(os.path.join(ROOT, package))
        for name in names
        if name.endswith(".py")
    )
    named = [one for one in CODE.findall(text) if re.fullmatch(r"[A-Za-z]\w*\.[a-z_]+", one)]
    assert named
    for one in named:
        owner, _, name = one.partition(".")
        if not one.endswith((".py", ".svg")):
            assert re.search(rf"\b(def|class) {name}\b|\b{name}:|self\.{name} =", sources), one
            assert re.search(rf"\b{owner}\b", sources), one


# Glossary


def test_glossary_explains_each_word_once_in_alphabetical_order() -> None:
    parts = read("docs/glossary.md").split("\n## ")[1:]
    words = [re.findall(r"^\| ([a-z0-9VN].*?) \|", part, re.MULTILINE)[1:] for part in parts]
    assert all(words)
    for part in words:
        assert part == sorted(part, key=str.lower)
    every = [word for part in words for word in part]
    assert len(every) == len(set(every))


# Links


def anchors(text: str) -> set[str]:
    """The names that the headings of a page have, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", pages())
def test_every_relative_link_resolves(page: str) -> None:
    for target in LINK.findall(read(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        where = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        assert os.path.exists(os.path.join(ROOT, where)), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(read(where)), f"{page}: {target}"


def test_readme_names_every_page() -> None:
    text = read("README.md")
    for page in pages():
        if page.startswith("docs/") and not page.startswith("docs/decisions/0"):
            assert page.removesuffix("/README.md") in text, page


@pytest.mark.parametrize("page", pages())
def test_pages_speak_of_nothing_outside_the_repository(page: str) -> None:
    # ratchet_child/work/ is one of ours.
    for word in (r"(?<!\w)/work/", r"pypi\.org", r"files\.pythonhosted"):
        assert not re.search(word, read(page)), page
