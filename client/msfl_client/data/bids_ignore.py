"""A BIDS folder's `.bidsignore`: what is no part of the data set, in the syntax of `.gitignore`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from msfl_client.data.findings import Finding
from msfl_common.errors import ConfigError, reason
from msfl_common.system.reading import read_bounded

IGNORE_FILE = ".bidsignore"


@dataclass(frozen=True)
class Ignored:
    """What a folder's own `.bidsignore` leaves out; a derivative has one of its own, the raw data's says nothing of it.

    Attributes:
        root: the folder.
        spec: its patterns.
        passed_over: of files and folders that were looked at, those that are left out, relative to the folder.
        findings: what is wrong with the file.
    """

    root: Path
    spec: GitIgnoreSpec
    passed_over: set[str] = field(default_factory=set)
    findings: Sequence[Finding] = ()

    def __contains__(self, path: Path) -> bool:
        """Whether a file or folder under the root is left out."""
        name = path.relative_to(self.root).as_posix()
        left_out = self.spec.match_file(name) or (self.spec.match_file(f"{name}/") and path.is_dir())
        if left_out:
            self.passed_over.add(name)
        return left_out


def read_ignored(root: Path) -> Ignored:
    """The `.bidsignore` of a folder; without one, nothing is left out."""
    path = root / IGNORE_FILE
    try:
        return Ignored(root, GitIgnoreSpec.from_lines(read_bounded(path).decode("utf-8-sig").splitlines()))
    except FileNotFoundError:
        return Ignored(root, GitIgnoreSpec([]))
    except (OSError, ValueError, ConfigError) as error:
        what = str(error) if isinstance(error, ConfigError) else f"{path}: cannot be read ({reason(error)})"
        text = f"{what}; nothing is left out"
        return Ignored(root, GitIgnoreSpec([]), findings=[Finding("warn", None, "bidsignore", text)])
