"""Reading routes.yml: what it means, and each mistake with its line, key and mend."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given, strategies as st

from functions.core.routes import Budget, Hold, Route, Settle, Where
from functions.core.routes_file import Mistake, RoutesError, load_routes

PROJECT = Path(__file__).resolve().parent.parent.parent
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)

A_ROUTE = "routes:\n  - name: r\n"
WHOLE = """
routes:
  - name: train
    on: [Microsoft.Storage.BlobCreated, Microsoft.Storage.BlobRenamed]
    where:
      container: training-data
      prefix: [a/, b/]
      suffix: .csv
      glob: "*.csv"
      api: [PutBlob]
      content_length: {min: 1, max: 10 MB}
      experiment: e*
      run_type: azureml.PipelineRun
      status: [Failed]
      root_run: true
      tag: {signalbox_origin: sb-*}
      topic: "*/acme"
    key: "{container}/{folder}"
    settle: {quiet: 60s, max_wait: 1.5h, max_bytes: 4KB, marker: _SUCCESS}
    hold: {while: running, at_most: 6h}
    budget: {dispatches: 20, per: 1h}
    dispatch: new-data
    max_open_keys: 7
    repository: octo/models
"""


def routes(*lines: str) -> tuple[Route, ...]:
    """Load a file with one route that has these further lines, from line 4 on."""
    body = "".join(f"    {line}\n" for line in lines)
    return load_routes(f"routes:\n  - name: r\n    on: Microsoft.Storage.BlobCreated\n{body}")


def mistakes(document: str) -> list[Mistake]:
    """What is wrong with a file."""
    with pytest.raises(RoutesError) as caught:
        load_routes(document)
    return caught.value.mistakes


def test_a_whole_route() -> None:
    """Every key says what it says."""
    where = Where(
        container=("training-data",),
        prefix=("a/", "b/"),
        suffix=(".csv",),
        glob=("*.csv",),
        api=("PutBlob",),
        content_length=(1, 10 * 1024 * 1024),
        experiment=("e*",),
        run_type=("azureml.PipelineRun",),
        status=("Failed",),
        root_run=True,
        tag={"signalbox_origin": "sb-*"},
        topic=("*/acme",),
    )
    assert load_routes(WHOLE) == (
        Route(
            name="train",
            on=("Microsoft.Storage.BlobCreated", "Microsoft.Storage.BlobRenamed"),
            dispatch="new-data",
            where=where,
            key="{container}/{folder}",
            settle=Settle(MINUTE, 1.5 * HOUR, 4096, "_SUCCESS"),
            hold=Hold(6 * HOUR),
            budget=Budget(20, HOUR),
            max_open_keys=7,
            repository="octo/models",
        ),
    )


def test_defaults() -> None:
    """A route needs a name, a type and how it settles; the dispatch type follows from the event type."""
    (route,) = routes("settle: none")
    assert route == Route("r", ("Microsoft.Storage.BlobCreated",), "storage-blobcreated")


@pytest.mark.parametrize(
    ("line", "settle"),
    [
        ("settle: {quiet: 5s}", Settle(5 * SECOND, 15 * MINUTE)),
        ("settle: {quiet: 20m}", Settle(20 * MINUTE, 20 * MINUTE)),
        ("settle: {quiet: 0.5s, max_wait: 7d, max_bytes: 10}", Settle(SECOND / 2, 168 * HOUR, 10)),
        ("settle: {quiet: 1s, max_bytes: 2 mb}", Settle(SECOND, 15 * MINUTE, 2 * 1024**2)),
        ("settle: none", None),
    ],
)
def test_settle(line: str, settle: Settle | None) -> None:
    """max_wait is 15 minutes unless the quiet time is longer."""
    assert routes(line)[0].settle == settle


@pytest.mark.parametrize("key", ["all", "folder", "experiment", "{path}", "x-{account}-{parent}"])
def test_keys(key: str) -> None:
    """The three words, or a template."""
    assert routes("settle: none", f'key: "{key}"')[0].key == key


def test_a_route_to_one_workflow() -> None:
    """It names the file, and the ref where that is not main; said or not, repository_dispatch needs neither."""
    door = "via: workflow_dispatch"
    (route,) = routes("settle: none", door, "workflow: train_model.yml")
    assert (route.workflow, route.ref, route.dispatch) == ("train_model.yml", "main", "storage-blobcreated")
    (route,) = routes("settle: none", "workflow: a.yaml", door, "ref: releases/v1")
    assert (route.workflow, route.ref) == ("a.yaml", "releases/v1")
    assert routes("settle: none", "via: repository_dispatch") == routes("settle: none")


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        (["via: workflow_dispatch"], (2, "route 'r' goes via workflow_dispatch and so needs 'workflow'")),
        (["via: push", "workflow: a.yml"], (5, "'via' is 'push'; write repository_dispatch or workflow_dispatch")),
        (
            ["workflow: a.yml"],
            (
                5,
                "'workflow' in route 'r' only counts via workflow_dispatch; "
                "write 'via: workflow_dispatch' beside it, or take it out",
            ),
        ),
        (
            ["via: repository_dispatch", "ref: v1"],
            (
                6,
                "'ref' in route 'r' only counts via workflow_dispatch; "
                "write 'via: workflow_dispatch' beside it, or take it out",
            ),
        ),
        (
            ["via: workflow_dispatch", "workflow: .github/workflows/a.yml"],
            (
                6,
                "'workflow' is '.github/workflows/a.yml'; "
                "write a file name of .github/workflows, such as train_model.yml",
            ),
        ),
        (
            ["via: workflow_dispatch", "workflow: a.yml", "ref: a..b"],
            (7, "'ref' is 'a..b'; write the name of a branch or tag, such as main"),
        ),
    ],
)
def test_doors_that_do_not_fit(lines: list[str], wrong: tuple[int, str]) -> None:
    """One mistake each, with its line, its key and the mend."""
    with pytest.raises(RoutesError) as caught:
        routes("settle: none", *lines)
    assert caught.value.mistakes == [Mistake(*wrong)]


def test_other_forms() -> None:
    """A tag by its name alone, half a range, false."""
    (route,) = routes("settle: none", "where: {tag: origin, content_length: {max: 5B}, root_run: false}")
    assert route.where == Where(tag={"origin": "*"}, content_length=(None, 5), root_run=False)


def test_the_projects_own_file() -> None:
    """routes.yml listens to what the design says, and every route of it is sent under a name to keep."""
    loaded = load_routes((PROJECT / "routes.yml").read_text(encoding="utf-8"))
    assert [route.dispatch for route in loaded] == [
        "storage-blobcreated",
        "machinelearningservices-runcompleted",
        "machinelearningservices-runstatuschanged",
        "machinelearningservices-datasetdriftdetected",
        "signalbox-setupprobe",
    ]
    train, deploy, report, *_ = loaded
    assert train.where.container == ("training-data",)
    assert train.settle is not None
    assert train.hold is not None
    assert all(route.where.root_run and route.where.tag == {"signalbox_origin": "*"} for route in (deploy, report))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("settel: none", "unknown key 'settel' in route 'r'; did you mean 'settle'?"),
        ("zzz: 1", "unknown key 'zzz' in route 'r'; known keys: budget, dispatch, hold, key, max_open_keys, name, on,"),
        ("? [a, b]\n    : 1", "unknown key"),
        ("where: {sufix: .csv}", "unknown key 'sufix' in 'where'; did you mean 'suffix'?"),
        ("where: {content_length: {least: 1}}", "unknown key 'least' in 'content_length'; known keys: max, min"),
        ("where: 5", "'where' must be a mapping of keys"),
        ("where: {suffix: {a: b}}", "'suffix' must be text"),
        ("where: {suffix: ''}", "'suffix' must be text"),
        ("where: {suffix: null}", "'suffix' must be text"),
        ("where: {suffix: ~}", "'suffix' must be text"),
        ("where: {suffix: [.csv, [x]]}", "'suffix' must be text"),
        ("where: {container: []}", "'container' must be a list with at least one entry"),
        ("where: {root_run: yes}", "'root_run' is 'yes'; write true or false"),
        ("where: {tag: [a]}", "'tag' must be a tag's name, or a mapping of names to values"),
        ("where: {tag: {a: [b]}}", "'tag' must be text"),
        ("where: {content_length: {min: 1 TB}}", "'min' is '1 TB'; write bytes, or a number with KB or MB"),
        ("where: {content_length: 5}", "'content_length' must be a mapping of keys"),
        ("key: '{fodler}'", "'key' is '{fodler}'; write all, folder, experiment, or a template of {account},"),
        ("key: fodler", "'key' is 'fodler'; write all, folder"),
        ("key: '{path.x}'", "'key' is '{path.x}'; write all"),
        ("key: '{path'", "'key' is '{path', which is no template"),
        ("key: '{path!r}'", "{path} takes no format"),
        ("key: '{path}" + "x" * 95 + "'", "'key' has 101 characters in ASCII JSON; at most 100 fit beside a window"),
        ("hold: {while: runing, at_most: 1h}", "'while' is 'runing'; the only state to hold for is running"),
        ("hold: {while: running}", "'hold' needs 'at_most'"),
        ("hold: {at_most: 1h}", "'hold' needs 'while'"),
        ("budget: {dispatches: 20}", "'budget' needs 'per'"),
        ("budget: {per: 1h}", "'budget' needs 'dispatches'"),
        ("budget: {dispatches: 501, per: 1h}", "'dispatches' is 501; a budget allows at most 500"),
        ("max_open_keys: 0", "'max_open_keys' is '0'; write a whole number above 0"),
        ("max_open_keys: '²'", "'max_open_keys' is '²'; write a whole number above 0"),
        ("repository: models", "'repository' is 'models'; write it as OWNER/NAME"),
        (f"repository: octo/{'x' * 101}", "write it as OWNER/NAME"),
        ("repository: octo/..", "'repository' is 'octo/..'; write it as OWNER/NAME"),
        ("dispatch: " + "x" * 101, "'dispatch' has 101 characters, GitHub allows 100"),
        ("max_open_keys: " + "9" * 5_000, "write a whole number above 0, of at most 15 digits"),
        ("where: {content_length: {min: 10\u212aB}}", "'min' is '10\u212aB'; write bytes, or a number with KB or MB"),
        ("where: {content_length: {min: \uff11\uff10}}", "'min' is '\uff11\uff10'; write bytes"),
        ("where: {content_length: {max: " + "9" * 5_000 + "}}", "write bytes, or a number with KB or MB"),
        ("hold: {while: running, at_most: \uff11h}", "'at_most' is '\uff11h'; write a number with its unit"),
        ("where: {tag: {stage: prod, stage: dev}}", "'stage' stands twice in 'tag'"),
        ("where: {{prefix}: a}", "unknown key in 'where': a list or mapping; braces in a value need quotes around it"),
        ("name: again", "'name' stands twice in a route"),
    ],
)  # fmt: skip
def test_each_mistake_is_reported_with_its_line(line: str, says: str) -> None:
    """The line is the one that holds the mistake; the message names the key and says how to mend it."""
    found = mistakes(
        "routes:\n  - name: r\n    on: Microsoft.Storage.BlobCreated\n    settle: {quiet: 1s}\n" + f"    {line}\n"
    )
    assert [mistake.line for mistake in found] == [5]
    assert says in found[0].message


@pytest.mark.parametrize(
    ("settle", "says"),
    [
        ("never", "'settle' is 'never'; write 'none', or a mapping with 'quiet' and 'max_wait'"),
        ("[1s]", "'settle' must be a mapping of keys"),
        ("{quiet: 60}", "'quiet' is '60'; write a number with its unit: 60s, 15m, 6h or 1d"),
        ("{quiet: -5s}", "'quiet' is '-5s'; write a number"),
        ("{quiet: 0s}", "'quiet' is '0s'; it must be more than nothing and at most 7d"),
        ("{quiet: 8d}", "'quiet' is '8d'; it must be more than nothing and at most 7d"),
        ("{quiet: 99999999999999999999d}", "it must be more than nothing and at most 7d"),
        ("{quiet: " + "9" * 400 + "s}", "it must be more than nothing and at most 7d"),
        ("{quiet: 2m, max_wait: 1m}", "'max_wait' is shorter than 'quiet'"),
        ("{max_wait: 1m}", "'settle' needs 'quiet'"),
        ("{quiet: 1m, max_bytes: much}", "'max_bytes' is 'much'; write bytes"),
        ("{quiet: 1m, marker: }", "'marker' must be text"),
        ("{quiet: 1m, marker: " + "é" * 17 + "}", "'marker' has 102 characters in ASCII JSON; at most 100 fit"),
    ],
)
def test_mistakes_of_settle(settle: str, says: str) -> None:
    """A window that could not settle as meant is refused."""
    found = mistakes(f"routes:\n  - name: r\n    on: X.Y\n    settle: {settle}\n")
    assert found[0].line == 4
    assert says in found[0].message


@pytest.mark.parametrize(
    ("document", "line", "says"),
    [
        ("", 1, "the file is empty; it needs a list under 'routes'"),
        ("# nothing\n", 1, "the file is empty"),
        ("- a\n", 1, "the file must be a mapping of keys"),
        ("route: []\n", 1, "the file needs 'routes'"),
        ("routes: []\n", 1, "'routes' must be a list with at least one entry"),
        ("routes: x\n", 1, "'routes' must be a list"),
        ("routes:\n  - just text\n", 2, "a route must be a mapping of keys"),
        ("routes:\n  - on: X.Y\n    settle: none\n", 2, "a route needs 'name'"),
        ("routes:\n  - name: r\n    settle: none\n", 2, "route 'r' needs 'on'"),
        ("routes:\n  - name: r\n    on: []\n    settle: none\n", 3, "'on' must be a list with at least one entry"),
        ("routes:\n  - name: r\n    on: X.Y\n", 2, "route 'r' needs 'settle'"),
        ("routes:\n  - name: Up\n    on: X.Y\n    settle: none\n", 2, "'name' is 'Up'; use up to 63 lowercase letters"),
        (A_ROUTE + "    on: [X.Y, X.Z]\n    settle: none\n", 2, "several types and so needs 'dispatch'"),
        (A_ROUTE + f"    on: X.{'y' * 101}\n    settle: none\n", 2, "needs a shorter 'dispatch': GitHub allows 100"),
        (A_ROUTE + "    on: X.Y\n    settle: none\n    hold: {while: running, at_most: 1h}\n", 2, "no window to hold"),
        ("routes:" + "\n  - name: a\n    on: X.Y\n    settle: none" * 2, 5, "two routes are named 'a'"),
        ("routes:\n  - name: [\n", 3, "not YAML: "),
        ("routes: *gone\n", 1, "not YAML: found undefined alias"),
        ("a: \x00", 1, "not YAML: "),
        ("[" * 5_000, 1, "not YAML: "),
        ("a: 1\n---\nb: 2\n", 2, "not YAML: "),
    ],
)  # fmt: skip
def test_mistakes_of_the_file(document: str, line: int, says: str) -> None:
    """What is no list of routes, and what is wrong with a route as a whole."""
    found = mistakes(document)
    assert says in found[0].message
    assert found[0].line == line


def test_a_file_in_another_encoding() -> None:
    """It is a mistake like any, with the line of its first such letter."""
    with pytest.raises(RoutesError, match=r"routes.yml:2: not UTF-8: save the file in that encoding"):
        load_routes("routes:\n  - name: f\u00fcr\n".encode("latin-1"))
    assert load_routes(A_ROUTE.encode() + b"    on: X.Y\n    settle: none\n")[0].name == "r"


def test_all_mistakes_are_told_at_once() -> None:
    """In the order of their lines, each as file:line: message."""
    document = dedent(
        """
        routes:
          - name: Big
            on: X.Y
            settle: {quiet: soon}
          - name: r
            on: X.Y
            settle: none
            kee: all
        """
    )
    with pytest.raises(RoutesError) as caught:
        load_routes(document, "my.yml")
    assert [mistake.line for mistake in caught.value.mistakes] == [3, 5, 9]
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == ["my.yml:3", "my.yml:5", "my.yml:9"]


def test_one_mistake_is_one_message() -> None:
    """A mistake in settle is not also told as a mistake of hold."""
    document = "routes:\n  - name: r\n    on: X.Y\n    settle: nome\n    hold: {while: running, at_most: 1h}\n"
    assert len(mistakes(document)) == 1


def test_aliases_work() -> None:
    """YAML's anchors and aliases stay YAML's."""
    first, second = load_routes(
        "routes:\n- &a {name: a, on: X.Y, settle: &s {quiet: 1s}}\n- {name: b, on: X.Y, settle: *s}\n"
    )
    assert first.settle == second.settle


@given(st.text(max_size=60) | st.text(alphabet="routes:\n -nameX.Y{}[]&*\"'#?|>!%@`", max_size=80))
def test_any_text_is_routes_or_mistakes(document: str) -> None:
    """Whatever stands in the file, the app says what is wrong instead of dying of it."""
    try:
        load_routes(document)
    except RoutesError as error:
        found = error.mistakes
    else:
        found = [Mistake(1, "none")]
    assert found


@given(
    st.recursive(
        st.sampled_from(["r", "none", "1s", "all", "true", "5", "", "~", "x/y"]),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(["name", "on", "settle", "where", "key", "hold", "quiet", "tag", "while", "api"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)  # fmt: skip
def test_any_route_is_a_route_or_mistakes(route: object) -> None:
    """The same for what looks like a route."""
    import yaml

    try:
        load_routes(yaml.safe_dump({"routes": [route]}))
    except RoutesError as error:
        found = error.mistakes
    else:
        found = []
    assert all(mistake.line >= 1 and mistake.message for mistake in found)
