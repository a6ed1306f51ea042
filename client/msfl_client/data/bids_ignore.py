"""A BIDS folder's `.bidsignore`: what is no part of the data set, in the syntax of `.gitignore`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec, RegexPattern

from msfl_client.data.findings import Finding
from msfl_common.errors import ConfigError, reason
from msfl_common.system.reading import read_bounded

IGNORE_FILE = ".bidsignore"
# Within the regular expression of a pattern: a star and what follows it, up to the next star of the same folder's name.
_STAR = r"\[\^/\]\*"
_BEFORE_STAR = re.compile(rf"{_STAR}((?:(?!{_STAR})(?:\\.|\[(?:\\.|[^\]\\])+\]|[^/()\[\\]))*)(?={_STAR})")


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
        return Ignored(root, spec_of(read_bounded(path).decode("utf-8-sig").splitlines()))
    except FileNotFoundError:
        return Ignored(root, GitIgnoreSpec([]))
    except (OSError, ValueError, ConfigError) as error:
        text = f"{path}: cannot be read ({reason(error)}); nothing is left out"
        return Ignored(root, GitIgnoreSpec([]), findings=[Finding("warn", None, "bidsignore", text)])


def spec_of(lines: Sequence[str]) -> GitIgnoreSpec:
    """Patterns that take no longer than the names are long.

    A star takes as little as lets what follows it fit, up to the next star, and is never tried again: the next one
    takes whatever is left. Else each star of `*a*a*a*b` would be tried with each of the others.
    """
    spec = GitIgnoreSpec.from_lines(lines, backend="simple")
    for pattern in spec.patterns:
        if isinstance(pattern, RegexPattern) and pattern.regex is not None:
            pattern.regex = re.compile(_BEFORE_STAR.sub(r"(?>[^/]*?\1)", pattern.regex.pattern))
    return spec
