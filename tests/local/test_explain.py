"""`signalbox explain` says what would become of each event, and why."""

import json
from pathlib import Path

import pytest

from functions.core.routes_file import load_routes
from local.cli import main
from local.explain import as_text, explain

PROJECT = Path(__file__).resolve().parents[2]
ROUTES = load_routes((PROJECT / "routes.yml").read_text())

CSV = {
    "id": "1",
    "eventType": "Microsoft.Storage.BlobCreated",
    "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/data",
    "subject": "/blobServices/default/containers/training-data/blobs/digits/a.csv",
    "eventTime": "2026-11-20T10:00:00Z",
    "data": {
        "api": "PutBlob",
        "url": "https://data.blob.core.windows.net/training-data/digits/a.csv",
        "sequencer": "07",
    },
}


def document(*events: object) -> bytes:
    return json.dumps(events).encode()


def test_says_route_key_subject_and_identity() -> None:
    """A taken event comes with its routes, key, subject and identity."""
    (report,) = explain(document(CSV), ROUTES)
    assert report["readable"] is True
    assert report["routes"] == ["train-on-new-data"]
    assert report["key"] == "digits"
    assert report["subject"] == CSV["subject"]
    assert str(report["identity"]).endswith("digits/a.csv 07")


def test_cloudevents_explain_the_same() -> None:
    """The same happening in the CloudEvents schema has the same identity."""
    cloud = {
        "specversion": "1.0",
        "id": "other",
        "type": CSV["eventType"],
        "source": CSV["topic"],
        "subject": CSV["subject"],
        "time": CSV["eventTime"],
        "data": CSV["data"],
    }
    one, other = explain(document(CSV, cloud), ROUTES)
    assert (one["identity"], one["routes"]) == (other["identity"], other["routes"])


def test_says_why_no_route_takes_it() -> None:
    """For each route that does not take the event there is a reason."""
    text = {**CSV, "subject": CSV["subject"].replace(".csv", ".txt")}  # type: ignore[attr-defined]
    (report,) = explain(document(text), ROUTES)
    assert report["routes"] == []
    assert "'.csv'" in report["why_not"]["train-on-new-data"]  # type: ignore[index,call-overload]
    assert set(report["why_not"]) == {route.name for route in ROUTES}  # type: ignore[arg-type]


@pytest.mark.parametrize("broken", [b"{", b'[{"eventType": "x"}]', b"[1]", b'{"specversion": "0.3"}'])
def test_unreadable_ends_with_status_1(broken: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unreadable event is named with its reason, and the command ends with status 1."""
    file = tmp_path / "event.json"
    file.write_bytes(broken)
    assert main(["explain", str(file), "--json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert report["readable"] is False
    assert report["reason"]


def test_one_unreadable_among_others_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Readable events are still explained beside an unreadable one."""
    file = tmp_path / "events.json"
    file.write_bytes(document(CSV, {"eventType": "x"}))
    assert main(["explain", str(file)]) == 1
    said = capsys.readouterr().out
    assert "train-on-new-data, key 'digits'" in said
    assert "event 1: unreadable: 'data' is missing or null" in said


def test_every_published_sample_is_readable(contracts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All documented samples of storage and machine learning events are understood."""
    samples = [
        path
        for path in (contracts / "events" / "samples").glob("*.json")
        if not path.name.startswith(("subscriptionvalidation", "storagequeue"))
    ]
    assert samples
    for sample in samples:
        assert main(["explain", str(sample)]) == 0, sample.name
    capsys.readouterr()


def test_missing_file_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there gives one line on stderr, no trace."""
    assert main(["explain", str(tmp_path / "none.json")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_broken_routes_file_names_line_key_and_meaning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown key in the routes file is reported with its line, the key, and what was meant."""
    routes = tmp_path / "mine.yml"
    routes.write_text(
        "routes:\n  - name: a\n    on: Microsoft.Storage.BlobCreated\n    setle: none\n    settle: none\n"
    )
    monkeypatch.setenv("SIGNALBOX_ROUTES", str(routes))
    file = tmp_path / "event.json"
    file.write_bytes(document(CSV))
    assert main(["explain", str(file)]) == 1
    assert f"{routes}:4: unknown key 'setle' in route 'a'; did you mean 'settle'?" in capsys.readouterr().err


def test_says_which_workflow_a_route_starts_by_itself() -> None:
    """`via: workflow_dispatch` is seen with its workflow and branch."""
    text = (
        "routes:\n  - name: direct\n    on: Microsoft.Storage.BlobCreated\n    where: {container: training-data}\n"
        "    settle: none\n    via: workflow_dispatch\n    workflow: train_model.yml\n    ref: release\n"
    )
    (report,) = explain(document(CSV), load_routes(text))
    assert "dispatched as storage-blobcreated to train_model.yml on release" in as_text(report)
