"""The stand-in for dataclasses does what the standard library's would."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.cni.dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Ours:
    a: int
    b: str = "b"
    c: list[int] = field(default_factory=list)

    @property
    def both(self) -> str:
        return f"{self.a}{self.b}"


@dataclasses.dataclass(frozen=True, slots=True)
class Theirs:
    a: int
    b: str = "b"
    c: list[int] = dataclasses.field(default_factory=list)


Values = tuple[int, str, list[int]]
values = st.tuples(st.integers(), st.text(), st.lists(st.integers()))


@given(one=values, other=values)
def test_equality_and_text_are_those_of_dataclasses(one: Values, other: Values) -> None:
    assert (Ours(*one) == Ours(*other)) == (Theirs(*one) == Theirs(*other))
    assert repr(Ours(*one)).partition("(")[2] == repr(Theirs(*one)).partition("(")[2]
    theirs: object = Theirs(*one)
    assert Ours(*one) != theirs


def test_instances_of_equal_values_are_one_key() -> None:
    nothing: Any = ()
    assert hash(Ours(1, c=nothing)) == hash(Ours(a=1, b="b", c=nothing))
    assert len({Ours(1, c=nothing), Ours(1, c=nothing)}) == 1


def test_a_default_is_made_anew_for_each_instance() -> None:
    Ours(1).c.append(2)
    assert Ours(1).c == []


def test_a_copy_has_the_other_values() -> None:
    assert replace(Ours(1, "x"), a=2) == Ours(2, "x")
    assert copy.deepcopy(Ours(1)) == pickle.loads(pickle.dumps(Ours(1))) == Ours(1)
    assert Ours(1, "x").both == "1x"


@pytest.mark.parametrize(
    ("args", "keywords"),
    [((), {}), ((1, "b", [], 4), {}), ((1,), {"a": 1}), ((1,), {"d": 1})],
    ids=["missing", "too many", "twice", "unknown"],
)
def test_wrong_values_are_refused(args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Ours(*args, **keywords)
    with pytest.raises(TypeError):
        Theirs(*args, **keywords)


@pytest.mark.parametrize("change", ["a", "both", "new"])
def test_instances_cannot_be_changed(change: str) -> None:
    one = Ours(1)
    with pytest.raises(AttributeError):
        setattr(one, change, 2)
    with pytest.raises(AttributeError):
        delattr(one, change)


@dataclass(slots=True)
class Changing:
    kind: ClassVar[str] = "one of many"

    a: int
    b: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Nothing:
    pass


def test_what_may_be_changed_is_compared_but_no_key() -> None:
    one, other = Changing(1), Changing(2)
    assert one != other
    other.a = 1
    assert one == other
    with pytest.raises(TypeError):
        hash(one)
    with pytest.raises(AttributeError):
        setattr(one, "c", 1)  # noqa: B010 - no such field, as mypy knows


def test_a_field_that_is_not_compared_has_its_default() -> None:
    assert Changing(1).b is None
    assert Changing(1, "x") == Changing(1, "y")
    assert Changing(1, "x").b == "x"


def test_what_is_of_the_class_is_no_field() -> None:
    assert Changing(1).kind == Changing.kind == "one of many"
    assert repr(Changing(1)) == "Changing(a=1, b=None)"


def test_instances_without_fields_are_equal() -> None:
    assert Nothing() == Nothing()
    assert len({Nothing(), Nothing()}) == 1
    assert replace(Nothing()) == Nothing()


@dataclass(frozen=True, slots=True)
class Secret:
    user: str
    token: str | None = field(repr=False, default=None)


def test_a_field_that_is_not_shown_is_compared() -> None:
    assert repr(Secret("u", "t")) == "Secret(user='u')"
    assert Secret("u", "t") != Secret("u", "s")


class WithMore:
    a: int

    def __post_init__(self) -> None:
        pass


class WithItsOwnOrder:  # noqa: PLW1641 - the standard library would give it one
    a: int

    def __eq__(self, other: object) -> bool:
        return True


class WithInitVar:
    a: dataclasses.InitVar[int]


class WithSharedDefault:
    a: list[int] = []  # noqa: RUF012 - that is what is refused


@pytest.mark.parametrize("cls", [WithMore, WithItsOwnOrder, WithInitVar, WithSharedDefault])
def test_what_only_the_standard_library_does_is_refused(cls: type) -> None:
    with pytest.raises(TypeError, match=cls.__qualname__):
        dataclass(frozen=True, slots=True)(cls)


def test_some_classes_are_for_the_standard_library_alone() -> None:
    with pytest.raises(TypeError, match="slots"):
        dataclass(frozen=True, slots=False)
    with pytest.raises(TypeError, match="inherits"):

        @dataclass(frozen=True, slots=True)
        class Heir(Ours):
            d: int = 0
