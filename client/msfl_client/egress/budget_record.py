"""What a site's people see of its budget, and how they forget it: a line for each set of cases, and the ledger's."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from msfl_client.disclosure.budget import FOLDER, Limits, read_budget
from msfl_client.egress.ledger_sums import BUDGET_RESET
from msfl_client.egress.person_lines import write_line
from msfl_client.secure_aggregation.kept_values import delete_values
from msfl_client.secure_aggregation.rosters import FOLDER as MASKS_FOLDER
from msfl_client.site.account_files import counted_elsewhere, forget_other_accounts
from msfl_common.config.site import SiteConfig
from msfl_common.errors import InputError
from msfl_common.system.words import counted

WHAT = {
    "sums": "sums of models",
    "harmonized": "sums of models",
    "harmonization": "harmonization sums",
    "metrics": "metrics",
}


@dataclass(frozen=True)
class BudgetLine:
    """What was given out about one set of cases, in all studies.

    Attributes:
        what: sums of a model, harmonization sums, or metrics.
        studies: that were given it.
        patients: whose cases they are.
        values: inputs times cases; of metrics 0.
        spent: numbers about so many values; of metrics, how often the patient was measured who was measured most.
        most: what the policy allows of it; None: any number.
    """

    what: str
    studies: tuple[str, ...]
    patients: int
    values: int
    spent: int
    most: int | None

    def __str__(self) -> str:
        most = "any number" if self.most is None else str(self.most)
        of = f"{counted(self.patients, 'patient')} ({WHAT[self.what]}, {', '.join(self.studies)})"
        if self.what == "metrics":
            return f"measurements of {of}: {self.spent} of {most}"
        return f"numbers released about {of}: {self.spent} of {most}, for {self.values} values"


def budget_lines(site: SiteConfig) -> tuple[BudgetLine, ...]:
    """A line for each set of cases, in the order of first answers.

    Raises:
        InputError: what was given out cannot be read.
    """
    budget, policy = read_budget(site.state), site.policy
    limits, lines = Limits(policy.max_release, policy.max_evaluations, policy.min_patients), []
    for name, about in budget.sets.items():
        studies = tuple(one.study for one in budget.given if one.about == name)
        spent = budget.spent(about, limits)
        numbers, values, most = spent.numbers, spent.values, spent.most
        if about.kind == "metrics":
            numbers, values, most = budget.evaluations(about), 0, limits.evaluations
        lines.append(BudgetLine(about.kind, studies, len(set(about.patients)), values, numbers, most))
    return tuple(lines)


def forget_budget(site: SiteConfig) -> tuple[str, ...]:
    """Forget what was given out, with another state folder too; the ledger says so first, a line a study.

    Returns the studies; "" for those that are not known.

    Values that left under masks go, too: asked for again, they are made, and counted, anew.

    Raises:
        InputError: there is nothing to forget, or the ledger was touched.
    """
    folder = site.state / FOLDER
    is_new = counted_elsewhere(site) is not None
    if not (folder.is_dir() or is_new):
        raise InputError(f"{folder}: nothing was given out that counts against a budget")
    try:
        studies = tuple(dict.fromkeys(one.study for one in read_budget(site.state).given)) or ("",) * is_new
    except InputError:  # what cannot be read is forgotten, too
        studies = ("",)
    for study in studies:
        write_line(site, BUDGET_RESET, study)
    for kept in (site.state / MASKS_FOLDER).glob("*"):
        delete_values(kept)
    forget_other_accounts(site)
    if folder.is_dir():
        shutil.rmtree(folder)
    return studies
