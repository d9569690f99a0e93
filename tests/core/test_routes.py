"""Which routes take an event, and under which key."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from functions.core.events import parse
from functions.core.routes import (
    KEY_FIELDS,
    LONGEST_KEY,
    Route,
    Settle,
    Where,
    default_event_type,
    is_marker,
    key_fields,
    key_of,
    matching,
    template_fields,
    why_not,
)

from .strategies import WORKSPACE, any_event, blob_event, run_event

BLOB_CREATED = "Microsoft.Storage.BlobCreated"
RUN_COMPLETED = "Microsoft.MachineLearningServices.RunCompleted"
SETTLE = Settle(quiet=timedelta(minutes=1), max_wait=timedelta(minutes=15), marker="_SUCCESS")


def a_route(where: Where = Where(), **changes: Any) -> Route:  # noqa: B008 - it is frozen
    """A route for both kinds of events."""
    values: dict[str, Any] = {"name": "r", "on": (BLOB_CREATED, RUN_COMPLETED), "dispatch": "d", "where": where}
    return Route(**{**values, **changes})


@pytest.mark.parametrize(
    ("event_type", "dispatch"),
    [
        ("Microsoft.Storage.BlobCreated", "storage-blobcreated"),
        ("Microsoft.MachineLearningServices.RunCompleted", "machinelearningservices-runcompleted"),
        ("Microsoft.A.B.C", "a-b-c"),
        ("Happening", "happening"),
        ("Trailing.", "trailing."),
    ],
)
def test_default_event_type(event_type: str, dispatch: str) -> None:
    """The Azure type without its first segment, dots to dashes, lower case."""
    assert default_event_type(event_type) == dispatch


@pytest.mark.parametrize(
    ("where", "event", "reason"),
    [
        (Where(container=("training-data",)), {}, None),
        (Where(container=("Training-Data",)), {}, "its container is 'training-data'"),
        (Where(container=("a", "training-data")), {}, None),
        (Where(), {"container": "azureml-blobstore-1"}, "'azureml-blobstore-1' is excluded unless a route names it"),
        (Where(), {"container": "AzureML"}, "'AzureML' is excluded unless a route names it"),
        (Where(), {"container": "insights-logs-x"}, "'insights-logs-x' is excluded unless a route names it"),
        (Where(), {"container": "$logs"}, "'$logs' is excluded unless a route names it"),
        (Where(), {"container": "snapshots"}, "'snapshots' is excluded unless a route names it"),
        (Where(), {"container": "manifests"}, "'manifests' is excluded unless a route names it"),
        (Where(container=("azureml-data",)), {"container": "azureml-data"}, None),
        (Where(prefix=("digits/",)), {}, None),
        (Where(prefix=("iris/", "Digits/")), {}, "its path does not start with 'iris/' or 'Digits/'"),
        (Where(suffix=(".csv",)), {}, None),
        (Where(suffix=(".CSV",)), {}, "its path does not end with '.CSV'"),
        (Where(glob=("digits/*.csv",)), {"path": "digits/a/b.csv"}, None),
        (Where(glob=("iris/*", "*.txt")), {}, "its path does not match 'iris/*' or '*.txt'"),
        (Where(api=("putblob",)), {}, None),
        (Where(api=("PutBlockList",)), {}, "its api is 'PutBlob', not 'PutBlockList'"),
        (Where(api=("PutBlob",)), {"api": None}, "its api is '', not 'PutBlob'"),
        (Where(content_length=(1, None)), {"contentLength": 1}, None),
        (Where(content_length=(1, None)), {"contentLength": 0}, "its contentLength is 0"),
        (Where(content_length=(None, 9)), {"contentLength": 9}, None),
        (Where(content_length=(None, 9)), {"contentLength": 10}, "its contentLength is 10"),
        (Where(content_length=(1, 9)), {"contentLength": None}, None),
        (Where(root_run=True), {}, "its run is a step of a pipeline"),
        (Where(topic=("*/ACME",)), {}, None),
    ],
)
def test_filters_on_blobs(where: Where, event: dict[str, Any], reason: str | None) -> None:
    """Each filter passes what it names, and the reason says what the event has instead."""
    assert why_not(a_route(where), parse(blob_event(**event))) == reason


@pytest.mark.parametrize(
    ("where", "data", "reason"),
    [
        (Where(experiment=("DIG*",)), {}, None),
        (Where(experiment=("iris",)), {}, "its experiment is 'digits', not 'iris'"),
        (Where(run_type=("azureml.pipelinerun",)), {}, None),
        (Where(run_type=("x",)), {"runType": None}, "its run type is '', not 'x'"),
        (Where(status=("Failed", "Canceled")), {"runStatus": "canceled"}, None),
        (Where(status=("Failed", "Canceled")), {}, "its status is '', not 'Failed' or 'Canceled'"),
        (Where(topic=("*/other",)), {}, f"its topic is '{WORKSPACE}', not '*/other'"),
        (Where(root_run=True), {}, None),
        (Where(root_run=True), {"runType": "azureml.StepRun"}, "its run is a step of a pipeline"),
        (Where(root_run=False), {"runType": "azureml.StepRun"}, None),
        (Where(root_run=False), {}, "its run is no step of a pipeline"),
        (Where(tag={"signalbox_origin": "*"}), {}, None),
        (Where(tag={"SIGNALBOX_ORIGIN": "sb-*"}), {}, None),
        (Where(tag={"signalbox_origin": "push-*"}), {}, "its tag 'signalbox_origin' is 'sb-1'"),
        (Where(tag={"signalbox_origin": "*"}), {"runTags": {}}, "its run has no tag 'signalbox_origin'"),
        (Where(tag={"a": "*"}), {"runTags": {"a": ""}}, "its run has no tag 'a'"),
        (Where(tag={"signalbox_origin": "*"}), {"runTags": None}, "its run has no tag 'signalbox_origin'"),
        (Where(container=("c",)), {}, "its container is ''"),
        (Where(prefix=("p",)), {}, "its path does not start with 'p'"),
        (Where(api=("PutBlob",)), {}, "its api is '', not 'PutBlob'"),
        (Where(content_length=(1, 2)), {}, None),
    ],
)  # fmt: skip
def test_filters_on_runs(where: Where, data: dict[str, Any], reason: str | None) -> None:
    """The same for Azure ML runs; a filter on blobs never passes a run."""
    assert why_not(a_route(where), parse(run_event(**data))) == reason


def test_filters_on_an_event_about_nothing_known() -> None:
    """An event without a blob or run passes only filters that ask for neither."""
    event = any_event({"experimentName": "digits"}, "s", "1")
    assert why_not(a_route(on=("custom.happening",)), event) is None
    assert why_not(a_route(Where(experiment=("digits",)), on=("Custom.Happening",)), event) is None
    assert why_not(a_route(Where(tag={"a": "*"}), on=("Custom.Happening",)), event) == "its run has no tag 'a'"
    assert why_not(a_route(Where(root_run=True), on=("Custom.Happening",)), event) is not None


def test_a_route_hears_only_its_types() -> None:
    """The type is compared as a whole and without regard to case."""
    event = parse(blob_event())
    assert why_not(a_route(on=("microsoft.storage.BLOBCREATED",)), event) is None
    assert why_not(a_route(on=("Microsoft.Storage.Blob",)), event) == "it listens to Microsoft.Storage.Blob"


def test_every_matching_route_takes_the_event() -> None:
    """Several routes may want one event; they come in the file's order."""
    routes = (a_route(name="b"), a_route(name="x", on=("Other",)), a_route(name="a"))
    assert [route.name for route in matching(routes, parse(blob_event()))] == ["b", "a"]


