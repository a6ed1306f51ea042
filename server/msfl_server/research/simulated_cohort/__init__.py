"""A simulated multi-site MS cohort on real anatomy."""

from msfl_server.research.simulated_cohort.clinical import ClinicalRecord, SitePrevalence, sample_clinical
from msfl_server.research.simulated_cohort.cohort import CohortSummary, make_cohort
from msfl_server.research.simulated_cohort.records import make_records
from msfl_server.research.simulated_cohort.simulate import simulate_cohort
from msfl_server.research.simulated_cohort.statistics import LesionStatistics, lesion_statistics

__all__ = [
    "ClinicalRecord",
    "CohortSummary",
    "LesionStatistics",
    "SitePrevalence",
    "lesion_statistics",
    "make_cohort",
    "make_records",
    "sample_clinical",
    "simulate_cohort",
]
