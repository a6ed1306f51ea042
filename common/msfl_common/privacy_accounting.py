"""How much privacy noise buys: epsilon at a delta, of a patient, from what is released of him.

The unit is the patient: epsilon bounds how much more probable any output can be with a patient's data than with nothing
in their place (Abadi et al. 2016; Ponomareva et al. 2023, "zero-out" adjacency). How many patients a site has, and who
of them trains, is taken as given. Google's dp-accounting counts, by privacy loss distributions (Koskela et al. 2020;
Doroshenko et al. 2022): its figures are upper bounds, some tenths of a percent above the exact ones at most.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field

from msfl_common.config.differential_privacy import privacy_method
from msfl_common.config.stages import stages_of, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.system.words import counted

NO_PROMISE = 20.0  # from this epsilon on, it promises nothing
_GRID = 1e-3  # of the privacy loss


@dataclass(frozen=True, order=True)
class Mechanism:
    """Gaussian noise on a sum over patients.

    Attributes:
        noise_multiplier: its standard deviation, in bounds of what one patient adds.
        sampling_rate: probability with which each patient is in the sum, each alone.
    """

    noise_multiplier: float
    sampling_rate: float = 1.0


def epsilon_of(released: Iterable[tuple[Mechanism, int]], delta: float) -> float:
    """Epsilon of releases about the same patients: each mechanism, and how many times; 0 of none.

    Infinite where one has no noise.
    """
    times: Counter[Mechanism] = Counter()
    for mechanism, number in released:
        times[mechanism] += number
    known = tuple(sorted((one, number) for one, number in times.items() if number))
    if any(one.noise_multiplier <= 0 for one, _ in known):
        return math.inf
    return _epsilon(known, delta) if known else 0.0


@lru_cache(maxsize=256)
def _epsilon(released: tuple[tuple[Mechanism, int], ...], delta: float) -> float:
    from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(NeighboringRelation.REPLACE_SPECIAL, value_discretization_interval=_GRID)
    for one, number in released:
        noise = GaussianDpEvent(one.noise_multiplier)
        accountant.compose(noise if one.sampling_rate >= 1 else PoissonSampledDpEvent(one.sampling_rate, noise), number)
    return float(accountant.get_epsilon(delta))


def tells_loss(study: StudyConfig) -> bool:
    """Whether sites tell their training loss; with noise they do not, as it has none."""
    return study.differential_privacy is None or not study.differential_privacy.promises


def released_in_round(study: StudyConfig) -> tuple[Mechanism, int]:
    """What a round of a stage releases of each of its training patients; `study` is the stage's."""
    private = study.differential_privacy
    assert private is not None
    if privacy_method(study.classification) == "sums":
        return Mechanism(private.noise_multiplier), 1
    return Mechanism(private.noise_multiplier, private.sampling_rate or 1.0), study.training.steps_per_round


def private_rounds(study: StudyConfig) -> int:
    """The rounds of a stage that release anything of training patients; a model of sums needs one."""
    return 1 if privacy_method(study.classification) == "sums" else study.rounds.num_rounds


def planned(study: StudyConfig) -> list[tuple[Mechanism, int]]:
    """What all rounds of all stages release of a patient who trains in each of them."""
    settings = [study_at(study, stage) for stage in stages_of(study)]
    releases = [(released_in_round(one), private_rounds(one)) for one in settings]
    return [(mechanism, times * rounds) for (mechanism, times), rounds in releases]


def planned_epsilon(study: StudyConfig) -> float | None:
    """Epsilon of the whole study, for each of its training patients; None without noise, or without the section."""
    private = study.differential_privacy
    return epsilon_of(planned(study), private.delta) if private is not None and private.promises else None


class PrivacyPromise(BaseModel):
    """What a trained model promises each patient who trained it at a site, for summary.json and the model card."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epsilon: float | None = Field(ge=0, description="of this study alone; null without noise, which guarantees nothing")
    delta: float = Field(gt=0, lt=1, description="probability with which epsilon may not hold")
    noise_multiplier: float = Field(ge=0, description="standard deviation of the noise, in bounds of one patient")
    releases: int = Field(ge=0, description="noisy sums that each training patient may be in")

    @property
    def in_words(self) -> str:
        """What is promised, and what is not, for people."""
        if self.epsilon is None:
            return "Each patient's gradients were clipped, without noise: that guarantees nothing."
        told = (
            f"Noise of each site's own bounds what the model tells of any one of its training patients to "
            f"{in_words(self.epsilon, self.delta)}, of this study alone."
        )
        return told + (f" Above {NO_PROMISE:g}, that promises nothing." if self.epsilon > NO_PROMISE else "")


def promise_after(study: StudyConfig, rounds_completed: int) -> PrivacyPromise | None:
    """What a model promises after so many rounds of the last stage; None of a study without the section."""
    private = study.differential_privacy
    if private is None:
        return None
    *before, (mechanism, times) = planned(study)
    done = min(rounds_completed, private_rounds(study))
    releases = [*before, (mechanism, times // private_rounds(study) * done)]
    return PrivacyPromise(
        epsilon=epsilon_of(releases, private.delta) if private.promises else None,
        delta=private.delta,
        noise_multiplier=private.noise_multiplier,
        releases=sum(times for _, times in releases),
    )


def in_words(epsilon: float, delta: float) -> str:
    """`epsilon 3.2 at delta 1e-05`."""
    return f"epsilon {epsilon:.3g} at delta {delta:g}"


def privacy_lines(study: StudyConfig) -> list[tuple[bool, str]]:
    """What a study promises its patients, a line each, and whether it is a warning; none without the section."""
    private, epsilon = study.differential_privacy, planned_epsilon(study)
    if private is None:
        return []
    if epsilon is None:
        return [(True, "gradients of each patient are clipped without noise: that guarantees nothing")]
    releases = sum(times for _, times in planned(study))
    told = (
        f"{in_words(epsilon, private.delta)} for each training patient of a site, after {counted(releases, 'release')}"
    )
    if epsilon > NO_PROMISE:
        return [
            (True, f"{told}: above {NO_PROMISE:g}, that promises nothing; more noise, fewer rounds or more patients")
        ]
    return [(False, told)]
