"""`signalbox trace`: the fate of an id and its neighbours, over Azurite and a real model registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from operator_account import ROUTES, Account, event

from functions.adapters.dead_letters import EVENT_GRID_DEAD_LETTERS
from functions.core.dispatch import State
from local.azurite import ACCOUNT


class TestTrace:
    """From any id to its neighbours."""

    def trace(self, signalbox: Callable[..., str], *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(signalbox("trace", *arguments, "--json"))
        return found

    def test_event_in_an_open_window(self, account: Account, signalbox: Callable[..., str]) -> None:
        """It waits, and the id of the dispatch that will carry it is known already; that id says the same."""
        account.take(event("digits/a.csv"), event("digits/b.csv"))
        trace = self.trace(signalbox, "id-digits/a.csv")
        (found,) = trace["events"]
        assert (found["place"], found["event_id"]) == ("open window", "id-digits/a.csv")
        by_dispatch = self.trace(signalbox, found["dispatch"])
        assert "'digits' is still open" in by_dispatch["fate"]
        assert len(by_dispatch["events"]) == 2

    @pytest.mark.parametrize("asked", ["id-digits/a.csv", f"http://127.0.0.1:2/{ACCOUNT}/training-data/digits/a.csv"])
    def test_event_and_blob_lead_to_dispatch_and_run(
        self, asked: str, account: Account, signalbox: Callable[..., str]
    ) -> None:
        """Through the manifest that lists it; the dispatch says what became of it."""
        account.take(event("digits/a.csv"), event("digits/b.csv"), event("iris/a.csv"))
        account.close()
        (row,) = [item for item in account.dispatches() if item.key == "digits"]
        account.change(row, state=State.DONE, sent=datetime.now(UTC), run_id=77, conclusion="success")
        trace = self.trace(signalbox, asked)
        assert [(found["place"], found["dispatch"]) for found in trace["events"]] == [("manifest", row.id)]
        assert trace["fate"] == f"{row.id} started run 77, which ended: success"
        assert [chain["dispatch"]["run"] for chain in trace["chains"]] == [77]
        text = signalbox("trace", asked)
        assert row.id in text
        assert "run        77  success" in text

    def test_run_and_dispatch_lead_to_the_events(self, account: Account, signalbox: Callable[..., str]) -> None:
        """A workflow run leads to its dispatch, and that to all events of its manifest."""
        account.take(event("digits/a.csv"), event("digits/b.csv"))
        account.close()
        (row,) = account.dispatches()
        account.change(row, state=State.CONFIRMED, sent=datetime.now(UTC), run_id=77)
        (chain,) = self.trace(signalbox, "77")["chains"]
        assert chain["origin"] == row.id
        assert len(self.trace(signalbox, chain["origin"])["events"]) == 2
        assert "2 events" in signalbox("trace", row.id)

    def test_dispatch_to_one_workflow(self, account: Account, signalbox: Callable[..., str]) -> None:
        """Its row says which, while it waits and once it is done; so does the trace of its run."""
        account.take(event("digits/a.csv"))
        account.close()
        (row,) = account.dispatches()
        for state in (State.CONFIRMED, State.DONE):
            account.change(row, state=state, workflow="train_model.yml", ref="main", run_id=77, conclusion="success")
            (row,) = account.dispatches() or [row]
            said = signalbox("trace", "77")
            assert row.id in said
            assert "goes to train_model.yml on main" in said
            (chain,) = self.trace(signalbox, "77")["chains"]
            assert [chain["dispatch"][name] for name in ("via", "workflow", "ref", "state")] == [
                "workflow_dispatch",
                "train_model.yml",
                "main",
                str(state),
            ]

    def test_repeated_event_is_not_lost(self, account: Account, signalbox: Callable[..., str]) -> None:
        """An event that a newer one of its blob replaced is found in its finished window, and that is said."""
        account.take(
            {**event("digits/a.csv", etag="0x1"), "id": "one"}, {**event("digits/a.csv", etag="0x2"), "id": "two"}
        )
        account.close()
        (row,) = account.dispatches()
        listed = {
            json.loads(line)["event_id"]
            for line in account.container("manifests").download_blob(f"{row.id}.jsonl").readall().splitlines()
        }
        (dropped,) = {"one", "two"} - listed
        trace = self.trace(signalbox, dropped)
        assert [(found["place"], found["dispatch"]) for found in trace["events"]] == [("closed window", row.id)]
        assert "a newer one of its blob" in trace["fate"]

    def test_dead_letter(self, account: Account, signalbox: Callable[..., str]) -> None:
        """Its reason, and what to do."""
        account.take(event("digits/a.csv", account="stranger"))
        said = signalbox("trace", "id-digits/a.csv")
        assert "'stranger' is not among SIGNALBOX_DATA_ACCOUNTS" in said
        assert "'signalbox replay' takes it in again" in said
        (letter,) = json.loads(signalbox("dead-letters", "--json"))
        assert "id-digits/a.csv" in signalbox("trace", letter["id"])

    def test_without_event_subscriptions(self, account: Account, signalbox: Callable[..., str]) -> None:
        """Event Grid's container comes with the subscriptions; before, there is just nothing in it."""
        account.take({"odd": True})
        account.container(EVENT_GRID_DEAD_LETTERS).delete_container()
        assert len(json.loads(signalbox("dead-letters", "--json"))) == 1

    def test_unknown(self, account: Account, signalbox: Callable[..., str]) -> None:
        """What nothing is known of is one sentence that says where was looked, and status 1."""
        assert "--since looks further back" in signalbox("trace", "nobody", status=1)
        assert "no ledger row and no window" in signalbox("trace", f"sb-{'a' * 20}", status=1)
        assert "no ledger row since" in signalbox("trace", "99", status=1)
        assert "MLFLOW_TRACKING_URI is not set" in signalbox("trace", "digits/1", status=1)

    @pytest.mark.parametrize("event_id", ["4711", "order/7", "train-me-1", f"sb-{'a' * 20}", "urn://a", "endpoints/a"])
    def test_event_id_in_the_form_of_another(
        self, event_id: str, account: Account, signalbox: Callable[..., str]
    ) -> None:
        """Publishers choose their ids: where nothing else has that name, the event is found."""
        account.take({**event("digits/a.csv"), "id": event_id})
        (found,) = self.trace(signalbox, event_id)["events"]
        assert (found["place"], found["event_id"]) == ("open window", event_id)

    def test_ids_and_spans_out_of_reach(self, account: Account, signalbox: Callable[..., str]) -> None:
        """Numbers that no run has and times before the calendar are asked for like any; an unknown job has no start."""
        assert "no ledger row since" in signalbox("trace", "9" * 5_000, status=1)
        assert "nobody" in signalbox("trace", "nobody", "--since", "999999d", status=1)
        job = signalbox("trace", f"train-sb-{'a' * 20}-1", status=1)
        assert f"nothing is known of sb-{'a' * 20} either" in job
        assert "started by" not in job

    def test_blob_of_a_route_without_window(
        self, account: Account, signalbox: Callable[..., str], tmp_path: Path
    ) -> None:
        """Its event stands in no manifest; its dispatch is found by the blob all the same."""
        (tmp_path / "routes.yml").write_text(ROUTES.replace("settle: {quiet: 1s, max_wait: 1s}", "settle: none"))
        account.upload("digits/a.csv")
        signalbox("rescan", "--yes", "--until", "0s")
        (row,) = account.dispatches()
        trace = self.trace(signalbox, f"http://127.0.0.1:2/{ACCOUNT}/training-data/digits/a.csv")
        assert [(found["place"], found["dispatch"]) for found in trace["events"]] == [("ledger", row.id)]
        assert trace["fate"] == f"{row.id} waits to be sent"

    @pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
    def test_model_job_and_both_dispatches(
        self, account: Account, signalbox: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A model version, its job, the dispatch that started it and the one that its end caused name each other."""
        account.take(event("digits/a.csv"))
        account.close()
        (row,) = account.dispatches()
        job = f"train-{row.id}-1"
        ended = {"runId": job, "runTags": {"signalbox_origin": row.id}, "experimentName": "digits"}
        account.take(
            {
                "id": "ended",
                "eventType": "Microsoft.MachineLearningServices.RunCompleted",
                "topic": "/w",
                "subject": f"experiments/e/runs/{job}",
                "eventTime": "2026-11-20T10:00:00Z",
                "data": ended,
            }
        )
        (later,) = [item for item in account.dispatches() if item.route == "deploy"]
        uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
        register(uri, {"signalbox_origin": row.id, "signalbox_job": job})
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        for asked in (later.id, job, "digits/1"):
            (chain,) = self.trace(signalbox, asked)["chains"]
            assert (chain["origin"], chain["dispatch"]["id"], chain["job"]) == (row.id, row.id, job)
            assert (chain["model"], chain["version"]) == ("digits", "1")
            assert [item["id"] for item in chain["later"]] == [later.id]
        assert "there is no model version digits/2" in signalbox("trace", "digits/2", status=1)


def register(uri: str, tags: dict[str, str]) -> None:
    """A job and the model version that it registered."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_run(client.create_experiment("digits"), tags=tags)
    client.create_registered_model("digits")
    client.create_model_version("digits", "file:///model", tags=tags)
