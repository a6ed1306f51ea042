"""Which runs a comparison is made of, and where each lies.

    OUT/comparison-plan.json       what is compared
    OUT/sites/                     what the sites of a cohort have looked through, shared by all runs
    OUT/runs/local/SITE/seed-0/    a run of one site alone
    OUT/runs/centralised/seed-0/   one of all sites' patients in one place
    OUT/runs/federated/KIND/seed-0/, runs/without/SITE/KIND/seed-0/, runs/attacked/ATTACK/SITES/KIND/seed-0/

**Step budget.** Every arm takes the same number of optimiser steps in all, R rounds x S steps x N sites: a federation S
at each site in each round; local-only the same at each site, which goes on from its own weights; centralised N x S in
each round, of one model. So no arm sees more patches than another, and no site computes more alone
than in the federation. A model of features has no steps; it is made of the same training patients in each arm.

Local-only and centralised arms send nothing to anyone: they have no floor, no masks, no noise and no harmonization over
sites, and the strategy that they name is none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msfl_common.config.base import Task
from msfl_common.config.message_kinds import KINDS
from msfl_common.config.optimisation import written_out
from msfl_common.config.secure_aggregation import SecureAggregation
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.spelling import no_such
from msfl_common.config.stages import stages_of, study_at
from msfl_common.config.study import Harmonization, StudyConfig, parse_study
from msfl_common.errors import ConfigError, InputError
from msfl_common.strategies import STRATEGIES
from msfl_common.strategies.base import Strategy
from msfl_common.strategies.fedavg import FedAvg
from msfl_common.strategies.finetune import FineTune
from msfl_common.system.files import private_folder, write_text
from msfl_common.system.reading import parse_record
from msfl_server.research.simulation.folder import SITES_FOLDER, RunSetup

PLAN_FILE, RUNS_FOLDER = "comparison-plan.json", "runs"
LOCAL, CENTRALISED, FEDERATED = "local", "centralised", "federated"
ALL_SITES = "all-sites"
_LONGEST = 100  # of a folder's name that has sites in it
_SHARED = ("cache", "preprocessed", "features")  # of a site's state folder: what its cases have been found to be

Group = Literal["local", "centralised", "federated", "without", "attacked"]
AttackKind = Literal["label-flip", "sign-flip", "scale", "nan", "stale", "collude"]


class Attack(BaseModel):
    """Sites that answer what no honest one would; see `attacks`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: AttackKind
    sites: tuple[str, ...] = Field(min_length=1)

    @property
    def folder(self) -> str:
        """What names it, and no other: what it does, and where."""
        told = "+".join(sorted(self.sites))
        several = f"{len(self.sites)}-sites-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
        return f"{self.kind}/{told if len(told) <= _LONGEST else several}"


@dataclass(frozen=True)
class Run:
    """One run of a comparison.

    Attributes:
        group: what it is for.
        study: as it is run.
        members: who takes part.
        arm: which arm its figures are of: `local`, `centralised`, or a federation's strategy.
        site: whose it is, of a site's own; who is left out, of a federation without one.
        attack: what some of its members do.
    """

    group: Group
    study: StudyConfig
    members: tuple[SiteConfig, ...]
    arm: str
    site: str | None = None
    attack: Attack | None = None

    @property
    def name(self) -> str:
        """Its folder under `runs/`."""
        within = {
            "local": f"{LOCAL}/{self.site}",
            "centralised": CENTRALISED,
            "federated": f"{FEDERATED}/{self.arm}",
            "without": f"without/{self.site}/{self.arm}",
            "attacked": f"attacked/{self.attack and self.attack.folder}/{self.arm}",
        }[self.group]
        return f"{within}/seed-{self.study.seed}"

    @property
    def num_steps(self) -> int:
        """Optimiser steps of all its members, or, of a model of features, its rounds of sums."""
        stages = [study_at(self.study, stage) for stage in stages_of(self.study)]
        per_round = self.study.training.steps_per_round if self.study.averages else 1
        return sum(one.rounds.num_rounds for one in stages) * per_round * len(self.members)

    def setup(self, folder: Path) -> RunSetup:
        """The run with states of its sites under its own folder: what one run writes down binds no other."""
        return RunSetup(study=self.study, sites=tuple(site_in(folder, site) for site in self.members))


