"""What can be said before an audit begins: whether study and patients can be audited, and whose folder it is."""

from __future__ import annotations

import tempfile
from pathlib import Path

from msfl_common.config.classification import DeepModel
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.feature_models import model_of
from msfl_server.research.simulation.folder import STUDY_FILE, virtual_sites

RESULTS_FILE, PAGE_FILE = "audit.json", "report.html"
_COHORT_FILE = "cohort.json"  # of simulated patients alone


def check_auditable(study: StudyConfig) -> None:
    """See whether attacks are built for a study.

    Raises:
        InputError: none is; says why.
    """
    settings = study.classification
    if study.inputs.lesion_classes:
        raise InputError("classes of lesions are not audited yet; expected a study without inputs.lesion_classes")
    if settings is None:
        return
    if study.regression is not None:
        raise InputError("a regression is not audited yet; expected a segmentation, or a classification such as by lda")
    if study.segmentation is not None:
        raise InputError(
            "a study that trains a model of lesions before it predicts outcomes is not audited yet; audit it without "
            "`segmentation`, and the segmentation as a study of its own"
        )
    if not isinstance(settings.model, DeepModel) and not model_of(settings).answers_sums:
        raise InputError(
            f"classification.model.kind: {settings.model.kind} is not audited yet; expected a model that sites answer "
            "with sums for, such as logistic or lda"
        )
    if study.harmonization.method != "none":
        raise InputError("harmonization is not audited yet; audit the study with --set harmonization.method=none")


def check_cohort(study: StudyConfig, cohort: Path) -> None:
    """See whether there are sites of simulated patients.

    Raises:
        InputError: there are none.
    """
    virtual_sites(cohort, [], Path(), study)
    if not (cohort / _COHORT_FILE).is_file():
        raise InputError(f"{cohort}: attacks are for simulated patients; make some with `msfl-server make-cohort`")


def claim(out: Path) -> None:
    """Make the folder of an audit, or take that of an earlier one.

    Raises:
        InputError: it holds something else, or cannot be written.
    """
    try:
        if out.exists() and any(one.name not in (RESULTS_FILE, PAGE_FILE, STUDY_FILE) for one in out.iterdir()):
            raise InputError(f"{out}: is not empty and holds no audit; choose another --output")
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}; choose another --output") from None
