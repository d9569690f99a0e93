"""The process of one deployment: Azure ML's own inference server on a loopback port, ending with its parent.

Started by path, not as a module (`python -P local/endpoints/scoring_server.py PORT PARENT`), so that nothing of this
project is on the scoring code's import path. `AML_APP_ROOT`, `AZUREML_ENTRY_SCRIPT` and `AZUREML_MODEL_DIR` say what
it serves, as on Azure: https://learn.microsoft.com/azure/machine-learning/how-to-inference-server-http

With `nursery` in the place of PORT it serves nothing itself: it imports what scoring scripts import, and forks such a
process for every line of JSON on its standard input ({"order", "port", "environment", "directory", "log"}). It answers
{"ready"}, {"order", "pid"} and {"ended", "status"}. A server that starts this way is there in a tenth of the time.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import random
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PARENT_CHECK_SECONDS = 1.0
NURSERY = "nursery"
PRELOADED = (
    "numpy",
    "pandas",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "mlflow.models",
    "mlflow.sklearn",
    "azureml_inference_server_http.amlserver_linux",
)


def _end_with(parent: int) -> None:
    """Get SIGTERM when `parent` dies: from the kernel on Linux, from a watching thread elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it died before we asked to be told
        sys.exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _serve(port: int) -> None:
    from azureml_inference_server_http.amlserver_linux import (  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415
        run,
    )

    # The package's own command binds every interface; its `run` takes the address.
    sys.argv = ["azmlinfsrv"]
    run("127.0.0.1", port, 1)


def _nurse() -> None:
    """Preload, then fork a server for each order until standard input ends."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # their thread pools would not survive a fork
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if threading.active_count() != 1:
        sys.exit("an imported library has started threads: forking would not be safe")
    gc.freeze()
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    for source in (sys.stdin.fileno(), woken):
        selector.register(source, selectors.EVENT_READ)
    _say(ready=True)
    unread = b""
    while True:
        for key, _ in selector.select():
            if key.fileobj is woken:
                with contextlib.suppress(BlockingIOError):
                    woken.recv(4096)
                continue
            piece = os.read(sys.stdin.fileno(), 65536)
            if not piece:
                return
            *lines, unread = (unread + piece).split(b"\n")
            for line in lines:
                _fork(json.loads(line))
        _reap()


def _fork(order: dict[str, Any]) -> None:
    nursery = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(order, nursery)
    _say(order=order["order"], pid=pid)


def _become(order: dict[str, Any], nursery: int) -> NoReturn:
    """Continue as a scoring server, in the forked child: nothing of the nursery stays."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()  # one group, so that its workers can be ended with it
        _end_with(nursery)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.closerange(3, 256)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["directory"])
        random.seed()
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed()
        _serve(order["port"])
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _reap() -> None:
    """Tell of every server that has ended how it ended."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _say(ended=ended[0], status=os.waitstatus_to_exitcode(ended[1]))


def _say(**values: object) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    _end_with(int(sys.argv[2]))
    if sys.argv[1] == NURSERY:
        _nurse()
    else:
        _serve(int(sys.argv[1]))
