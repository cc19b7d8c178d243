"""What this project uses of ``dataclasses``, without what it costs to import.

``dataclasses`` brings ``inspect`` and ``re`` with it: 10 ms of CPU in the frozen program for every
eligible pod, four times what a loopback plugin takes as a whole. This stands in for it where the
parent passes: classes are frozen and have slots, instances compare and hash by their values. For
type checkers it is the standard library's own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
else:

    class _Field:
        """A default that is made anew for each instance."""

        __slots__ = ("default_factory",)

        def __init__(self, default_factory):
            self.default_factory = default_factory

    class _Frozen:
        """What all such classes have in common."""

        __slots__ = ()

        def __init__(self, *args, **values):
            cls = type(self)
            names = cls.__slots__
            if len(args) > len(names) or any(name in values for name in names[: len(args)]):
                raise TypeError(f"{cls.__qualname__}: {len(args)} values, and {list(values)}")
            values.update(zip(names, args, strict=False))
            for name in names:
                if name in values:
                    value = values.pop(name)
                elif name in cls._defaults:
                    value = cls._defaults[name]
                    if type(value) is _Field:
                        value = value.default_factory()
                else:
                    raise TypeError(f"{cls.__qualname__} needs a value for {name}")
                object.__setattr__(self, name, value)
            if values:
                raise TypeError(f"{cls.__qualname__} has no field {', '.join(values)}")

        def _values(self):
            return tuple(getattr(self, name) for name in type(self).__slots__)

        def __eq__(self, other):
            if other is self:  # the child compares hundreds of records with themselves
                return True
            if other.__class__ is not self.__class__:
                return NotImplemented
            return self._values() == other._values()

        def __hash__(self):
            return hash(self._values())

        def __repr__(self):
            shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in type(self).__slots__)
            return f"{type(self).__qualname__}({shown})"

        def __setattr__(self, name, value):
            raise AttributeError(f"{type(self).__qualname__}.{name} cannot be set to {value!r}")

        def __delattr__(self, name):
            raise AttributeError(f"{type(self).__qualname__}.{name} cannot be deleted")

        def __reduce__(self):
            return type(self), self._values()

    def field(*, default_factory):
        """Have a field's default made anew for each instance."""
        return _Field(default_factory)

    def dataclass(*, frozen, slots):
        """Make a class of the annotated fields: frozen, with slots, and in no other way."""
        if not (frozen and slots):
            raise TypeError("only for frozen classes with slots")
        return _made

    def replace(instance, **changes):
        """Return a copy with other values in some fields."""
        values = {name: getattr(instance, name) for name in type(instance).__slots__}
        return type(instance)(**{**values, **changes})

    def _made(cls):
        names = tuple(cls.__annotations__)
        own = vars(cls)
        namespace = {
            name: value
            for name, value in own.items()
            if name not in names and name not in ("__dict__", "__weakref__")
        }
        namespace["__slots__"] = namespace["__match_args__"] = names
        namespace["_defaults"] = {name: own[name] for name in names if name in own}
        return type(cls.__name__, (_Frozen,), namespace)


__all__ = ["dataclass", "field", "replace"]
