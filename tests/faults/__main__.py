"""`make faults`: play every fault on a deployment of its own, and show what each cost.

    python -m tests.faults [NAME ...]

Two at a time; the table is printed at the end and kept in `build/faults.json`, the logs of what failed in
`build/faults/`. Exit code 1 when a scenario did not end as expected, or lost a round.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tests.faults import masked, processes, surroundings  # noqa: F401  # they add their scenarios
from tests.faults.scenario import SCENARIOS, Scenario, end_completed
from tests.faults.stage import Props, RoundWatch, SkippedError, Stage, make_props, set_stage

BUILD = Path(__file__).parents[2] / "build"
AT_ONCE = 2


@dataclass(frozen=True)
class Result:
    """How a scenario ended; `rounds_lost` and `same_weights` are None where that was not seen."""

    name: str
    what: str
    expected: str
    ended: str
    passed: bool
    rounds_lost: int | None
    same_weights: bool | None
    seconds: float


def play(scenario: Scenario, props: Props) -> Result:
    """Play one scenario to the end of its study."""
    started = time.monotonic()
    lost, same, ended, passed = None, None, "completed", False
    try:
        with set_stage(props, scenario.name, scenario.rounds, scenario.masked) as stage:
            watch = RoundWatch(stage.federation.study.run / "checkpoints")
            try:
                scenario.play(stage)
                end_completed(stage)
                same = (stage.federation.study.run / "model" / "model.safetensors").read_bytes() == props.expected[
                    len(stage.sites)
                ]
                passed = same or not scenario.all_sites
                ended = "completed" if passed else "completed with other weights"
            except SkippedError as reason:
                ended, passed = f"skipped: {reason}", True
            except Exception as error:
                ended = f"{type(error).__name__}: {error}".splitlines()[0]
                keep_logs(scenario, stage)
            lost = watch.lost()
    except Exception as error:  # of setting up or clearing away
        ended, passed = f"{type(error).__name__}: {error}".splitlines()[0], False
    passed = passed and lost == 0
    seconds = time.monotonic() - started
    Console(stderr=True).print(f"{scenario.name}: {ended} ({seconds:.0f} s)", highlight=False, markup=False)
    return Result(scenario.name, scenario.what, scenario.expected, ended, passed, lost, same, seconds)


def keep_logs(scenario: Scenario, stage: Stage) -> None:
    """What people need to find out why."""
    folder = BUILD / "faults"
    folder.mkdir(parents=True, exist_ok=True)
    logs = [*stage.federation.base.glob("*.log"), *stage.federation.study.logs.glob("*.log")]
    logs += [*stage.federation.base.glob("*/state/*.log"), stage.federation.study.status]
    text = "".join(f"\n== {log}\n{log.read_text(errors='replace')}" for log in logs if log.exists())
    (folder / f"{scenario.name}.log").write_text(traceback.format_exc() + text, encoding="utf-8")


def show(results: list[Result]) -> None:
    """The table."""
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    table = Table("scenario", "what was done, and when", "ended", "rounds lost", "same weights", "s", show_lines=True)
    for result in results:
        weights = {True: "yes", False: "no", None: "-"}[result.same_weights]
        if result.same_weights is False and not by_name[result.name].all_sites:
            weights = "left out a site"
        what = f"{result.what}\n[dim]expected: {result.expected}[/]" if result.expected else result.what
        ended = f"[{'green' if result.passed else 'red'}]{result.ended}[/]"
        lost = "-" if result.rounds_lost is None else str(result.rounds_lost)
        table.add_row(result.name, what, ended, lost, weights, f"{result.seconds:.0f}")
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main() -> int:
    """Play the scenarios named, or all."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where it is ignored, children would ignore it too
    names = [scenario.name for scenario in SCENARIOS]
    wanted = sys.argv[1:] or names
    if unknown := set(wanted) - set(names):
        Console(stderr=True).print(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(names)}")
        return 2
    torch.set_num_threads(1)  # as the deployed processes: equal sums need equal threads
    with tempfile.TemporaryDirectory(prefix="msfl-faults-") as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        props = make_props(Path(folder))
        results = list(pool.map(lambda one: play(one, props), [one for one in SCENARIOS if one.name in wanted]))
    show(results)
    BUILD.mkdir(exist_ok=True)
    document = json.dumps([asdict(result) for result in results], indent=2)
    (BUILD / "faults.json").write_text(document + "\n", encoding="utf-8")
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
