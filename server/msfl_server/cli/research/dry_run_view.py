"""What a simulation would be, as a person sees it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from msfl_common.privacy_accounting import privacy_lines
from msfl_common.system.words import counted
from msfl_server.research.simulation.dry_run import DryRun


def print_dry_run(console: Console, found: DryRun) -> None:
    """Stages, sites, and what they will refuse or withhold."""
    study, num_sites = found.study, len(found.sites)
    needs = "rounds need" if study.evaluate is None else "a trained model is measured; this needs"
    console.print(f"{study.name}: {study.task}, {counted(num_sites, 'site')}, {needs} {study.rounds.quorum}")
    for cost in found.costs:
        what = "" if cost.stage == "final" else f"{cost.stage}: "
        console.print(f"{what}{cost.in_words}")
    for is_warning, text in privacy_lines(study):
        console.print(Text(f"differential privacy: {text}", "yellow" if is_warning else ""))
    table = Table("site", "training cases", "of patients", "validation patients", "test patients")
    for one in found.sites:
        counts = (one.cases_train, one.patients_train, one.patients_validation, one.patients_test)
        table.add_row(one.site, *("-" if count is None else str(count) for count in counts))
    console.print(table)
    for line in found.lines or ["Every step can be answered, and every figure told."]:
        console.print(Text(line, "yellow" if found.lines else ""))
    training = found.training
    if training is None:
        after = "How long it takes shows after the first round. " if study.evaluate is None else ""
        console.print(f"{after}Nothing of a run was written.")
        return
    console.print(
        f"About {training.spoken} of training steps on {training.device}, as busy as it is now and if one site trains "
        f"after another: {training.num_steps:,} of {training.step_s:.2g} s. Reading cases, "
        "validation and the start come on top. Nothing of a run was written."
    )
