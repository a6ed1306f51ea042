"""MSFL from Python: studies, sites, simulated runs and trained models, for notebooks and scripts.

    import msfl

    cohort = msfl.make_cohort("cohort", sites=3, patients=12)
    run = msfl.simulate("study.yaml", cohort=cohort, output="run")
    run.metrics                                    # a table: each metric, over all sites and at each of them
    run.model.predict("cohort/site-a", "predicted")

Nothing is printed but warnings, and every error is a `MsflError` of one line. What a function needs is imported when
it is called; where an installation lacks it, the error names the extra that brings it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from msfl_common import __version__

if TYPE_CHECKING:
    from msfl.cohorts import Cohort, make_cohort
    from msfl.models import Model, load_model
    from msfl.runs import Run, read_run, simulate
    from msfl.settings import load_site, load_study
    from msfl_common.config.site import SiteConfig
    from msfl_common.config.study import StudyConfig
    from msfl_common.errors import (
        CaseError,
        CohortError,
        ConfigError,
        InputError,
        ModelFolderError,
        MsflError,
        RefusedError,
        RunError,
    )

__all__ = [
    "CaseError",
    "Cohort",
    "CohortError",
    "ConfigError",
    "InputError",
    "Model",
    "ModelFolderError",
    "MsflError",
    "RefusedError",
    "Run",
    "RunError",
    "SiteConfig",
    "StudyConfig",
    "__version__",
    "load_model",
    "load_site",
    "load_study",
    "make_cohort",
    "read_run",
    "simulate",
]

_HOMES = {
    "msfl.cohorts": ("Cohort", "make_cohort"),
    "msfl.models": ("Model", "load_model"),
    "msfl.runs": ("Run", "read_run", "simulate"),
    "msfl.settings": ("load_site", "load_study"),
    "msfl_common.config.site": ("SiteConfig",),
    "msfl_common.config.study": ("StudyConfig",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'msfl' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF.get(name, "msfl_common.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