class ArmsPlan(BaseModel):
    """A comparison as it was asked for; it stays on this machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: StudyConfig
    sites: tuple[SiteConfig, ...]
    strategies: tuple[str, ...] = Field(description="kinds; none of a model of features")
    num_seeds: int = Field(ge=1)
    leave_one_out: bool = False
    attack: Attack | None = None

    @property
    def federated(self) -> dict[str, StudyConfig]:
        """Each federated arm, with its study; of a model of features, which takes no strategy, there is one."""
        study = to_the_last_round(self.study)
        if not self.strategies:
            return {FEDERATED: study}
        return {kind: with_strategy(study, kind) for kind in self.strategies}

    @property
    def seeds(self) -> tuple[int, ...]:
        """The study's own, and those after it: each decides weights, splits, patches and augmentation anew."""
        return tuple(range(self.study.seed, self.study.seed + self.num_seeds))

    @property
    def shared_arm(self) -> str | None:
        """The first federated arm whose figures are of the shared model, not of one of each site's own."""
        return next((arm for arm, study in self.federated.items() if not leaves_own_models(study)), None)

    @property
    def runs(self) -> dict[str, Run]:
        """Every run, by its name."""
        return {run.name: run for seed in self.seeds for run in self._runs_of(seed)}

    def _runs_of(self, seed: int) -> Iterator[Run]:
        study = to_the_last_round(self.study)
        own = by_itself(study, seed, 1)
        federated = {arm: study.model_copy(update={"seed": seed}) for arm, study in self.federated.items()}
        for arm, one in federated.items():
            yield Run("federated", one, self.sites, arm)
            if self.attack is not None:
                yield Run("attacked", one, self.sites, arm, attack=self.attack)
        # After a federated one, which has prepared the cases that it takes up.
        yield Run("centralised", by_itself(study, seed, len(self.sites)), (pooled(self.sites),), CENTRALISED)
        for site in self.sites:
            yield Run("local", own, (alone(site),), LOCAL, site.name)
        if self.leave_one_out and self.shared_arm is not None:
            for left_out in self.sites:
                others = tuple(site for site in self.sites if site != left_out)
                yield Run("without", federated[self.shared_arm], others, self.shared_arm, left_out.name)


def leaves_own_models(study: StudyConfig) -> bool:
    """Whether a study's strategy leaves each site a model, or layers, of its own."""
    one = study.strategy
    return one is not None and (one.is_personal or one.trains_personal or isinstance(one, FineTune))


def to_the_last_round(study: StudyConfig) -> StudyConfig:
    """The study without what ends its rounds early or chooses among them: by patients whom arms are measured on."""
    chosen = {name: None for name in ("best_by", "patience") if getattr(study.validation, name, None) is not None}
    return study.model_copy(update={"validation": study.validation.model_copy(update=chosen)}) if chosen else study


def with_strategy(study: StudyConfig, kind: str) -> StudyConfig:
    """The study with a strategy of this kind: its own where it has one of the kind, else with the kind's defaults.

    Its rounds count from as many sites on as the strategy needs, if the study's own quorum is below.

    Raises:
        InputError: there is no such kind.
        ConfigError: the study cannot be trained so; says why.
    """
    own: Strategy = study.strategy or FedAvg()
    if kind not in STRATEGIES:
        raise InputError(f"--strategies: {no_such('strategy', [kind], tuple(STRATEGIES))}")
    try:
        chosen = own if kind == own.kind else STRATEGIES[kind].model_validate({"kind": kind})
    except ValidationError as error:
        missing = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
        raise InputError(f"--strategies: {kind} needs settings ({missing}); give it as the study's own") from None
    rounds = {
        name: one.model_copy(update={"quorum": max(one.quorum, chosen.fewest_sites)})
        for name, one in study.averaged_rounds().items()
    }
    changed = study.model_copy(update={"strategy": chosen, **rounds})
    return parse_study(changed.model_dump_json(), f"--strategies {kind}")


