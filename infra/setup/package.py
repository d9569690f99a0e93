"""The function app's package: what `.funcignore` leaves of the files in git, as the remote build wants it."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

from infra.setup.faults import SetupFault

IGNORE_FILE = ".funcignore"
NEEDED = ("function_app.py", "host.json", "requirements.txt", "routes.yml")
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # the oldest that a zip can say; the same files make the same package


def files(project: Path) -> list[str]:
    """Paths that go into the package. Git itself reads `.funcignore`, whose rules are those of `.gitignore`."""
    if not (project / IGNORE_FILE).is_file():
        raise SetupFault(f"{IGNORE_FILE} is missing: without it tests and tools would be published as well.")
    tracked = set(_git(project, "ls-files", "-z", "--cached"))
    ignored = set(_git(project, "ls-files", "-z", "--cached", "--ignored", f"--exclude-from={IGNORE_FILE}"))
    kept = sorted(tracked - ignored)
    missing = [name for name in NEEDED if name not in kept]
    if missing:
        raise SetupFault(f"{IGNORE_FILE} leaves out {', '.join(missing)}, which the function app needs.")
    return kept


def write(project: Path, target: Path) -> list[str]:
    """Write the package; gives the paths in it. Raises SetupFault."""
    kept = files(project)
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as package:
        for name in kept:
            entry = zipfile.ZipInfo(name, _FIRST_DAY)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            package.writestr(entry, (project / name).read_bytes())
    return kept


def _git(project: Path, *arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupFault(f"git cannot list the files of {project}: {done.stderr.strip()}")
    return [name for name in done.stdout.split("\0") if name]
