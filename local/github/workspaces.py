"""The repository as the runner sees it: copies of the project's working tree, each a git repository with one commit."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_NEVER_COPIED = {".git", ".venv", "node_modules", ".signalbox"}


@dataclass(frozen=True, slots=True)
class Workspace:
    """One state of the source: its folder and the commit that the folder's `main` points at."""

    path: Path
    sha: str


class Workspaces:
    """Keeps one folder for each state of the project that a run may still need.

    A folder is never changed once it stands, so a run that is under way keeps the source it was started with.
    """

    def __init__(self, folder: Path, project: Path, repository: str) -> None:
        self._folder = folder
        self._project = project.resolve()
        self._repository = repository

    def current(self) -> Workspace:
        """The workspace for the project as it is now; made on first sight, found again afterwards."""
        files = self._files()
        newest, state = 0, hashlib.sha256(self._repository.encode())
        for name in files:
            status = (self._project / name).lstat()
            newest = max(newest, status.st_mtime_ns)
            state.update(f"\0{name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_mode}".encode())
        path = self._folder / state.hexdigest()[:16]
        if not path.exists():
            self._make(path, files, newest // 1_000_000_000)
        return Workspace(path, (path / ".git" / "refs" / "heads" / "main").read_text("ascii").strip())

    def keep_only(self, wanted: Iterable[Path]) -> None:
        """Remove the folders that no run needs any more."""
        keep = set(wanted)
        for path in self._folder.iterdir() if self._folder.exists() else ():
            if path not in keep:
                shutil.rmtree(path, ignore_errors=True)

    def _files(self) -> list[str]:
        if self._is_git_root():
            listed = _git(self._project, "ls-files", "-coz", "--exclude-standard").split("\0")
        else:
            listed = list(self._walk())
        own = os.path.relpath(self._folder.parent.resolve(), self._project) + "/"
        names = {name for name in listed if name and not name.startswith(own)}
        return sorted(name for name in names if _is_file(self._project / name))

    def _is_git_root(self) -> bool:
        try:
            top = _git(self._project, "rev-parse", "--show-toplevel").strip()
        except subprocess.CalledProcessError:
            return False
        return Path(top).resolve() == self._project

    def _walk(self) -> Iterable[str]:
        for folder, folders, files in os.walk(self._project):
            folders[:] = [name for name in folders if name not in _NEVER_COPIED]
            for name in files:
                yield os.path.relpath(Path(folder) / name, self._project)

    def _make(self, path: Path, files: list[str], seconds: int) -> None:
        draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name in files:
            target = draft / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self._project / name, target, follow_symlinks=False)
        moment = datetime.fromtimestamp(seconds, UTC).isoformat()
        _git(draft, "init", "--quiet", "--initial-branch=main")
        _git(draft, "remote", "add", "origin", f"https://github.com/{self._repository}.git")
        committed = self._start_at_head(draft)
        _git(draft, "add", "--all", "--force")
        if not committed or _git(draft, "status", "--porcelain"):
            message = f"Working tree of {self._project.name}"
            _git(draft, "commit", "--quiet", "--allow-empty", "--no-gpg-sign", "-m", message, moment=moment)
        draft.rename(path)

    def _start_at_head(self, draft: Path) -> bool:
        """Put the copy on the project's own commit, so that a model's lineage names a commit that its people know."""
        if not self._is_git_root():
            return False
        try:
            _git(draft, "fetch", "--quiet", "--no-tags", "--depth=1", f"file://{self._project}", "HEAD")
        except subprocess.CalledProcessError:  # no commit yet
            return False
        _git(draft, "reset", "--quiet", "--soft", "FETCH_HEAD")
        return True


def _is_file(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _git(folder: Path, *arguments: str, moment: str = "2000-01-01T00:00:00+00:00") -> str:
    """Run git with nothing of the caller's own configuration, so that each machine makes the same commit."""
    who = {"NAME": "Signalbox", "EMAIL": "signalbox@localhost", "DATE": moment}
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C",
        **{f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()},
    }
    trusted = ("-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-c", "core.autocrlf=false")
    done = subprocess.run(
        ["git", *trusted, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout
