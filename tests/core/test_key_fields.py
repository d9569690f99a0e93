"""What routes can ask of an event: fields that it lacks, spellings of a field, and markers in deep folders."""

from __future__ import annotations

from datetime import timedelta

import pytest

from functions.core.events import Event, parse
from functions.core.routes import Route, Settle, Where, is_marker, key_by, key_fields, why_not

from .strategies import any_event, blob_event, run_event

ON = ("Microsoft.Storage.BlobCreated", "Microsoft.MachineLearningServices.RunCompleted", "Custom.Happening")
BLOB, RUN, OTHER = parse(blob_event("a/b/c.csv")), parse(run_event()), any_event({"experimentName": "iris"}, "", "1")


def a_route(where: Where) -> Route:
    """A route for every kind of event."""
    return Route("r", ON, "d", where, settle=Settle(timedelta(1), timedelta(1), marker="_SUCCESS"))


def test_fields_of_a_blob() -> None:
    """Its place; no run, so no kind of run. Only the topic's last part serves as a name."""
    assert key_fields(BLOB) == {
        "account": "acme",
        "container": "training-data",
        "folder": "a",
        "parent": "a/b",
        "path": "a/b/c.csv",
        "experiment": "",
        "run_type": "",
        "topic": "acme",
        "type": "Microsoft.Storage.BlobCreated",
    }


def test_fields_of_a_run() -> None:
    """What it is; no blob, so no place."""
    assert {name: value for name, value in key_fields(RUN).items() if value} == {
        "experiment": "digits",
        "run_type": "azureml.PipelineRun",
        "topic": "lab",
        "type": "Microsoft.MachineLearningServices.RunCompleted",
    }


def test_fields_of_an_event_about_nothing_known() -> None:
    """Each field that the event lacks is empty, never made up; an experiment may be named by any event."""
    fields = key_fields(OTHER)
    assert {name: value for name, value in fields.items() if value} == {"experiment": "iris", "type": OTHER.type}


@pytest.mark.parametrize("topic", ["lab", "a/lab", "/a/b/c/lab"])
def test_the_topic_is_named_by_its_last_part(topic: str) -> None:
    """However deep the resource is nested."""
    assert key_fields(parse(run_event() | {"topic": topic}))["topic"] == "lab"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (Where(glob=("?*",)), "its path does not match '?*'"),
        (Where(run_type=("?*",)), "its run type is '', not '?*'"),
        (Where(status=("?*",)), "its status is '', not '?*'"),
        (Where(experiment=("?*",)), None),
    ],
)
def test_what_an_event_lacks_matches_no_filter_that_wants_something(where: Where, said: str | None) -> None:
    """A pattern for any text that is not empty keeps out events without a path, a run type or a status."""
    assert why_not(a_route(where), OTHER) == said


@pytest.mark.parametrize("data", [{"EXPERIMENTNAME": "other", "experimentname": "other", "experimentName": "digits"}])
def test_the_documented_spelling_of_a_field_comes_first(data: dict[str, str]) -> None:
    """An event with several spellings is read by Azure's own; in keys, in templates and in filters alike."""
    event = any_event(data, "", "1")
    assert key_by("experiment", event) == key_by("{experiment}", event) == "digits"
    assert why_not(a_route(Where(experiment=("digits",))), event) is None


def test_all_types_that_a_route_hears_are_said() -> None:
    """`signalbox explain` gives this reason."""
    event = parse(blob_event(eventType="Microsoft.Storage.BlobDeleted"))
    assert why_not(Route("r", ("A.B", "C.D"), "d"), event) == "it listens to A.B, C.D"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("_SUCCESS", True),
        ("digits/2026/11/_SUCCESS", True),
        ("digits/_SUCCESS/part.csv", False),
        ("digits/2026/", False),
    ],
)
def test_markers_of_any_depth(path: str, *, expected: bool) -> None:
    """The file's name counts, in whichever folder; a folder of that name is no marker."""
    marker: Event = parse(blob_event(path))
    assert is_marker(a_route(Where()), marker) is expected
