"""Who is no patient with MS: healthy controls, and patients with neuromyelitis optica spectrum disorder (NMOSD).

Controls have no lesions of MS, a few small unspecific white spots at most, more of them with age. NMOSD spares the
brain or leaves few small lesions there, less along the ventricles and in the cortex and more in brainstem and deep
white matter, without bands around the ventricles (Kim et al., Neurology 2015); patients are mostly women, about 40
years old, and more disabled (Jarius et al., Nat Rev Dis Primers 2020). The figures are in that spirit, not fitted.
"""

import numpy as np

from msfl_server.research.simulated_cohort.clinical import ClinicalRecord, SitePrevalence, sample_clinical, valid_edss
from msfl_server.research.simulated_cohort.lesions import LesionBurden

GROUPS = ("MS", "NMOSD", "HC")


def sample_record(rng: np.random.Generator, group: str, prevalence: SitePrevalence) -> ClinicalRecord:
    """Draw a person of one of `GROUPS`.

    Args:
        rng: Source of randomness.
        group: MS, NMOSD or HC.
        prevalence: The site's rates of the outcomes of MS.

    Returns:
        The record; of a control, EDSS and disease duration are 0 and stand for nothing.
    """
    return {"MS": sample_clinical, "NMOSD": _nmosd, "HC": _control}[group](rng, prevalence)


def _control(rng: np.random.Generator, _: SitePrevalence) -> ClinicalRecord:
    age = float(np.clip(rng.normal(38, 11.5), 18, 70))
    num_spots = min(int(rng.poisson(0.4 + 0.06 * max(age - 30, 0))), 8)
    volume_ml = num_spots * float(np.clip(np.exp(rng.normal(np.log(0.012), 0.4)), 0.005, 0.03))
    return ClinicalRecord(
        age_years=round(age, 1),
        sex="F" if rng.random() < 0.6 else "M",
        ms_course="n/a",
        disease_duration_years=0.0,
        edss=0.0,
        relapses_prior_year=0,
        atrophy=0.035 * (age - 37) - 0.5 + float(rng.normal(0, 0.8)),
        burden=LesionBurden(volume_ml, num_spots, pattern="spots"),
        activity=False,
        progression=False,
        edss_follow_up=0.0,
        activity_log_odds=0.0,
        progression_log_odds=0.0,
        diagnosis="HC",
    )


def _nmosd(rng: np.random.Generator, _: SitePrevalence) -> ClinicalRecord:
    age = float(np.clip(rng.normal(42, 12), 18, 75))
    duration = float(np.clip(rng.gamma(1.3, 4.0), 0.1, age - 14))
    num_lesions = int(np.clip(rng.poisson(6) - 2, 0, 20))
    volume_ml = float(np.clip(np.exp(rng.normal(-0.6, 0.9)), 0.05, 6.0)) if num_lesions else 0.0
    new = int(rng.random() < 0.05) if num_lesions else 0
    edss = valid_edss(3.2 + 1.5 * float(rng.standard_normal()))
    return ClinicalRecord(
        age_years=round(age, 1),
        sex="F" if rng.random() < 0.87 else "M",
        ms_course="n/a",
        disease_duration_years=round(duration, 1),
        edss=edss,
        relapses_prior_year=min(int(rng.poisson(0.7)), 3),
        atrophy=0.035 * (age - 37) - 0.2 + float(rng.normal(0, 0.8)),
        burden=LesionBurden(volume_ml, num_lesions, new, pattern="nmosd"),
        activity=new > 0,
        progression=False,
        edss_follow_up=edss,
        activity_log_odds=0.0,
        progression_log_odds=0.0,
        diagnosis="NMOSD",
    )
