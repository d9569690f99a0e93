"""`signalbox dead-letters`, `replay`, `trace` and `rescan` over a real Azurite, with events taken in by the flow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from azure.storage.blob import ContainerClient
from test_up import FakeGitHub, Up, environment, event as event_of, eventually, github, post  # noqa: F401 - two of them are fixtures

from functions.adapters.account import CONTAINERS, StateStorage
from functions.adapters.dead_letters import EVENT_GRID_DEAD_LETTERS, DeadLetterBox
from functions.adapters.storage import AzureQueue, AzureStore
from functions.adapters.system import SystemChance, SystemClock
from functions.core.dispatch import Dispatch, State
from functions.core.github import Answer, NoAnswer, Span
from functions.core.payload import build_request
from functions.core.routes_file import load_routes
from functions.core.values import JsonObject
from functions.flow.orchestrator import Orchestrator
from functions.settings import StateAccount
from local.azurite import ACCOUNT
from local.cli import main
from local.provision import DATA_CONTAINER, provision

ROUTES = """
routes:
  - name: train
    on: Microsoft.Storage.BlobCreated
    where: {container: training-data, suffix: .csv}
    key: folder
    settle: {quiet: 1s, max_wait: 1s}
    dispatch: storage-blobcreated
  - name: deploy
    on: Microsoft.MachineLearningServices.RunCompleted
    where: {root_run: true}
    settle: none
"""
TOPIC = f"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}"


class NoGitHub:
    """No test here sends anything."""

    async def create_dispatch(self, repository: str, body: JsonObject) -> Answer | NoAnswer:
        raise AssertionError

    async def start_workflow(self, repository: str, workflow: str, body: JsonObject) -> Answer | NoAnswer:
        raise AssertionError

    async def list_runs(self, repository: str, trigger: str, span: Span, page: int) -> Answer | NoAnswer:
        raise AssertionError

    async def list_jobs(self, repository: str, run_id: int) -> Answer | NoAnswer:
        raise AssertionError


@dataclass
class Account:
    """The emptied local account, and the function app's flow over it."""

    storage: StateStorage
    connection: str

    def flow(self) -> Orchestrator:
        """A fresh one for each event loop, with windows that settle at once."""
        routes = tuple(
            replace(route, settle=replace(route.settle, quiet=timedelta(), max_wait=timedelta()))
            if route.settle
            else route
            for route in load_routes(ROUTES)
        )
        return Orchestrator.build(
            routes=routes,
            store=AzureStore(self.storage),
            queue=AzureQueue(self.storage),
            github=NoGitHub(),
            clock=SystemClock(),
            chance=SystemChance(),
            repository="octo/models",
            data_accounts=frozenset({ACCOUNT}),
        )

    def take(self, *events: object) -> None:
        """Take events in."""

        async def take() -> None:
            flow = self.flow()
            await asyncio.gather(*(flow.intake.take_value(event) for event in events))

        asyncio.run(take())

    def close(self) -> None:
        """Close every open window."""

        async def close() -> None:
            flow = self.flow()
            for head in await flow.store.heads_to_look_at():
                await flow.closer.look(head.route, head.key)

        asyncio.run(close())

    def dispatches(self) -> list[Dispatch]:
        """Unfinished ledger rows."""
        return asyncio.run(self.flow().store.unfinished_dispatches())

    def change(self, dispatch: Dispatch, **changes: Any) -> Dispatch:
        """Write a ledger row as the sender would leave it."""
        return asyncio.run(self.flow().store.replace_dispatch(replace(dispatch, **changes)))

    def container(self, name: str) -> ContainerClient:
        """Its client."""
        return self.storage.blobs.get_container_client(name)

    def names(self, container: str) -> list[str]:
        """Names of the blobs."""
        return [str(blob.name) for blob in self.container(container).list_blobs()]

    def listed(self) -> list[str]:
        """Paths' last parts of all lines of all manifests, sorted."""
        names = self.names("manifests")
        manifests = [self.container("manifests").download_blob(name).readall() for name in names]
        lines = [line for content in manifests for line in content.splitlines()]
        return sorted(json.loads(line)["subject"].rsplit("/", 1)[-1] for line in lines)

    def upload(self, path: str, content: bytes = b"x\n1\n") -> dict[str, Any]:
        """Put a blob into the data container; gives the event that storage raises for it."""
        blob = self.container(DATA_CONTAINER).get_blob_client(path)
        done = blob.upload_blob(content, overwrite=True)
        return event(path, etag=str(done["etag"]).strip('"'), time=datetime.now(UTC))