@pytest.mark.parametrize(
    ("key", "path", "expected"),
    [
        ("all", "digits/a.csv", ""),
        ("folder", "digits/2026/a.csv", "digits"),
        ("folder", "a.csv", ""),
        ("{container}/{folder}", "digits/a.csv", "training-data/digits"),
        ("{parent}", "digits/2026/a.csv", "digits/2026"),
        ("{account}:{path}", "d/{path}.csv", "acme:d/{path}.csv"),
        ("{topic}-{type}", "a", "acme-Microsoft.Storage.BlobCreated"),
        ("experiment", "a", ""),
    ],
)
def test_keys_of_blobs(key: str, path: str, expected: str) -> None:
    """All, the first folder, or a template; braces in a blob's own name stay what they are."""
    assert key_of(a_route(key=key), parse(blob_event(path))) == expected


def test_keys_of_runs() -> None:
    """By experiment, also where the event names an experiment but no run; a folder there is empty."""
    event = parse(run_event())
    assert key_of(a_route(key="experiment"), event) == "digits"
    assert key_of(a_route(key="{experiment}-{run_type}"), event) == "digits-azureml.PipelineRun"
    assert key_of(a_route(key="folder"), event) == ""
    assert key_of(a_route(key="experiment"), any_event({"ExperimentName": "iris"}, "", "1")) == "iris"


