"""What a survey of a study's sites came to: fixed tables of counts, site by site and together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from msfl_common.config.base import Name
from msfl_common.config.study import StudyConfig
from msfl_common.config.survey_tables import TABLES
from msfl_common.messages.figures import Figures
from msfl_common.secure_aggregation.layout import POOLED
from msfl_common.system.files import write_text
from msfl_server.results.summary import SiteFailure

SURVEY_FILE, SURVEY_PAGE = "survey.json", "survey.html"
RULE = (
    "Each number of a site is rounded down to a multiple of its floor (the fewest patients that its policy lets a "
    "figure rest on), and is 0 below the floor of site and study: a 0 may be a few patients. Tables and edges are the "
    "same in every study; a site repeats a number until at least as many patients as its floor have changed."
)
Counts = dict[str, dict[str, int]]  # table, then cell


class Survey(BaseModel):
    """Everything in `survey.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = Field(1, description="version of this file's format")
    study: Name = Field(description="study name")
    rule: str = Field(RULE, description="what became of numbers of few patients")
    asked: tuple[str, ...] = Field(description="the study's contrasts, as the cell of tables of contrasts is called")
    sites: tuple[Name, ...] = Field(description="sites that answered; under masks those in the sum")
    per_site: dict[Name, Counts] = Field(description="each site's counts; empty under masks")
    together: Counts = Field(description="the sum over these sites")
    failed: tuple[SiteFailure, ...] = Field(description="sites that did not answer, and why")

    def with_absent(self, sites: Iterable[str]) -> Survey:
        """The same, with sites that were not online named."""
        absent = tuple(SiteFailure(site=site, code="NOT_ONLINE") for site in sites)
        return self.model_copy(update={"failed": (*self.failed, *absent)})


def survey_of(
    study: StudyConfig, told: Mapping[str, Figures], members: tuple[str, ...], failed: tuple[SiteFailure, ...]
) -> Survey:
    """The survey from what sites told, or from one sum of all, under the name `pooled`."""
    per_site = {site: counts_of(figures) for site, figures in sorted(told.items())}
    together = {
        name: {cell: sum(one[name][cell] for one in per_site.values()) for cell in cells}
        for name, cells in TABLES.items()
    }
    return Survey(
        study=study.name,
        asked=tuple(study.inputs.contrasts),
        sites=members,
        per_site={site: one for site, one in per_site.items() if site != POOLED},
        together=together,
        failed=failed,
    )


def counts_of(figures: Figures) -> Counts:
    """Arrays by the names of their cells."""
    return {name: dict(zip(cells, map(int, figures.arrays[name]), strict=True)) for name, cells in TABLES.items()}


def write_survey(path: Path, survey: Survey) -> None:
    """Write `survey.json` in one step."""
    write_text(path, survey.model_dump_json(indent=2) + "\n")