def by_itself(study: StudyConfig, seed: int, times: int) -> StudyConfig:
    """The study for one site that sends nothing to anyone, with so many times the steps in a round."""
    training = study.training.model_copy(update={"steps_per_round": times * study.training.steps_per_round})
    validation = study.validation
    if validation.test_fraction:  # the same patients test, though the floor is gone
        validation = validation.model_copy(update={"min_test_patients": study.min_test_patients})
    one_site = {"quorum": 1, "max_share": 1.0}
    return study.model_copy(
        update={
            "seed": seed,
            "training": training,
            "validation": validation,
            "rounds": study.rounds.model_copy(update=one_site),
            "segmentation": study.segmentation and study.segmentation.model_copy(update=one_site),
            "strategy": None,
            "secure_aggregation": SecureAggregation(),
            "harmonization": Harmonization(),
            "differential_privacy": None,
            "min_patients": 1,
        }
    )


def alone(site: SiteConfig) -> SiteConfig:
    """A site that trains for itself: its policy is about what leaves, and nothing does."""
    return site.model_copy(update={"policy": _policy()})


def pooled(sites: Sequence[SiteConfig]) -> SiteConfig:
    """All sites' folders as one site's; its people are split folder by folder, so as they are at each site."""
    first = sites[0]
    return SiteConfig(
        name=ALL_SITES,
        data=tuple(folder for site in sites for folder in site.data),
        same_ids="different-people",
        words=first.words,
        masks=first.masks,
        preprocessed=first.preprocessed,
        state=first.state.with_name(ALL_SITES),
        device=first.device,
        policy=_policy(),
    )


def _policy() -> Policy:
    most = {"max_rounds": 100_000, "max_steps_per_round": 10**9}
    return Policy(tasks=get_args(Task), allow=tuple(KINDS), refuse_models=(), min_patients=1, max_release=None, **most)


def why_not_pooled(sites: Sequence[SiteConfig]) -> str | None:
    """Why the sites' patients cannot be had in one place with the splits that they have apart; None where they can."""
    for site in sites:
        if len(site.data) > 1 and site.one_person:
            return f"{site.name} has people in several folders, which one place could not tell from other sites' people"
        if (site.state / "preprocessed").exists():
            return f"{site.name} has images that `msfl-client preprocess` made, which lie in its own state folder"
    for key in ("words", "masks", "preprocessed"):
        if len({repr(getattr(site, key)) for site in sites}) > 1:
            return f"the sites' files say different things of `{key}`, and one place could have but one"
    return None


def site_in(folder: Path, site: SiteConfig) -> SiteConfig:
    """The site with a state of its own in the folder of a run; what it found its cases to be is shared by all runs."""
    state = (folder / SITES_FOLDER / site.name).resolve()
    private_folder(state)
    private_folder(site.state)
    (site.state / "cache").mkdir(exist_ok=True)
    for name in _SHARED:
        link = state / name
        if (site.state / name).exists() and not link.exists():
            link.symlink_to(site.state / name, target_is_directory=True)
    return site.model_copy(update={"state": state})


def claim_plan(out: Path, plan: ArmsPlan) -> None:
    """Make `out` the folder of this comparison, or find that it is; more seeds, strategies and attacks may be asked.

    Raises:
        InputError: it holds another study's, other sites' or other files, or cannot be written.
    """
    path = out / PLAN_FILE
    try:
        if path.exists():
            found = parse_record(ArmsPlan, path.read_bytes(), str(path))
            if written_out(found.study) != written_out(plan.study) or found.sites != plan.sites:
                raise InputError(f"{out}: belongs to another study, other settings or sites; choose another --output")
        elif out.exists() and any(entry.name != SITES_FOLDER for entry in out.glob("[!.]*")):
            raise InputError(f"{out}: is not empty and holds no comparison; choose another --output")
        out.mkdir(parents=True, exist_ok=True)
        private_folder(out / RUNS_FOLDER)
        write_text(path, plan.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}; choose another --output") from None
    except ConfigError as error:
        raise InputError(f"{error}; it is damaged, or of another version: choose another --output") from None


def read_plan(out: Path) -> ArmsPlan:
    """The comparison in `out`."""
    path = out / PLAN_FILE
    return parse_record(ArmsPlan, path.read_bytes(), str(path))


def folders(out: Path, runs: Mapping[str, Run]) -> dict[str, Path]:
    """Where each run lies."""
    return {name: out / RUNS_FOLDER / name for name in runs}