def test_every_key_field_exists() -> None:
    """What a template may name is what key_fields gives, for any kind of event."""
    for event in (parse(blob_event()), parse(run_event()), any_event({}, "", "1")):
        assert set(key_fields(event)) == set(KEY_FIELDS)


@given(st.text(min_size=LONGEST_KEY - 2, max_size=LONGEST_KEY + 40).filter(lambda path: "/" not in path))
def test_long_keys_are_cut_but_never_shared(folder: str) -> None:
    """A key has at most 200 characters and its digest; two folders that differ only behind the cut stay apart."""
    route = a_route(key="folder")
    key = key_of(route, parse(blob_event(f"{folder}/a")))
    assert len(key) <= LONGEST_KEY + 21
    assert (key == folder) == (len(folder) <= LONGEST_KEY)
    if len(folder) > LONGEST_KEY:
        assert key != key_of(route, parse(blob_event(f"{folder}x/a")))


@pytest.mark.parametrize("template", ["{path!r}", "{path:>9}", "{path", "path}"])
def test_templates_take_names_only(template: str) -> None:
    """Formats, conversions and unmatched braces are ValueError."""
    with pytest.raises(ValueError, match=r"."):
        list(template_fields(template))


def test_template_fields_are_listed() -> None:
    """Text between the fields, and doubled braces, are no fields."""
    assert list(template_fields("{{x}}-{a}/{b}")) == ["a", "b"]


@pytest.mark.parametrize(
    ("changes", "event", "expected"),
    [
        ({}, {"path": "digits/_SUCCESS"}, True),
        ({}, {"path": "_SUCCESS"}, True),
        ({}, {"path": "digits/x_SUCCESS"}, False),
        ({"where": Where(suffix=(".csv",))}, {"path": "digits/_SUCCESS"}, True),
        ({"where": Where(container=("other",))}, {"path": "digits/_SUCCESS"}, False),
        ({"on": ("Microsoft.Storage.BlobDeleted",)}, {"path": "digits/_SUCCESS"}, False),
        ({"settle": None}, {"path": "digits/_SUCCESS"}, False),
        ({"settle": Settle(timedelta(1), timedelta(1))}, {"path": "digits/_SUCCESS"}, False),
    ],
)
def test_markers(changes: dict[str, Any], event: dict[str, Any], *, expected: bool) -> None:
    """A marker is known by its file name; its type and container count, filters on the path do not."""
    assert is_marker(a_route(**{"settle": SETTLE, **changes}), parse(blob_event(**event))) is expected


def test_a_run_is_no_marker() -> None:
    """Only a blob can be a marker."""
    assert not is_marker(a_route(settle=SETTLE), parse(run_event()))