def event(path: str, *, etag: str = "0x1", time: datetime | None = None, account: str = ACCOUNT) -> dict[str, Any]:
    """BlobCreated."""
    return {
        "id": f"id-{path}",
        "eventType": "Microsoft.Storage.BlobCreated",
        "topic": TOPIC,
        "subject": f"/blobServices/default/containers/{DATA_CONTAINER}/blobs/{path}",
        "eventTime": (time or datetime.now(UTC)).isoformat(),
        "data": {
            "api": "PutBlob",
            "eTag": etag,
            "contentLength": 4,
            "url": f"http://127.0.0.1:1/{account}/{DATA_CONTAINER}/{path}",
            "sequencer": f"{crc32(etag.encode()):048x}",
        },
    }


@pytest.fixture
def account(azurite: str) -> Account:
    """The local account, with nothing in it that another test left."""
    provision(azurite)
    storage = StateStorage(StateAccount(connection_string=azurite))
    found = Account(storage, azurite)
    for name in (*CONTAINERS, DATA_CONTAINER, EVENT_GRID_DEAD_LETTERS):
        for blob in found.names(name):
            found.container(name).delete_blob(blob)
    for table in ("heads", "ledger"):
        client = storage.tables.get_table_client(table)
        for row in client.list_entities(select=["PartitionKey", "RowKey"]):
            client.delete_entity(row["PartitionKey"], row["RowKey"])
    return found


