"""The types that a config's fields are annotated with, as far as YAML can fill them."""

from __future__ import annotations

import types
import typing
from typing import Any, TypeAlias

from methods.errors import InputError
from tuning.space.domains import value_text

Hint: TypeAlias = Any  # float, int, bool, str, None, tuple[X, ...], unions of these, or Any

_NAMES = {float: "a number", int: "a whole number", bool: "true or false", str: "a word", type(None): "null"}


def hints_of(config: type[Any]) -> dict[str, Hint]:
    """Field -> its real type; ``Any`` where a stranger's annotation cannot be read."""
    try:
        return typing.get_type_hints(config)
    except (NameError, TypeError, AttributeError):
        return dict.fromkeys(config.__annotations__, Any)


def _origin(hint: Hint) -> object:
    return typing.get_origin(hint)


def members(hint: Hint) -> tuple[Hint, ...]:
    """The members of a union, or the type alone."""
    if _origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def takes(hint: Hint, kind: type[Any]) -> bool:
    """Whether ``hint`` allows a bare ``kind`` (``tuple``: any tuple)."""
    found = members(hint)
    return Any in found or any(m is kind or (kind is tuple and _origin(m) is tuple) for m in found)


def wanted(hint: Hint) -> str:
    """The type in words."""
    return " or ".join(
        dict.fromkeys(
            f"a list of {_plural(m)}" if _origin(m) is tuple else _NAMES.get(m, "a value") for m in members(hint)
        )
    )


def _plural(hint: Hint) -> str:
    inner = typing.get_args(hint)
    plurals = {float: "numbers", int: "whole numbers", str: "words", bool: "truth values"}
    return plurals.get(inner[0], "values") if inner else "values"


def coerce(value: Any, hint: Hint) -> Any:
    """``value`` as the field wants it: an int becomes a float where only floats go. Raises ``InputError``."""
    for member in members(hint):
        fitted = _fit(value, member)
        if fitted is not _MISFIT:
            return fitted
    raise InputError(f"must be {wanted(hint)}, got {_shown(value)}")


_MISFIT = object()


def _fit(value: Any, member: Hint) -> Any:
    if member is type(None) and value is None:
        return value
    if member is Any:  # a stranger's unreadable annotation: still no mappings, which nothing could draw
        return _MISFIT if _holds_mapping(value) else value
    if _origin(member) is tuple:
        return _fit_tuple(value, typing.get_args(member))
    if member is float and type(value) in (int, float):
        return float(value)
    return value if member in (int, str, bool) and type(value) is member else _MISFIT


def _holds_mapping(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, tuple) and any(map(_holds_mapping, value)))


def _fit_tuple(value: Any, inner: tuple[Hint, ...]) -> Any:
    if not isinstance(value, tuple):
        return _MISFIT
    wants = (inner[0],) * len(value) if len(inner) == 2 and inner[1] is Ellipsis else inner
    if len(wants) != len(value):
        return _MISFIT
    fitted = tuple(_fit(v, w) for v, w in zip(value, wants, strict=True))
    return _MISFIT if any(f is _MISFIT for f in fitted) else fitted


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    # 512.0 is shown as it is written: that it is no whole number is the point
    text = f"'{value}'" if isinstance(value, str) else repr(value) if isinstance(value, float) else value_text(value)
    return text if len(text) <= 60 else text[:57] + "..."
