"""Reading `routes.yml`: each mistake is reported with its line, its key and what was meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from typing import TypeVar

import yaml

from functions.core.routes import (
    KEY_FIELDS,
    LARGEST_BUDGET,
    MOST_BYTES,
    Budget,
    Hold,
    Route,
    Settle,
    Where,
    default_event_type,
    template_fields,
)
from functions.core.values import compact_json

T = TypeVar("T")

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_WORKFLOW = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.ya?ml")
_REF = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_./+@#-]{0,243}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/(?!\.\.?$)[A-Za-z0-9._-]{1,100}")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SIZE = re.compile(r"([0-9]{1,15}) *(B|KB|MB)?", re.IGNORECASE | re.ASCII)
_POSITIVE = re.compile(r"0*[1-9][0-9]{0,14}")
_SIZES = {"": 1, "B": 1, "KB": 1024, "MB": 1024**2}
_LONGEST_WAIT = timedelta(days=7)  # a storage queue message, which is the alarm, waits no longer
_LONGEST_DISPATCH_TYPE = 100  # GitHub's limit
_LONGEST_PART = 100  # characters in ASCII JSON of what a window keeps of its route: a blob's metadata holds 8 KB


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One mistake of a routes file; `line` counts from 1."""

    line: int
    message: str


class RoutesError(ValueError):
    """The routes file cannot be used. `mistakes` holds all that is wrong, not only the first."""

    def __init__(self, name: str, mistakes: Iterable[Mistake]) -> None:
        """`name` is the file's name as the user knows it."""
        self.mistakes = sorted(mistakes)
        super().__init__("\n".join(f"{name}:{mistake.line}: {mistake.message}" for mistake in self.mistakes))


