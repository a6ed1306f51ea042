"""Changes of the sample that no test can notice, each with the reason: by the lines before and after."""

from __future__ import annotations

EQUIVALENT: dict[tuple[str, str], str] = {}
