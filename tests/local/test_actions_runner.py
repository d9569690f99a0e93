"""Runs of real workflow files under the real act: what happens, what is shown, what is left."""

from __future__ import annotations

import contextlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from github_fixtures import NAME, OWNER, Server

from local.github.actions_runner import RunnerError, read_machine
from local.github.workspaces import Workspaces

SECRET, LINES = "s3cret $HOME #'\"", "first-line\nsecond-line"
MACHINE = {
    "secrets": {"ODD": SECRET, "LINES": LINES},
    "vars": {"PLAIN": "a b $HOME \"q\" #'x'"},
    "env": {"FROM_MACHINE": "set"},
}
HEAD = "on: {{repository_dispatch: {{types: [{0}]}}}}\nname: {0}\n"
JOBS = "jobs:\n  one:\n    runs-on: ubuntu-latest\n    steps:\n"
WORKFLOWS = {
    "good": JOBS.replace("one:", "one:\n    outputs: {word: '${{ steps.word.outputs.word }}'}")
    + """
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1
      - uses: actions/setup-python@5fda3b95a4ea91299a34e894583c3862153e4b97
        with: {python-version: "3.11"}
      - name: Look
        id: word
        env: {KEY: "${{ github.event.client_payload.key }}", VALUE: "${{ vars.PLAIN }}"}
        run: |
          printf 'key=[%s] value=[%s]\\n' "$KEY" "$VALUE"
          echo "id=$GITHUB_RUN_ID repository=$GITHUB_REPOSITORY machine=$FROM_MACHINE own=[$SERVERS_OWN_SETTING]"
          echo "link=${{ github.server_url }}/${{ github.repository }}/actions/runs/${{ github.run_id }}"
          printf '\\033[31mred\\033[0m\\n'
          test -f .github/workflows/good.yml && git log --oneline | cat
          echo "## Report of $KEY" >> "$GITHUB_STEP_SUMMARY"
          echo "word=handed-on" >> "$GITHUB_OUTPUT"
      - {name: Never, if: false, run: echo never}
  two:
    needs: one
    runs-on: ubuntu-24.04
    environment: production
    timeout-minutes: 5
    permissions: {contents: read, id-token: write}
    steps:
      - name: Hear
        env: {WORD: "${{ needs.one.outputs.word }}"}
        run: echo "word=$WORD"; echo "- second job" >> "$GITHUB_STEP_SUMMARY"
""",
    "bad": JOBS
    + """
      - {name: Forgiven, run: exit 4, continue-on-error: true}
      - {name: Broken, run: exit 3}
      - {name: After, run: echo after}
      - {name: Always, if: always(), run: echo cleanup}
  two:
    needs: one
    runs-on: ubuntu-latest
    steps: [{run: echo never}]
""",
    "secret": JOBS
    + """
      - env: {ODD: "${{ secrets.ODD }}", LINES: "${{ secrets.LINES }}"}
        run: |
          python -c 'import os; print(os.environ["ODD"] == os.environ["EXPECTED"])'
          echo "odd=$ODD"; echo "lines=$LINES"; echo "sum $LINES" >> "$GITHUB_STEP_SUMMARY"
""",
    "refused": "concurrency: {group: a, queue: max}\n" + JOBS + "      - run: echo hi\n",
    "no-runner": "jobs: {one: {runs-on: windows-latest, steps: [{run: echo hi}]}}\n",
    "unknown": JOBS + "      - uses: octo/unknown@v1\n",
    "title": "run-name: ${{ secrets.ODD }}\n" + JOBS + "      - run: echo hi\n",
    "none": "jobs: {one: {if: false, runs-on: ubuntu-latest, steps: [{run: echo hi}]}}\n",
    "artifact": JOBS
    + """
      - run: mkdir -p out/deep && echo 1 > out/deep/a.txt && echo 2 > "out/b c.txt"
      - uses: actions/upload-artifact@bbbca2ddaa5d8feaa63e36b76fdaad77386f024f
        with: {name: things, path: "out/**/*.txt"}
""",
    "long": 'concurrency: {group: "g-${{ github.event.client_payload.key }}"}\n'
    + JOBS
    + """
      - name: Wait
        env: {GATE: "${{ github.event.client_payload.gate }}"}
        run: setsid sleep 300 & echo waiting; until [ -e "$GATE" ]; do sleep 0.05; done; echo open
      - {name: Tidy, if: always(), run: echo tidied}
""",
    "pushy": "concurrency: {group: pushy, cancel-in-progress: true}\n"
    + JOBS
    + """
      - name: Wait
        env: {GATE: "${{ github.event.client_payload.gate }}"}
        run: until [ -e "$GATE" ]; do sleep 0.05; done
""",
    "matrix": """
jobs:
  one:
    strategy: {matrix: {size: [small, large]}}
    runs-on: ubuntu-latest
    steps: [{run: "echo size=${{ matrix.size }}"}]
""",
}


