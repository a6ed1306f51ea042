"""What cannot be compared, refused by name before anything is run."""

from __future__ import annotations

from msfl_common.config.spelling import no_such
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.strategies.finetune import FineTune
from msfl_server.research.arms.plan import ALL_SITES, ArmsPlan, Attack
from msfl_server.research.simulation.folder import check_sites


def check_plan(plan: ArmsPlan) -> None:
    """Refuse, before anything is run, what cannot be compared.

    Raises:
        InputError: says what, and the fix.
        ConfigError: a strategy is not for this study.
    """
    study, names = plan.study, [site.name for site in plan.sites]
    if len(names) < 2:
        raise InputError(f"expected two sites or more to compare, found {', '.join(names)}")
    if ALL_SITES in names:
        raise InputError(f"{ALL_SITES} stands for the sites' patients in one place; rename the site")
    if study.regression is not None:
        raise InputError("task: arms are compared on lesions and classes so far, not on a regression; simulate each")
    if (study.classification or study.validation).fold is not None:
        raise InputError(
            f"{study.test_section}.fold: leave it out of the study; arms are compared on its test patients"
        )
    if study.classification is not None and not study.classification.test_fraction:
        raise InputError("classification.test_fraction is 0, so that nobody is left to compare on; set 0.25 or so")
    if study.seed + plan.num_seeds > 2**32:
        raise InputError("seed: too large to count on from; choose a smaller one")
    check_sites(study, names)
    for federated in plan.federated.values():
        _check_enough(federated, names)
        check_sites(federated, names)
        _check_own_models(federated)
    if plan.leave_one_out:
        _check_leave_one_out(plan)
    if plan.attack is not None:
        _check_attack(plan, plan.attack)


def _check_enough(study: StudyConfig, names: list[str]) -> None:
    """Refuse a strategy that needs more sites than there are."""
    strategy = study.strategy
    if strategy is not None and study.averaged_rounds() and strategy.fewest_sites > len(names):
        raise InputError(
            f"--strategies: {strategy.kind} needs {strategy.fewest_sites} sites or more, and there are {len(names)} "
            f"({', '.join(names)}); leave it out, or give more sites"
        )


def _check_own_models(study: StudyConfig) -> None:
    """Refuse a strategy whose figure would be that of the shared model, though sites use one of their own."""
    strategy = study.strategy
    if study.classification is None or strategy is None:
        return
    if strategy.trains_personal or isinstance(strategy, FineTune):
        raise InputError(
            f"--strategies: {strategy.kind} leaves each site a model of its own, measured so far of models of "
            "lesions alone; leave it out"
        )


def _check_leave_one_out(plan: ArmsPlan) -> None:
    if plan.study.harmonization.method != "none":
        raise InputError(
            "--leave-one-site-out: a site that is left out has no part in the harmonization; use `msfl-server "
            "cross-validate --leave-one-site-out`, which hands it the reference"
        )
    if plan.shared_arm is None:
        raise InputError("--leave-one-site-out: no strategy here leaves a whole model; name one such as fedavg")
    for site in plan.sites:
        others = [one.name for one in plan.sites if one != site]
        try:
            check_sites(plan.federated[plan.shared_arm], others)
        except InputError as error:
            raise InputError(f"--leave-one-site-out: without {site.name}, {error}") from None


def _check_attack(plan: ArmsPlan, attack: Attack) -> None:
    names = [site.name for site in plan.sites]
    if unknown := [name for name in attack.sites if name not in names]:
        raise InputError(f"--attacked: {no_such('site', unknown, names)}")
    if len(set(attack.sites)) == len(names):
        raise InputError("--attacked: names every site; leave an honest one, whose patients show the effect")
    if plan.study.secure_aggregation.method == "masks":
        raise InputError("--attack: under masks no site's answer can be told from noise; leave secure_aggregation out")
    if attack.kind == "label-flip" and plan.study.classification is not None:
        raise InputError(
            "--attack label-flip is of lesion masks; a classification takes sign-flip, scale, nan or stale"
        )
    if attack.kind in ("collude", "stale") and not plan.study.averages:
        raise InputError(
            f"--attack {attack.kind} is of a network's weights; a model of features takes sign-flip or scale"
        )