@pytest.fixture
def signalbox(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a command with its settings from the environment; gives what it says. Its status is expected to be 0."""
    routes = tmp_path / "routes.yml"
    routes.write_text(ROUTES)
    for name in ("PAT_TOKEN", "MLFLOW_TRACKING_URI", "ENDPOINTS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AzureWebJobsStorage", account.connection)
    monkeypatch.setenv("GITHUB_REPOSITORY", "octo/models")
    monkeypatch.setenv("SIGNALBOX_DATA_ACCOUNTS", ACCOUNT)
    monkeypatch.setenv("SIGNALBOX_ROUTES", str(routes))

    def run(*arguments: str, status: int = 0) -> str:
        capsys.readouterr()
        ended = main([*arguments, "--dir", str(tmp_path / "none")])
        said = capsys.readouterr()
        assert ended == status, said.err
        assert "Traceback" not in said.err
        return said.err if status else said.out

    return run


def give_up(account: Account, *events: dict[str, Any]) -> None:
    """What Event Grid writes once it has tried for long enough."""
    fate = {
        "deadLetterReason": "MaxDeliveryAttemptsExceeded",
        "deliveryAttempts": 30,
        "lastDeliveryOutcome": "NotFound",
        "publishTime": "2026-11-20T10:00:00.0000000Z",
        "lastDeliveryAttemptTime": "2026-11-20T11:00:00.0000000Z",
    }
    content = json.dumps([{**one, **fate} for one in events])
    account.container(EVENT_GRID_DEAD_LETTERS).upload_blob("STORAGE/2026/11/20/11/1.json", content.encode())


class TestDeadLetters:
    """Listing and replaying what could not be used."""

    def test_lists_both_containers(self, account: Account, signalbox: Callable[..., str]) -> None:
        """Our own dead letters and Event Grid's are one list, with id, reason, time, type and subject."""
        assert json.loads(signalbox("dead-letters", "--json")) == []
        account.take(event("digits/a.csv", account="stranger"), {"odd": True})
        give_up(account, event("digits/b.csv"))
        found = {report["container"]: report for report in json.loads(signalbox("dead-letters", "--json"))}
        by_event_grid = found[EVENT_GRID_DEAD_LETTERS]
        assert by_event_grid["reason"] == "MaxDeliveryAttemptsExceeded, last outcome NotFound"
        assert by_event_grid["time"] == "2026-11-20T11:00:00.000000Z"
        assert by_event_grid["subject"].endswith("digits/b.csv")
        text = signalbox("dead-letters")
        assert "'stranger' is not among SIGNALBOX_DATA_ACCOUNTS" in text
        assert "neither the Event Grid schema" in text
        assert all(report["id"] in text for report in found.values())

    def test_replay_says_first_and_does_then_and_never_twice(
        self, account: Account, signalbox: Callable[..., str]
    ) -> None:
        """A dry run changes nothing; --yes takes the events in and puts the letters away; a second time finds none."""
        give_up(account, event("digits/a.csv"), event("digits/b.csv"))
        said = signalbox("replay")
        assert "to train, key 'digits'" in said
        assert "would replay 2 dead letters and 0 dispatches; nothing was changed" in said
        account.close()
        assert account.listed() == []
        assert "replayed 2 dead letters" in signalbox("replay", "--yes")
        account.close()
        assert account.listed() == ["a.csv", "b.csv"]
        assert json.loads(signalbox("dead-letters", "--json")) == []
        assert len([name for name in account.names(EVENT_GRID_DEAD_LETTERS) if name.startswith("replayed/")]) == 2
        assert "nothing to replay" in signalbox("replay", "--yes")

    def test_replay_of_one_leaves_the_others_of_its_blob(self, account: Account, signalbox: Callable[..., str]) -> None:
        """By event id or letter id, just that letter goes; the rest of the blob stays where it is."""
        give_up(account, event("digits/a.csv"), event("digits/b.csv"))
        signalbox("replay", "--yes", "--id", "id-digits/a.csv")
        (left,) = json.loads(signalbox("dead-letters", "--json"))
        assert left["event_id"] == "id-digits/b.csv"
        signalbox("replay", "--yes", "--id", left["id"])
        account.close()
        assert account.listed() == ["a.csv", "b.csv"]

    def test_what_would_be_refused_again_stays(self, account: Account, signalbox: Callable[..., str]) -> None:
        """A letter whose cause is not mended is told, and is still there afterwards; mended, it goes."""
        account.take(event("digits/a.csv", account="stranger"))
        said = signalbox("replay", "--yes")
        assert "stays: its storage account 'stranger'" in said
        assert len(json.loads(signalbox("dead-letters", "--json"))) == 1

    def test_mended_setting_lets_it_go(
        self, account: Account, signalbox: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once the account is among the data accounts, our own dead letter is taken in like any event."""
        account.take(event("digits/a.csv", account="stranger"))
        monkeypatch.setenv("SIGNALBOX_DATA_ACCOUNTS", f"{ACCOUNT},stranger")
        assert "replayed 1 dead letter and" in signalbox("replay", "--yes", "--route", "train", "--since", "1h")
        account.close()
        assert account.listed() == ["a.csv"]
        assert json.loads(signalbox("dead-letters", "--json")) == []

    def test_crash_between_taking_in_and_putting_away(
        self, account: Account, signalbox: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The letter is then still there; replayed again, its event is a duplicate and is dispatched once."""
        give_up(account, event("digits/a.csv"))

        def crash(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(DeadLetterBox, "put_away", crash)
            signalbox("replay", "--yes", status=130)
        account.close()
        signalbox("replay", "--yes")
        account.close()
        assert account.listed() == ["a.csv"]
        assert [item.event_count for item in account.dispatches()] == [1]

    def test_time_span(self, account: Account, signalbox: Callable[..., str]) -> None:
        """--since and --until bound the time at which a letter was given up."""
        give_up(account, event("digits/a.csv"))
        assert "nothing to replay" in signalbox("replay", "--until", "2026-11-20T10:59:00Z")
        assert "nothing to replay" in signalbox("replay", "--since", "2026-11-20T11:01:00Z")
        span = ("--since", "2026-11-20T11:00:00Z", "--until", "2026-11-20T12:00:00+01:00")
        assert "would replay 1 dead letter" in signalbox("replay", *span)

    def test_parked_dispatch_is_sent_again(self, account: Account, signalbox: Callable[..., str]) -> None:
        """A parked dispatch becomes ready; one that GitHub refused for good only when it is named."""
        account.take(event("digits/a.csv"), event("iris/a.csv"))
        account.close()
        parked, dead = account.dispatches()
        account.change(parked, state=State.PARKED, reason="PAT_TOKEN is refused")
        account.change(dead, state=State.DEAD, reason="GitHub refused it")
        assert "PAT_TOKEN is refused" in signalbox("replay")
        assert [item.state for item in account.dispatches()] == [State.PARKED]
        assert dead.id in signalbox("dead-letters")
        assert "and 1 dispatch" in signalbox("replay", "--yes")
        assert [(item.id, item.state) for item in account.dispatches()] == [(parked.id, State.READY)]
        signalbox("replay", "--yes", "--id", dead.id)
        assert {item.id: item.state for item in account.dispatches()}[dead.id] is State.READY

    def test_replays_are_counted(self, account: Account, signalbox: Callable[..., str]) -> None:
        """Each replay of a dispatch is counted in its row, and told by trace and by what GitHub is sent."""
        account.take(event("digits/a.csv"))
        account.close()
        for count, said in ((1, "replayed once"), (2, "replayed 2 times")):
            (row,) = account.dispatches()
            account.change(row, state=State.PARKED, reason="PAT_TOKEN is refused")
            signalbox("replay", "--yes")
            (row,) = account.dispatches()
            assert build_request(row)["client_payload"]["replay"] == count  # type: ignore[index, call-overload]
            assert said in signalbox("trace", row.id)
            (chain,) = json.loads(signalbox("trace", row.id, "--json"))["chains"]
            assert chain["dispatch"]["replays"] == count

    def test_unknown_id_route_and_time(self, signalbox: Callable[..., str]) -> None:
        """Each is one sentence that names what was written."""
        assert "has the id nothing" in signalbox("replay", "--id", "nothing", status=1)
        assert "--route nowhere: the routes are train, deploy" in signalbox("replay", "--route", "nowhere", status=1)
        with pytest.raises(SystemExit):
            signalbox("replay", "--since", "yesterday")


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


class TestRescan:
    """Blobs that no event has told of."""

    NOW = ("--until", "0s")

    def test_takes_in_what_is_missing_and_only_once(self, account: Account, signalbox: Callable[..., str]) -> None:
        """Blobs whose events came are known; the others are told, taken in with --yes, and known from then on."""
        account.take(account.upload("digits/told.csv"))
        account.close()
        account.take(account.upload("digits/waiting.csv"))
        account.upload("digits/missing one.csv")
        account.upload("digits/readme.txt")
        said = signalbox("rescan", *self.NOW)
        assert "4 blobs: 2 known, 1 wanted by no route, 0 in the dead letters" in said
        assert "digits/missing one.csv" in said
        assert "to train, key 'digits'" in said
        account.close()
        assert account.listed() == ["told.csv", "waiting.csv"]
        assert "took 1 in" in signalbox("rescan", "--yes", *self.NOW)
        assert "3 known" in signalbox("rescan", "--yes", *self.NOW)
        account.close()
        assert account.listed() == ["missing one.csv", "told.csv", "waiting.csv"]
        assert "0 missing" in signalbox("rescan", "--yes", *self.NOW)

    def test_its_events_are_the_same_each_time(
        self, account: Account, signalbox: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two rescans that did not see each other's events still dispatch a blob once."""
        account.upload("digits/a.csv")
        monkeypatch.setattr("functions.core.rescan.Known.has", lambda *_: False)
        for _ in range(2):
            signalbox("rescan", "--yes", *self.NOW)
            signalbox("rescan", "--yes", *self.NOW)
            account.close()
        assert account.listed() == ["a.csv"]

    def test_new_version_of_a_known_blob_is_missing(self, account: Account, signalbox: Callable[..., str]) -> None:
        """What counts is the etag, not the name."""
        account.take(account.upload("digits/a.csv"))
        account.upload("digits/a.csv", b"y\n2\n")
        assert "1 missing" in signalbox("rescan", *self.NOW)

    def test_dead_letter_is_left_to_replay(self, account: Account, signalbox: Callable[..., str]) -> None:
        """The real event knows more than a made-up one: as long as it can be replayed, rescan leaves it."""
        give_up(account, account.upload("digits/a.csv"))
        assert "1 in the dead letters ('signalbox replay' takes them in), 0 missing" in signalbox("rescan", *self.NOW)

    def test_event_of_a_route_without_window_is_known(
        self, account: Account, signalbox: Callable[..., str], tmp_path: Path
    ) -> None:
        """Such an event stands in no manifest, but in the ledger."""
        text = ROUTES.replace("settle: {quiet: 1s, max_wait: 1s}", "settle: none")
        (tmp_path / "routes.yml").write_text(text)
        account.upload("digits/a.csv")
        assert "took 1 in" in signalbox("rescan", "--yes", *self.NOW)
        assert "1 known" in signalbox("rescan", "--yes", *self.NOW)

    def test_what_is_looked_through(self, account: Account, signalbox: Callable[..., str]) -> None:
        """Prefix and span narrow it; young blobs are left, because their events may still be under way."""
        account.upload("digits/a.csv")
        account.upload("iris/a.csv")
        assert "0 blobs:" in signalbox("rescan")
        assert "1 blob:" in signalbox("rescan", "--prefix", "iris/", *self.NOW)
        assert "0 blobs:" in signalbox("rescan", "--since", "2099-01-01", *self.NOW)
        said = signalbox("rescan", "--container", "nowhere", status=1)
        assert said == f"signalbox: account {ACCOUNT} has no container 'nowhere': name another with --container\n"


class TestSurroundings:
    """Where the commands look."""

    @pytest.mark.parametrize("command", [["dead-letters"], ["replay"], ["trace", "e1"], ["rescan"]])
    def test_nothing_to_ask(self, command: list[str], signalbox: Callable[..., str], monkeypatch: Any) -> None:
        """Without a run and without settings, one sentence says how to get to either."""
        monkeypatch.delenv("AzureWebJobsStorage")
        assert "start 'signalbox up', name its folder with --dir, or set" in signalbox(*command, status=1)

    @pytest.mark.parametrize("command", [["dead-letters"], ["replay"], ["trace", "e1"], ["rescan"]])
    def test_storage_away(
        self, command: list[str], signalbox: Callable[..., str], account: Account, monkeypatch: Any
    ) -> None:
        """Storage that does not answer is one sentence, not a traceback."""
        port = account.connection.partition("BlobEndpoint=http://127.0.0.1:")[2].partition("/")[0]
        monkeypatch.setenv("AzureWebJobsStorage", account.connection.replace(f":{port}/", ":9/"))
        said = signalbox(*command, status=1)
        assert "does not answer" in said
        assert said.count("\n") == 1

    def test_unreadable_connection_string(self, signalbox: Callable[..., str], monkeypatch: Any) -> None:
        """The setting is named."""
        monkeypatch.setenv("AzureWebJobsStorage", "x")
        assert "AzureWebJobsStorage cannot be read" in signalbox("dead-letters", status=1)


def test_beside_a_running_signalbox_up(
    tmp_path: Path,
    environment: dict[str, str],  # noqa: F811
    github: FakeGitHub,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With --dir alone the commands find the run, its routes and its settings; what they take in is dispatched."""
    folder = tmp_path / "state"

    def signalbox(*arguments: str, status: int = 0) -> str:
        capsys.readouterr()
        assert main([*arguments, "--dir", str(folder)]) == status
        said = capsys.readouterr()
        return said.err if status else said.out

    def found(*arguments: str) -> bool:
        capsys.readouterr()
        return main([*arguments, "--dir", str(folder)]) == 0 and "ended: success" in capsys.readouterr().out

    up = Up(folder, environment, "--only", "storage,functions")  # no Event Grid: uploads raise no event
    try:
        kept = json.loads((folder / "run.json").read_text())
        assert "PAT_TOKEN" not in kept["settings"]
        file = tmp_path / "a.csv"
        file.write_text("x\n1\n")
        signalbox("upload", str(file), "--folder", "mine")
        assert "to quick, key 'mine'" in signalbox("rescan", "--until", "0s", "--yes")
        eventually(lambda: bool(github.dispatches), "no dispatch came")
        payload = github.dispatches[0]["client_payload"]
        assert (payload["key"], payload["manifest"]["count"]) == ("mine", 1)
        stranger = event_of("b")
        stranger["data"]["url"] = "https://stranger.blob.core.windows.net/training-data/digits/b.csv"
        assert post(up.intake, [stranger])
        assert "'stranger' is not among" in signalbox("dead-letters")
        assert "stays: its storage account 'stranger'" in signalbox("replay", "--yes")
        url = f"http://127.0.0.1:1/{ACCOUNT}/{DATA_CONTAINER}/mine/a.csv"
        eventually(lambda: found("trace", url), "the run was not found")
        assert payload["dispatch_id"] in signalbox("trace", "1")
    finally:
        up.stop()
    assert "does not answer" in signalbox("dead-letters", status=1)