def new_server(folder: Path) -> Server:
    """A server over all workflows of this file."""
    files = {f"{name}.yml": HEAD.format(name) + text for name, text in WORKFLOWS.items()}
    machine = {**MACHINE, "env": {**MACHINE["env"], "EXPECTED": SECRET}}
    return Server(folder, files, machine).start()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests that leave it as it was."""
    server = new_server(tmp_path_factory.mktemp("runner"))
    try:
        yield server
    finally:
        server.stop()


def finished(server: Server, event_type: str, **payload: str) -> dict[str, object]:
    """Dispatch, and the run once all runs are completed."""
    count = len(server.runs())
    server.dispatch(event_type, **payload)
    return server.settled(count + 1)[-1]


def states(server: Server, run: dict[str, object]) -> dict[str, str]:
    """Conclusion of each step by its name, over all jobs."""
    return {step["name"]: step["conclusion"] for job in server.jobs(run["id"]) for step in job["steps"]}


def is_waiting(server: Server, run_id: int) -> bool:
    """Whether a run of workflow `long` is in the middle of its step, as its jobs and its log say."""
    return server.started(run_id, "Wait") and "waiting" in server.text(run_id)


def alive(server: Server) -> list[str]:
    """Processes of this server's runs: guards, act, steps and whatever the steps started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SIGNALBOX_ARTIFACTS", "").startswith(f"{server.state}/"):
                found.append(process.name())
    return found


def test_good_run(server: Server, tmp_path: Path) -> None:
    """Two jobs pass; payload text stays text, summaries are kept, the machine's environment and python are there."""
    trap = tmp_path / "pwned"
    key = f"a$(touch {trap})`touch {trap}`\"; touch {trap} #'&<b>"
    run = finished(server, "good", key=key)
    log = server.text(run["id"])
    assert run["conclusion"] == "success", log
    assert not trap.exists()
    assert f"key=[{key}] value=[{MACHINE['vars']['PLAIN']}]" in log
    assert f"id={run['id']} repository={OWNER}/{NAME} machine=set own=[]" in log
    assert f"link={run['html_url']}" in log
    assert "\x1b" not in log
    assert str(run["head_sha"])[:7] in log
    assert "keeping the runner's Python" in log
    assert "word=handed-on" in log
    assert server.text(run["id"], "summary.md").split("\n\n")[:2] == [f"## Report of {key}", "- second job"]
    assert states(server, run)["Never"] == "skipped"
    assert [job["name"] for job in server.jobs(run["id"])] == ["one", "two"]
    page = requests.get(str(run["html_url"]), timeout=10).text
    assert "<h2>Report of a$(touch" in page
    assert "<b>" not in page


def test_bad_run(server: Server) -> None:
    """A failing step fails its job and the run; later steps and jobs are skipped, always() still runs."""
    run = finished(server, "bad")
    assert run["conclusion"] == "failure"
    steps = states(server, run)
    assert [steps[name] for name in ("Forgiven", "Broken", "After", "Always")] == [
        "success",
        "failure",
        "skipped",
        "success",
    ]
    assert [job["conclusion"] for job in server.jobs(run["id"])] == ["failure", "skipped"]
    assert "exit status 3" in server.text(run["id"])


def test_secrets_arrive_and_are_masked(server: Server) -> None:
    """A secret reaches the step unchanged, quotes and dollars included, and is hidden in log and summary, each line."""
    run = finished(server, "secret")
    shown = server.text(run["id"]) + server.text(run["id"], "summary.md")
    assert "True" in shown
    assert "odd=***" in shown
    for hidden in (SECRET, *LINES.splitlines()):
        assert hidden not in shown
    left = [path for path in (server.state / "runs" / str(run["id"])).rglob("*") if path.is_file()]
    assert not any(SECRET in path.read_text() or "second-line" in path.read_text() for path in left)


