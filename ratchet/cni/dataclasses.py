"""What this project uses of the standard library's ``dataclasses``, without what that costs.

The standard library writes the source of six methods for each class and compiles it whenever a
program starts: a third of the time in which a child is imported. It brings ``inspect`` and ``re``
with it, which costs a parent four times the processor time of a loopback plugin. Here classes
share their methods, which find the fields in tables, and instances are made, compared and hashed in
about the same time. For type checkers it is the standard library's own.

Classes have slots, and inherit from no other class. What the standard library does besides is
refused. The standard library's `replace` does not know these classes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
else:
    from _operator import attrgetter

    _NONE = object()

    class _Field:
        """What is to be known of a field besides a plain default."""

        __slots__ = ("compare", "default", "default_factory", "repr")

        def __init__(self, default, default_factory, compare, repr):  # noqa: A002 - as theirs
            self.default = default
            self.default_factory = default_factory
            self.compare = compare
            self.repr = repr

    class _Slotted:
        """What all such classes have in common."""

        __slots__ = ()
        __hash__ = None  # of what may change

        def __init__(self, *args, **values):
            table = self._table
            if len(args) == len(table) and not values:
                for (_, put, _, _), value in zip(table, args, strict=True):
                    put(self, value)
                return
            given = iter(args)
            for name, put, default, factory in table:
                value = next(given, _NONE)
                if value is not _NONE:
                    if name in values:
                        raise TypeError(f"{type(self).__qualname__} is given {name} twice")
                elif name in values:
                    value = values.pop(name)
                elif factory is not None:
                    value = factory()
                elif default is not _NONE:
                    value = default
                else:
                    raise TypeError(f"{type(self).__qualname__} needs a value for {name}")
                put(self, value)
            if values:
                raise TypeError(f"{type(self).__qualname__} has no field {', '.join(values)}")
            if next(given, _NONE) is not _NONE:
                raise TypeError(f"{type(self).__qualname__} has only {len(table)} fields")

        def __eq__(self, other):
            if other is self:  # the child compares hundreds of records with themselves
                return True
            if other.__class__ is not self.__class__:
                return NotImplemented
            compared = self._compared
            return compared(self) == compared(other)

        def __repr__(self):
            shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)
            return f"{type(self).__qualname__}({shown})"

        def __reduce__(self):
            return type(self), tuple(getattr(self, row[0]) for row in self._table)

    class _Frozen(_Slotted):
        __slots__ = ()

        def __hash__(self):
            return hash(self._compared(self))

        def __setattr__(self, name, value):
            raise AttributeError(f"{type(self).__qualname__}.{name} cannot be set to {value!r}")

        def __delattr__(self, name):
            raise AttributeError(f"{type(self).__qualname__}.{name} cannot be deleted")

    def field(*, default=_NONE, default_factory=None, compare=True, repr=True):  # noqa: A002
        """Have a default made anew for each instance, or a field not compared or not shown."""
        return _Field(default, default_factory, compare, repr)

    def dataclass(*, slots, frozen=False):
        """Make a class of the annotated fields, with slots. *Raises* TypeError without them."""
        if not slots:
            raise TypeError("only for classes with slots")
        return _made_frozen if frozen else _made

    def replace(instance, **changes):
        """Return a copy with other values in some fields."""
        for name in type(instance).__slots__:
            if name not in changes:
                changes[name] = getattr(instance, name)
        return type(instance)(**changes)

    def _made_frozen(cls):
        return _made(cls, _Frozen)

    def _made(cls, base=_Slotted):
        own = dict(vars(cls))
        _refuse_more(cls, own)
        names = tuple(
            name for name, kind in cls.__annotations__.items() if not kind.startswith("ClassVar[")
        )
        fields = {name: own.pop(name, _NONE) for name in names}
        del own["__dict__"], own["__weakref__"]
        own["__qualname__"] = cls.__qualname__
        own["__slots__"] = own["__match_args__"] = names
        made = type(cls.__name__, (base,), own)
        table, compared, shown = [], [], []
        for name, default in fields.items():
            found = default if type(default) is _Field else _Field(default, None, True, True)
            if type(found.default) in (list, dict, set):
                raise TypeError(f"{cls.__qualname__}.{name} would be shared: use default_factory")
            put = getattr(made, name).__set__
            table.append((name, put, found.default, found.default_factory))
            if found.compare:
                compared.append(name)
            if found.repr:
                shown.append(name)
        values = attrgetter(*compared) if compared else staticmethod(lambda _: ())
        for name, value in (("_table", tuple(table)), ("_compared", values), ("_shown", shown)):
            setattr(made, name, value)
        return made

    def _refuse_more(cls, own):
        """Refuse what the standard library's classes can and these cannot. *Raises* TypeError."""
        if cls.__bases__ != (object,):
            raise TypeError(f"{cls.__qualname__} inherits, which only the standard library's can")
        for name in ("__post_init__", "__eq__", "__hash__"):
            if name in own:
                raise TypeError(
                    f"{cls.__qualname__} has {name}, as only the standard library's can"
                )
        for name, kind in cls.__annotations__.items():
            if "InitVar" in kind or ("ClassVar" in kind and not kind.startswith("ClassVar[")):
                raise TypeError(f"{cls.__qualname__}.{name}: {kind} is not understood")


__all__ = ["dataclass", "field", "replace"]
