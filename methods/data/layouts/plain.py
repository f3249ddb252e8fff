"""A layout's plain dict -> its facts: joints by index or by name, every fault with its place in the dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from methods.errors import InputError, did_you_mean

MOST_JOINTS = 512  # a graph holds V x V numbers; a layout beyond this is a mistake
REQUIRED = ("name", "joints", "parents")
KEYS = (*REQUIRED, "centre", "mirror", "shoulders", "spine", "parts")

Where = tuple[str | int, ...]  # ("parents", 3): a key of the dict and the place below it; () for the dict itself
KEY = ""  # the last step of a Where whose fault is the key that it leads to, not the value
Found = tuple[Where, str]


class LayoutError(InputError):
    """Everything that is wrong with one layout; ``found`` pairs each fault with where in the dict it lies."""

    def __init__(self, *found: Found) -> None:
        self.found = found
        super().__init__(*(fault for _, fault in found))

    def __reduce__(self) -> tuple[type[LayoutError], tuple[Found, ...]]:
        return LayoutError, self.found  # the default would hand the joined text to __init__


def read_layout(data: Mapping[str, object]) -> tuple[dict[str, Any], list[Found]]:
    """Return the facts that ``data`` gives, joints as indices, and the faults; a fact with a fault is left out.

    A None for ``shoulders`` or ``spine`` is a fact (there are none), for anything else it means: not given.
    """
    found: list[Found] = [
        ((key, KEY), f"layout: unknown key '{key}'{did_you_mean(str(key), KEYS)}") for key in data if key not in KEYS
    ]
    found += [((), f"layout: key '{key}' is missing") for key in REQUIRED if data.get(key) is None]
    given: dict[str, Any] = {}
    name, joints = data.get("name"), data.get("joints")
    if isinstance(name, str):
        given["name"] = name
    elif name is not None:
        found.append((("name",), f"layout: 'name' must be a text, got {name!r}"))
    if joints is not None and _are_names(joints, found):
        given["joints"] = tuple(joints)  # type: ignore[arg-type]  # a sequence of texts, as just seen
        given |= _references(data, given["joints"], found)
    return given, found


def _are_names(joints: object, found: list[Found]) -> bool:
    if not isinstance(joints, Sequence) or isinstance(joints, str):
        found.append((("joints",), f"layout: 'joints' must be a list of joint names, got {joints!r}"))
        return False
    if len(joints) > MOST_JOINTS:
        found.append((("joints",), f"layout: {len(joints)} joints; there may be at most {MOST_JOINTS}"))
        return False
    wrong = [index for index, joint in enumerate(joints) if not isinstance(joint, str)]
    found += [
        (("joints", index), f"layout: a joint's name is a text (in quotes if need be), got {joints[index]!r}")
        for index in wrong
    ]
    return not wrong


def _references(data: Mapping[str, object], joints: Sequence[str], found: list[Found]) -> dict[str, Any]:
    """Everything that names joints, from ``parents`` to ``parts``."""
    given: dict[str, Any] = {}
    for key in KEYS[2:]:
        value = data.get(key)
        if value is None and not (key in ("shoulders", "spine") and key in data):
            continue
        before = len(found)
        read: Any = value
        if key == "parents" and isinstance(value, Mapping):
            read = _parents_by_joint(value, joints, found)
        elif key == "parts":
            read = _parts(value, joints, found)
        elif key == "centre":
            read = _index(value, joints, (key,), found)
        elif value is not None:
            read = _indices(value, joints, (key,), found)
            if len(read) != 2 and key in ("shoulders", "spine") and len(found) == before:
                found.append(((key,), f"layout: '{key}' must be two joints, got {value!r}"))
        if len(found) == before:
            given[key] = read
    return given


def _index(value: object, joints: Sequence[str], where: Where, found: list[Found]) -> int:
    if isinstance(value, str) and value in joints:
        return joints.index(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value  # whether it is in range is the layout's own question
    what = (
        f"no joint '{value}'{did_you_mean(value, joints)}"
        if isinstance(value, str)
        else f"{value!r} is neither a joint's index nor its name"
    )
    found.append((where, f"layout: {where[0]}: {what}"))
    return -1


def _indices(value: object, joints: Sequence[str], where: Where, found: list[Found]) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        found.append((where, f"layout: '{where[0]}' must be a list of joints, got {value!r}"))
        return ()
    if len(value) > len(joints):
        found.append((where, f"layout: {where[0]}: {len(value)} entries for {len(joints)} joints"))
        return ()
    return tuple(
        -1 if item is None and where == ("parents",) else _index(item, joints, (*where, index), found)
        for index, item in enumerate(value)
    )


def _parents_by_joint(value: Mapping[str, object], joints: Sequence[str], found: list[Found]) -> tuple[int, ...]:
    """Joint -> parent; who is not mentioned is a root."""
    found += [
        (("parents", key, KEY), f"layout: parents: no joint '{key}'{did_you_mean(str(key), joints)}")
        for key in value
        if key not in joints
    ]
    return tuple(
        -1 if value.get(joint) is None else _index(value[joint], joints, ("parents", joint), found) for joint in joints
    )


def _parts(value: object, joints: Sequence[str], found: list[Found]) -> dict[str, tuple[int, ...]]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        found.append((("parts",), f"layout: 'parts' must map names to lists of joints, got {value!r}"))
        return {}
    return {key: _indices(group, joints, ("parts", key), found) for key, group in value.items()}