@pytest.mark.parametrize(
    ("event_type", "conclusion", "reason"),
    [
        ("refused", "failure", "Unknown Property queue"),
        ("no-runner", "failure", "runs-on: ubuntu-latest"),
        ("unknown", "failure", "local/github/action_stubs/octo/unknown/action.yml"),
        ("title", "startup_failure", "unknown name 'secrets'"),
        ("none", "skipped", "run ended: skipped"),
    ],
)
def test_run_that_cannot_be_done_says_why(server: Server, event_type: str, conclusion: str, reason: str) -> None:
    """What this machine or act cannot do ends the run with its reason in the log."""
    run = finished(server, event_type)
    assert run["conclusion"] == conclusion
    assert reason in server.text(run["id"])


def test_artifacts_are_kept_with_the_run(server: Server) -> None:
    """upload-artifact copies the files that its pattern names into the run's folder."""
    run = finished(server, "artifact")
    folder = server.state / "runs" / str(run["id"]) / "artifacts/things"
    assert run["conclusion"] == "success", server.text(run["id"])
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b c.txt"]


def test_matrix_jobs_have_names_of_their_own(server: Server) -> None:
    """Each job of a matrix is shown with its values."""
    run = finished(server, "matrix")
    assert sorted(job["name"] for job in server.jobs(run["id"])) == ["one (large)", "one (small)"]


def test_every_pinned_checkout_works_with_a_ref(tmp_path: Path, contracts: Path) -> None:
    """actions/checkout at each released commit gets the source, also with ref and path, and without a network."""
    pins = json.loads((contracts / "github/action-pins.json").read_text(encoding="utf-8"))["actions"][
        "actions/checkout"
    ].values()
    steps = "".join(
        f"      - {{uses: actions/checkout@{pin}}}\n"
        f"      - {{uses: actions/checkout@{pin}, with: {{ref: main, path: at-{pin}}}}}\n"
        f"      - run: test -f at-{pin}/.github/workflows/x.yml && git -C at-{pin} rev-parse HEAD\n"
        for pin in pins
    )
    server = Server(tmp_path, {"x.yml": HEAD.format("x") + JOBS + steps}).start()
    try:
        run = finished(server, "x")
        assert run["conclusion"] == "success", server.text(run["id"])
        assert server.text(run["id"]).count(str(run["head_sha"])) == len(pins)
    finally:
        server.stop()


def test_cancelled_run_leaves_nothing(server: Server, tmp_path: Path) -> None:
    """Cancel answers 202, ends the step and its children, runs always() steps, and the run is cancelled."""
    count = len(server.runs())
    server.dispatch("long", key="cancel", gate=str(tmp_path / "never"))
    run = server.until(lambda: server.runs()[count:])[0]
    server.until(lambda: is_waiting(server, run["id"]))
    assert {"act", "sleep"} <= set(alive(server))
    assert server.call("POST", f"/actions/runs/{run['id']}/cancel").status_code == 202
    run = server.settled(count + 1)[-1]
    assert run["conclusion"] == "cancelled"
    assert states(server, run) == {
        "Set up job": "success",
        "Wait": "cancelled",
        "Tidy": "success",
        "Complete job": "success",
    }
    assert "tidied" in server.text(run["id"])
    server.until(lambda: not alive(server))


def test_act_that_dies_fails_the_run(server: Server, tmp_path: Path) -> None:
    """When act itself is killed the run ends as a failure that says so, and its steps do not outlive it."""
    count = len(server.runs())
    server.dispatch("long", key="dies", gate=str(tmp_path / "never"))
    run = server.until(lambda: server.runs()[count:])[0]
    server.until(lambda: is_waiting(server, run["id"]))
    next(child for child in psutil.Process(server.pid).children(recursive=True) if child.name() == "act").kill()
    run = server.settled(count + 1)[-1]
    assert run["conclusion"] == "failure"
    assert "act died of signal 9" in server.text(run["id"])
    assert states(server, run)["Wait"] == "failure"
    server.until(lambda: not alive(server))


