"""The process of one deployment: Azure ML's own inference server on a loopback port, ending with its parent.

Started by path, not as a module (`python -P local/endpoints/scoring_server.py PORT PARENT`), so that nothing of this
project is on the scoring code's import path. `AML_APP_ROOT`, `AZUREML_ENTRY_SCRIPT` and `AZUREML_MODEL_DIR` say what
it serves, as on Azure: https://learn.microsoft.com/azure/machine-learning/how-to-inference-server-http
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
PARENT_CHECK_SECONDS = 1.0


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


if __name__ == "__main__":
    port, parent = int(sys.argv[1]), int(sys.argv[2])
    _end_with(parent)
    from azureml_inference_server_http.amlserver_linux import run  # type: ignore[import-untyped, unused-ignore]

    # The package's own command binds every interface; its `run` takes the address.
    sys.argv = ["azmlinfsrv"]
    run("127.0.0.1", port, 1)