def load_routes(document: str | bytes, name: str = "routes.yml") -> tuple[Route, ...]:
    """Read a routes file: its text, or its bytes in UTF-8. Raises RoutesError that lists every mistake."""
    try:
        text = document if isinstance(document, str) else document.decode("utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise RoutesError(name, [Mistake(line, "not UTF-8: save the file in that encoding")]) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise RoutesError(name, [Mistake(mark.line + 1 if mark else 1, f"not YAML: {error.problem}")]) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise RoutesError(name, [Mistake(1, f"not YAML: {error}")]) from error
    reader = _Reader()
    if root is None:
        reader.wrong(1, "the file is empty; it needs a list under 'routes'")
        routes: list[Route] = []
    else:
        routes = reader.file(root)
    if reader.mistakes:
        raise RoutesError(name, reader.mistakes)
    return tuple(routes)


_WRONG_SETTLE: Settle | None = Settle(quiet=timedelta(), max_wait=timedelta())
"""Stands in for a settle that was reported, so that nothing else is reported because of it."""


class _Fields:
    """The keys of one YAML mapping, taken out one by one; what is left over at the end was not known."""

    def __init__(self, reader: _Reader, node: yaml.Node, what: str) -> None:
        self.reader, self.what, self.line = reader, what, _line(node)
        self.values: dict[str, tuple[int, yaml.Node]] = {}
        self.known: list[str] = []
        if not isinstance(node, yaml.MappingNode):
            reader.wrong(self.line, f"{what} must be a mapping of keys, such as 'name: …'")
            return
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                reader.wrong(
                    _line(key_node),
                    f"unknown key in {what}: a list or mapping; braces in a value need quotes around it",
                )
                continue
            key = str(key_node.value)
            if key in self.values:
                reader.wrong(_line(key_node), f"'{key}' stands twice in {what}")
            self.values[key] = (_line(key_node), value)

    def take(self, key: str, read: Callable[[yaml.Node, str], T], default: T) -> T:
        self.known.append(key)
        if key not in self.values:
            return default
        line, node = self.values.pop(key)
        try:
            return read(node, key)
        except ValueError as error:
            self.reader.wrong(line, str(error))
            return default

    def need(self, key: str, read: Callable[[yaml.Node, str], T], placeholder: T) -> T:
        if key not in self.values:
            self.known.append(key)
            self.reader.wrong(self.line, f"{self.what} needs '{key}'")
            return placeholder
        return self.take(key, read, placeholder)

    def done(self) -> None:
        for key, (line, _) in self.values.items():
            meant = get_close_matches(key, self.known, n=1)
            mend = f"did you mean '{meant[0]}'?" if meant else f"known keys: {', '.join(sorted(self.known))}"
            self.reader.wrong(line, f"unknown key '{key}' in {self.what}; {mend}")


class _Reader:
    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []

    def wrong(self, line: int, message: str) -> None:
        self.mistakes.append(Mistake(line, message))

    def file(self, root: yaml.Node) -> list[Route]:
        fields = _Fields(self, root, "the file")
        nodes: list[yaml.Node] = fields.need("routes", _sequence, [])
        fields.done()
        routes = [self.route(node) for node in nodes]
        seen: set[str] = set()
        for node, route in zip(nodes, routes, strict=True):
            if route.name in seen:
                self.wrong(_line(node), f"two routes are named '{route.name}'; names must differ")
            seen.add(route.name)
        return routes

    def route(self, node: yaml.Node) -> Route:
        fields = _Fields(self, node, "a route")
        name = fields.need("name", _route_name, "")
        fields.what = f"route '{name}'" if name else "a route"
        on: tuple[str, ...] = fields.need("on", _texts, ())
        default = default_event_type(on[0]) if len(on) == 1 else ""
        if len(on) > 1 and "dispatch" not in fields.values:
            self.wrong(fields.line, f"{fields.what} listens to several types and so needs 'dispatch'")
        if len(default) > _LONGEST_DISPATCH_TYPE and "dispatch" not in fields.values:
            self.wrong(fields.line, f"{fields.what} needs a shorter 'dispatch': GitHub allows {_LONGEST_DISPATCH_TYPE}")
        settle = fields.need("settle", self.settle, _WRONG_SETTLE)
        hold = fields.take("hold", self.hold, None)
        if hold is not None and settle is None:
            self.wrong(fields.line, f"{fields.what} has 'hold' but no window to hold; give 'settle' a quiet time")
        route = Route(
            name=name,
            on=on,
            dispatch=fields.take("dispatch", _dispatch_type, default),
            where=fields.take("where", self.where, Where()),
            key=fields.take("key", _key, "all"),
            settle=settle,
            hold=hold,
            budget=fields.take("budget", self.budget, None),
            max_open_keys=fields.take("max_open_keys", _positive, 100),
            repository=fields.take("repository", _repository, ""),
            **self.door(fields),
        )
        fields.done()
        return route

    def door(self, fields: _Fields) -> dict[str, str]:
        """`workflow` and `ref` of a route that goes to one workflow; only `via: workflow_dispatch` has them."""
        given = {key: line for key, (line, _) in fields.values.items() if key in {"via", "workflow", "ref"}}
        via = fields.take("via", _via, "")
        door = {"workflow": fields.take("workflow", _workflow, ""), "ref": fields.take("ref", _ref, "main")}
        if via == "workflow_dispatch":
            if "workflow" not in given:
                self.wrong(fields.line, f"{fields.what} goes via workflow_dispatch and so needs 'workflow'")
            return door
        for key in given if via or "via" not in given else ():
            if key != "via":
                mend = "write 'via: workflow_dispatch' beside it, or take it out"
                self.wrong(given[key], f"'{key}' in {fields.what} only counts via workflow_dispatch; {mend}")
        return {}

    def where(self, node: yaml.Node, key: str) -> Where:
        fields = _Fields(self, node, f"'{key}'")
        where = Where(
            container=fields.take("container", _texts, ()),
            prefix=fields.take("prefix", _texts, ()),
            suffix=fields.take("suffix", _texts, ()),
            glob=fields.take("glob", _texts, ()),
            api=fields.take("api", _texts, ()),
            content_length=fields.take("content_length", self.content_length, None),
            experiment=fields.take("experiment", _texts, ()),
            run_type=fields.take("run_type", _texts, ()),
            status=fields.take("status", _texts, ()),
            root_run=fields.take("root_run", _yes_or_no, None),
            tag=fields.take("tag", _tags, {}),
            topic=fields.take("topic", _texts, ()),
        )
        fields.done()
        return where

    def content_length(self, node: yaml.Node, key: str) -> tuple[int | None, int | None]:
        fields = _Fields(self, node, f"'{key}'")
        smallest, largest = fields.take("min", _size, None), fields.take("max", _size, None)
        fields.done()
        return smallest, largest

    def settle(self, node: yaml.Node, key: str) -> Settle | None:
        if isinstance(node, yaml.ScalarNode):
            if node.value == "none":
                return None
            raise ValueError(f"'{key}' is '{node.value}'; write 'none', or a mapping with 'quiet' and 'max_wait'")
        fields = _Fields(self, node, f"'{key}'")
        quiet = fields.need("quiet", _duration, timedelta())
        settle = Settle(
            quiet=quiet,
            max_wait=fields.take("max_wait", _duration, max(quiet, timedelta(minutes=15))),
            max_bytes=fields.take("max_bytes", _size, MOST_BYTES),
            marker=fields.take("marker", _short, ""),
        )
        if settle.max_wait < settle.quiet:
            self.wrong(fields.line, "'max_wait' is shorter than 'quiet', so the window would never be quiet")
        fields.done()
        return settle

    def hold(self, node: yaml.Node, key: str) -> Hold:
        fields = _Fields(self, node, f"'{key}'")
        fields.need("while", _running, "running")
        hold = Hold(at_most=fields.need("at_most", _duration, timedelta()))
        fields.done()
        return hold

    def budget(self, node: yaml.Node, key: str) -> Budget:
        fields = _Fields(self, node, f"'{key}'")
        dispatches = fields.need("dispatches", _positive, 1)
        if dispatches > LARGEST_BUDGET:
            self.wrong(fields.line, f"'dispatches' is {dispatches}; a budget allows at most {LARGEST_BUDGET}")
        budget = Budget(dispatches, per=fields.need("per", _duration, timedelta()))
        fields.done()
        return budget


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _text(node: yaml.Node, key: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or not node.value or node.tag == "tag:yaml.org,2002:null":
        raise ValueError(f"'{key}' must be text")
    return str(node.value)


def _short(node: yaml.Node, key: str) -> str:
    value = _text(node, key)
    length = len(compact_json(value)) - 2
    if length > _LONGEST_PART:
        raise ValueError(f"'{key}' has {length} characters in ASCII JSON; at most {_LONGEST_PART} fit beside a window")
    return value


def _texts(node: yaml.Node, key: str) -> tuple[str, ...]:
    if isinstance(node, yaml.SequenceNode):
        return tuple(_text(item, key) for item in _sequence(node, key))
    return (_text(node, key),)


def _sequence(node: yaml.Node, key: str) -> list[yaml.Node]:
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise ValueError(f"'{key}' must be a list with at least one entry")
    return list(node.value)


def _matching(pattern: re.Pattern[str], mend: str) -> Callable[[yaml.Node, str], str]:
    """A reader of text that has the form of `pattern`; `mend` says what to write where it has another."""

    def read(node: yaml.Node, key: str) -> str:
        value = _text(node, key)
        if not pattern.fullmatch(value):
            raise ValueError(f"'{key}' is '{value}'; {mend}")
        return value

    return read


_route_name = _matching(_NAME, "use up to 63 lowercase letters, digits and dashes")
_repository = _matching(_REPOSITORY, "write it as OWNER/NAME")
_workflow = _matching(_WORKFLOW, "write a file name of .github/workflows, such as train_model.yml")
_ref = _matching(_REF, "write the name of a branch or tag, such as main")


def _dispatch_type(node: yaml.Node, key: str) -> str:
    value = _text(node, key)
    if len(value) > _LONGEST_DISPATCH_TYPE:
        raise ValueError(f"'{key}' has {len(value)} characters, GitHub allows {_LONGEST_DISPATCH_TYPE}")
    return value


def _via(node: yaml.Node, key: str) -> str:
    value = _text(node, key)
    if value not in {"repository_dispatch", "workflow_dispatch"}:
        raise ValueError(f"'{key}' is '{value}'; write repository_dispatch or workflow_dispatch")
    return value


def _key(node: yaml.Node, key: str) -> str:
    value = _short(node, key)
    if value in {"all", "folder", "experiment"}:
        return value
    try:
        names = list(template_fields(value))
    except ValueError as error:
        raise ValueError(f"'{key}' is '{value}', which is no template: {error}") from error
    unknown = [name for name in names if name not in KEY_FIELDS]
    if unknown or not names:
        raise ValueError(
            f"'{key}' is '{value}'; write all, folder, experiment, or a template of {{{'}, {'.join(KEY_FIELDS)}}}"
        )
    return value


def _duration(node: yaml.Node, key: str) -> timedelta:
    written = _text(node, key)
    match = _DURATION.fullmatch(written)
    if match is None:
        raise ValueError(f"'{key}' is '{written}'; write a number with its unit: 60s, 15m, 6h or 1d")
    try:
        duration = timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        duration = timedelta.max
    if not timedelta() < duration <= _LONGEST_WAIT:
        raise ValueError(f"'{key}' is '{written}'; it must be more than nothing and at most 7d")
    return duration


def _size(node: yaml.Node, key: str) -> int:
    match = _SIZE.fullmatch(_text(node, key))
    if match is None:
        raise ValueError(f"'{key}' is '{node.value}'; write bytes, or a number with KB or MB")
    return int(match[1]) * _SIZES[(match[2] or "").upper()]


def _positive(node: yaml.Node, key: str) -> int:
    written = _text(node, key)
    if not _POSITIVE.fullmatch(written):
        raise ValueError(f"'{key}' is '{written}'; write a whole number above 0, of at most 15 digits")
    return int(written)


def _yes_or_no(node: yaml.Node, key: str) -> bool | None:
    written = _text(node, key)
    if written not in {"true", "false"}:
        raise ValueError(f"'{key}' is '{written}'; write true or false")
    return written == "true"


def _running(node: yaml.Node, key: str) -> str:
    written = _text(node, key)
    if written != "running":
        raise ValueError(f"'{key}' is '{written}'; the only state to hold for is running")
    return written


def _tags(node: yaml.Node, key: str) -> dict[str, str]:
    if isinstance(node, yaml.ScalarNode):
        return {_text(node, key): "*"}
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"'{key}' must be a tag's name, or a mapping of names to values")
    tags: dict[str, str] = {}
    for name_node, value in node.value:
        name = _text(name_node, key)
        if name in tags:
            raise ValueError(f"'{name}' stands twice in '{key}'")
        tags[name] = _text(value, key)
    return tags
