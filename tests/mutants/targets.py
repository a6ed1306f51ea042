"""What is mutated, and which tests have to notice: those of the same folder, and the attacks that it stands against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Target:
    """A part of the source and its tests, quick ones first; files of a folder by a pattern."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]

    def paths(self) -> list[Path]:
        """The modules that are there."""
        found = {path for pattern in self.modules for path in REPOSITORY.glob(pattern)}
        return sorted(path for path in found if path.name != "__init__.py")

    def rounds_of_tests(self, module: Path) -> list[tuple[str, tuple[str, ...]]]:
        """Which tests by their mark, and where: the module's own first, as most faults are noticed there."""
        own = sorted(path for folder in self.tests for path in (REPOSITORY / folder).glob(f"**/test_{module.stem}.py"))
        first = [("slow or not slow", tuple(map(str, own)))] if own else []
        return [*first, ("not slow", self.tests), ("slow", self.tests)]


TARGETS = (
    Target("metrics", ("common/msfl_common/metrics/*.py",), ("tests/common/metrics",)),
    Target(
        "aggregation",
        tuple(
            f"server/msfl_server/aggregation/{name}.py"
            for name in ("averaging", "combined", "update_checks", "odd_sites", "update_store")
        ),
        ("tests/server/aggregation", "tests/server/rounds/test_loop.py", "tests/attacks/test_influence.py"),
    ),
    Target(
        "gateway",
        ("client/msfl_client/egress/gateway.py", "client/msfl_client/egress/answers.py"),
        (
            "tests/client/egress",
            "tests/client/rounds/test_masks_step.py",
            "tests/client/rounds/test_app.py",
            "tests/attacks/test_floors.py",
            "tests/attacks/test_measured_states.py",
            "tests/attacks/test_requests.py",
        ),
    ),
    Target(
        "ledger",
        ("client/msfl_client/egress/ledger*.py", "client/msfl_client/egress/tail.py"),
        (
            "tests/client/egress",
            "tests/attacks/test_ledger.py",
            "tests/attacks/test_ledger_content.py",
            "tests/attacks/test_ledger_receipts.py",
            "tests/client/cli/test_ledger.py",
        ),
    ),
    Target(
        "masks",
        ("client/msfl_client/secure_aggregation/*.py", "client/msfl_client/rounds/masks_step.py"),
        (
            "tests/client/secure_aggregation",
            "tests/client/rounds/test_masks_step.py",
            "tests/client/cli/test_roster.py",
        ),
    ),
)
