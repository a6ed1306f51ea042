"""What lies in the folder of a run, finished or not: its summary, of its newest checkpoint where none is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from msfl_common.config.stages import Stage, stages_of, study_at
from msfl_common.config.study import StudyConfig, parse_study
from msfl_common.errors import ConfigError, InputError
from msfl_common.system.reading import parse_json, read_text
from msfl_server.results.summary import SUMMARY_FILE, Summary, read_summary
from msfl_server.rounds.checkpoint import RunState, read_state
from msfl_server.rounds.stage import folder_of
from msfl_server.run.summarise import summarise_run

SIMULATED_FILE, DEPLOYED_FILE = "run.json", "study.json"
# What else a person may take for a run, and what it is shown by.
_OTHERS = {
    "cross-validation.json": ("a cross-validation", "cross-validation.html"),
    "folds.json": ("a cross-validation that is not finished", None),
    "pipelines.json": ("a run of pipelines", "report.html"),
}


@dataclass(frozen=True)
class FoundRun:
    """A run as it stands.

    Attributes:
        out: the folder of the stage that it has come to.
        summary: of this stage; of the rounds that are complete.
        stage: which one.
        is_simulated: whether it is one on this machine.
    """

    out: Path
    summary: Summary
    stage: Stage
    is_simulated: bool


def find_run(out: Path) -> FoundRun:
    """Read a run's folder.

    Raises:
        InputError: it holds no run, one of another kind, or what it holds cannot be read.
    """
    study = _study_of(out)
    is_simulated = (out / SIMULATED_FILE).is_file()
    if study is None:
        if not (out / SUMMARY_FILE).is_file():
            _refuse_others(out)
        return FoundRun(out, _with_end(out), "final", is_simulated)
    stage = _stage_at(study, out)
    folder = folder_of(stage, out)
    state = read_state(folder) if any(folder.glob("checkpoints/round_*")) else RunState()
    if (folder / SUMMARY_FILE).is_file():
        summary = _with_end(folder)
        if summary.rounds_completed >= state.round:
            return FoundRun(folder, summary, stage, is_simulated)
    summary = summarise_run(study_at(study, stage), state, finished=False)
    return FoundRun(folder, summary, stage, is_simulated)


def _with_end(out: Path) -> Summary:
    summary = read_summary(out)
    return summary.model_copy(update={"finished": has_ended(out, summary)})


def has_ended(out: Path, summary: Summary) -> bool:
    """Whether all rounds are over, also of a summary that does not say so: its model is written after the last one."""
    return (out / summary.model / "model.json").is_file()


def _stage_at(study: StudyConfig, out: Path) -> Stage:
    """The last stage that has begun, or the first."""
    begun = [stage for stage in stages_of(study) if any(folder_of(stage, out).glob("checkpoints/round_*"))]
    return begun[-1] if begun else stages_of(study)[0]


def _study_of(out: Path) -> StudyConfig | None:
    """The study of a run that has begun, from what it was started with.

    Raises:
        InputError: that cannot be read.
    """
    path = next((path for name in (SIMULATED_FILE, DEPLOYED_FILE) if (path := out / name).is_file()), None)
    if path is None:
        return None
    try:
        text = read_text(path)
        if path.name == SIMULATED_FILE:
            content = parse_json(text, str(path))
            text = json.dumps(content.get("study") if isinstance(content, dict) else content)
        return parse_study(text, str(path))
    except ConfigError as error:
        raise InputError(f"{error}; it is damaged, or of another version: restore it from a backup") from None


def _refuse_others(out: Path) -> None:
    """Name what else the folder holds.

    Raises:
        InputError: always.
    """
    for name, (what, page) in _OTHERS.items():
        if (out / name).is_file():
            shown = f"open {out / page}" if page else "the command that began it continues it"
            each = "; `msfl-server report` shows a single fold" if what.startswith("a cross") else ""
            raise InputError(f"{out}: holds {what}: {shown}{each}")
    if not out.exists():
        raise InputError(f"{out}: no such file; expected the output folder of a run, or a study's folder")
    raise InputError(f"{out}: holds no run; expected the output folder of `msfl-server simulate`, or a study's folder")
