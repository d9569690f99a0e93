"""ARM template functions that depend on their arguments only.

Follows https://learn.microsoft.com/azure/azure-resource-manager/templates/template-functions for the functions that
this project's templates use. What only Azure can answer comes out as `Runtime`, a text that stands in for it.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from local.arm.expressions import ArmError


class Runtime(str):
    """Stands for what Azure alone knows of a resource: its text names the resource's id and the property."""

    resource: str
    path: tuple[str, ...]

    def __new__(cls, resource: str, path: tuple[str, ...] = ()) -> Runtime:
        """`path` leads from the resource's properties to the value."""
        text = super().__new__(cls, f"<{resource}>{''.join(f'.{key}' for key in path)}")
        text.resource, text.path = resource, path
        return text


@dataclass(frozen=True, slots=True)
class Function:
    """How many arguments a function takes (`most` None: any number), and what it gives."""

    least: int
    most: int | None
    call: Callable[..., Any]


def unique_string(*parts: str) -> str:
    """13 characters that depend on the arguments alone, as Azure's do; the characters themselves are others."""
    digest = hashlib.sha256("\n".join(parts).encode()).digest()
    return base64.b32encode(digest).decode("ascii").lower()[:13]


def same_key(mapping: Mapping[str, Any], name: Any) -> str | None:
    """The key that ARM takes for `name`: it ignores case."""
    return next((key for key in mapping if isinstance(name, str) and key.lower() == name.lower()), None)


def _concat(*parts: Any) -> Any:
    """Strings and numbers to one string, or arrays to one array."""
    if all(isinstance(part, list) for part in parts):
        return [item for part in parts for item in part]
    if any(isinstance(part, list | dict | bool) or part is None for part in parts):
        raise ArmError("takes either strings and numbers, or arrays")
    return "".join(map(str, parts))


def _sliced(value: Any, start: int, end: int | None) -> Any:
    if not isinstance(value, str | list):
        raise ArmError("takes a string or an array")
    return value[start:end]


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ArmError(f"takes a string, not {value!r}")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ArmError(f"takes true or false, not {value!r}")
    return value


def _object(*parts: Any) -> dict[str, Any]:
    if len(parts) % 2:
        raise ArmError("takes keys and values in pairs")
    return {_text(key): value for key, value in zip(parts[::2], parts[1::2], strict=True)}


def _subnet(prefix: str, length: int, index: int) -> str:
    try:
        networks = list(ipaddress.ip_network(prefix).subnets(new_prefix=length))
        return str(networks[index])
    except (ValueError, IndexError) as error:
        raise ArmError(f"finds no subnet {index} of /{length} in {prefix}") from error


def _equal(left: Any, right: Any) -> bool:
    """Strings are compared with regard to case."""
    return type(left) is type(right) and bool(left == right)


FUNCTIONS: Mapping[str, Function] = {
    "and": Function(2, None, lambda *values: all(_truth(value) for value in values)),
    "cidrsubnet": Function(3, 3, _subnet),
    "concat": Function(1, None, _concat),
    "createarray": Function(0, None, lambda *items: list(items)),
    "createobject": Function(0, None, _object),
    "empty": Function(1, 1, _empty),
    "equals": Function(2, 2, _equal),
    "guid": Function(1, None, lambda *parts: str(uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(map(_text, parts))))),
    "join": Function(2, 2, lambda items, mark: _text(mark).join(items)),
    "length": Function(1, 1, len),
    "not": Function(1, 1, lambda value: not _truth(value)),
    "null": Function(0, 0, lambda: None),
    "or": Function(2, None, lambda *values: any(_truth(value) for value in values)),
    "replace": Function(3, 3, lambda text, old, new: _text(text).replace(old, new)),
    "skip": Function(2, 2, lambda value, count: _sliced(value, count, None)),
    "take": Function(2, 2, lambda value, count: _sliced(value, 0, count)),
    "tolower": Function(1, 1, lambda text: _text(text).lower()),
    "true": Function(0, 0, lambda: True),
    "uniquestring": Function(1, None, lambda *parts: unique_string(*map(_text, parts))),
}
"""Name in lower case → function. Their `ArmError` begins with a verb; who calls puts place and name before it."""


def access(target: Any, key: Any) -> Any:
    """`target.key` or `target[key]`. Raises KeyError where there is none."""
    if isinstance(target, Runtime):
        return Runtime(target.resource, (*target.path, str(key)))
    if isinstance(target, list) and isinstance(key, int) and 0 <= key < len(target):
        return target[key]
    if isinstance(target, dict) and (found := same_key(target, key)) is not None:
        return target[found]
    raise KeyError(key)


def provider_path(parts: tuple[Any, ...], at: int) -> str:
    """`provider/kind/name/…` from the type at `at` and the names after it."""
    if not all(isinstance(part, str) for part in parts):
        raise ArmError("takes strings only")
    if at >= len(parts) or "/" not in parts[at]:
        raise ArmError("names no resource type")
    provider, *kinds = parts[at].split("/")
    names = parts[at + 1 :]
    if len(kinds) != len(names):
        raise ArmError(f"needs {len(kinds)} names for {parts[at]}, not {len(names)}")
    return "/".join((provider, *(f"{kind}/{name}" for kind, name in zip(kinds, names, strict=True))))


def is_type(part: Any) -> bool:
    """Whether an argument of resourceId() is the resource's type, and no subscription or group before it."""
    return isinstance(part, str) and "/" in part