def test_group_keeps_one_running_and_one_pending(server: Server, tmp_path: Path) -> None:
    """Of three runs of one group the first runs, the second gives way to the third; another group is not held up."""
    count, gate = len(server.runs()), tmp_path / "gate"
    for _ in range(2):
        server.dispatch("long", key="Group", gate=str(gate))
    server.until(lambda: [run["status"] for run in server.runs()[count:]] == ["in_progress", "pending"])
    server.dispatch("long", key="group", gate=str(gate))
    other = tmp_path / "other"
    other.touch()
    server.dispatch("long", key="other", gate=str(other))
    wanted = [("in_progress", None), ("completed", "cancelled"), ("pending", None), ("completed", "success")]
    server.until(lambda: [(run["status"], run["conclusion"]) for run in server.runs()[count:]] == wanted)
    gate.touch()
    ended = server.settled(count + 4)[count:]
    assert [run["conclusion"] for run in ended] == ["success", "cancelled", "success", "success"]
    assert "came after it" in server.text(ended[1]["id"])


def test_cancel_in_progress_ends_the_run_before(server: Server, tmp_path: Path) -> None:
    """With cancel-in-progress the newer run ends the older one and then runs itself."""
    count, gate = len(server.runs()), tmp_path / "gate"
    server.dispatch("pushy", gate=str(tmp_path / "never"))
    server.until(lambda: server.runs()[count]["status"] == "in_progress")
    gate.touch()
    server.dispatch("pushy", gate=str(gate))
    assert [run["conclusion"] for run in server.settled(count + 2)[count:]] == ["cancelled", "success"]


def test_crash_closes_what_ran_and_goes_on_with_the_queue(tmp_path: Path) -> None:
    """After SIGKILL and a new start: what ran is the failure of a dead runner, queued and pending runs still run."""
    (tmp_path / "at").mkdir()
    server, gate = new_server(tmp_path / "at"), tmp_path / "gate"
    try:
        for key in ("a", "b", "c", "a"):
            server.dispatch("long", key=key, gate=str(gate))
        wanted = ["in_progress", "in_progress", "queued", "pending"]
        server.until(lambda: [run["status"] for run in server.runs()] == wanted)
        server.until(lambda: all(is_waiting(server, run["id"]) for run in server.runs()[:2]))
        server.kill()
        (server.project / "changed-meanwhile.txt").write_text("x")
        gate.touch()
        server.start()
        ended = server.settled(4)
        assert [run["conclusion"] for run in ended] == ["failure", "failure", "success", "success"]
        assert "the runner died" in server.text(ended[0]["id"])
        assert server.jobs(ended[0]["id"])[0]["conclusion"] == "failure"
        server.until(lambda: not alive(server))
    finally:
        server.stop()


def test_stop_ends_the_runs_under_way(tmp_path: Path) -> None:
    """SIGTERM stops the server and every step; started again, the run is closed as a failure with its reason."""
    server = new_server(tmp_path)
    server.dispatch("long", key="a", gate=str(tmp_path / "never"))
    run = server.until(server.runs)[0]
    server.until(lambda: is_waiting(server, run["id"]))
    server.stop()
    server.until(lambda: not alive(server))
    assert "the server was stopped" in server.text(run["id"])


def test_workspace_follows_the_source(tmp_path: Path) -> None:
    """The same source gives the same commit; a change gives another, and ignored and own files stay out."""
    project, state = tmp_path / "project", tmp_path / "project/.signalbox"
    (project / "node_modules").mkdir(parents=True)
    state.mkdir()
    for name in ("kept.txt", "node_modules/left.txt", ".signalbox/left.txt"):
        (project / name).write_text(name)
    (project / "link").symlink_to("kept.txt")
    (project / "kept.txt").chmod(0o700)
    spaces = Workspaces(state / "workspaces", project, "octo-org/signal-box")
    first = spaces.current()
    assert spaces.current() == first
    assert sorted(path.name for path in first.path.iterdir()) == [".git", "kept.txt", "link"]
    assert (first.path / "kept.txt").stat().st_mode & stat.S_IXUSR
    (project / "kept.txt").write_text("changed")
    second = spaces.current()
    assert second.sha != first.sha
    assert (first.path / "kept.txt").read_text() == "kept.txt"
    spaces.keep_only({second.path})
    assert list((state / "workspaces").iterdir()) == [second.path]


@pytest.mark.parametrize("text", ["{", "[]", '{"secret": {}}', '{"vars": {"A": 1}}', '{"path": "bin"}'])
def test_unusable_runner_file_is_named(tmp_path: Path, text: str) -> None:
    """A runner file of the wrong shape is refused with a sentence that names it."""
    file = tmp_path / "runner.json"
    file.write_text(text)
    with pytest.raises(RunnerError, match=r"runner file .*runner\.json"):
        read_machine(file)
