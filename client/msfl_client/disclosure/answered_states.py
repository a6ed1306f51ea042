"""The states of a feature model that a site has answered, on its own disk, each with its answer.

`answers/<study>/states-<settings>/` in the site's state folder holds a file a state: a state that is asked again gets
the answer that it had, and costs nothing; another must follow from the last one, and only so many are answered. How the
rounds of a study go may change on the way. With any other setting, which a person has to approve, or after an upgrade
that wrote settings down otherwise, nothing is answered until a person forgets the answers: counted anew, they would be
a second set about the same cases.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from msfl_common.config.classification import Classification
from msfl_common.config.optimisation import settings_sha256
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, InputError, RefusedError, reason
from msfl_common.feature_models import Phase, State, model_of, phase_of
from msfl_common.feature_models.state import MAX_STEPS
from msfl_common.models.weights import to_safetensors
from msfl_common.system.files import private_folder, write_bytes

FOLDER = "answers"
MOST_FIRST_SUMS = 3  # of features that were harmonized to one reference after the other
_STATE, _ANSWER, _FACTS = "state/", "answer/", "facts"


@dataclass(frozen=True)
class Answered:
    """A state and what the site answered to it.

    Attributes:
        number: from 1, in the order of first answers.
        digest: of the state, the features' reference and, where an answer depends on it, the round.
        cases: digest of the cases that the answer is of.
        loss: the mean loss that went with the answer.
    """

    number: int
    digest: str
    cases: str
    state: State
    answer: State
    loss: float


@dataclass(frozen=True)
class AnsweredStates:
    """The states that were answered, the one asked last at the end.

    Attributes:
        folder: where they lie; there may be no such folder yet.
        settings: what is predicted, from what and by which model.
        harmonized_to: the reference of the features, whose sums are those of no other; None where there is none.
        known: in the order in which they were asked last.
    """

    folder: Path
    settings: Classification
    harmonized_to: str | None
    known: tuple[Answered, ...]

    @property
    def last(self) -> State | None:
        """The state that was answered last."""
        return self.known[-1].state if self.known else None

    def find(self, state: State, round_number: int) -> Answered | None:
        """What was answered to this very state."""
        digest = self._digest(state, round_number)
        return next((one for one in self.known if one.digest == digest), None)

    def expect_same_cases(self, cases: str) -> None:
        """Refuse to answer from other cases than before: the difference would be of the patients who changed.

        Raises:
            RefusedError: with the code ANSWERED.
        """
        if any(one.cases != cases for one in self.known):
            detail = f"{self.folder}: earlier answers were of other cases; `msfl-client reset-answers` forgets them"
            raise RefusedError(Code.ANSWERED, detail)

    def of_phase(self, phase: Phase) -> tuple[State, ...]:
        """The states of a phase, in the order of first answers."""
        ordered = sorted(self.known, key=lambda one: one.number)
        return tuple(one.state for one in ordered if phase_of(one.state) is phase)

    def expect_room(self, state: State) -> None:
        """Refuse one state more than a phase of any honest study asks.

        Raises:
            RefusedError: with the code POLICY.
        """
        phase, model = phase_of(state), model_of(self.settings)
        numbers = [one.number for one in self.known if phase_of(one.state) is phase]
        num_answered, most = len(numbers), MAX_STEPS if phase is Phase.LINK else model.most_fits
        if phase is Phase.PREPARE:
            most = MOST_FIRST_SUMS
        elif phase is Phase.FIT and not model.keeps_path:  # of which the newest alone is kept
            num_answered = max(numbers, default=0)
        if most is not None and num_answered >= most:
            raise RefusedError(Code.POLICY, f"{num_answered} states of the phase {phase.name} answered, at most {most}")

    def keep(self, state: State, round_number: int, answer: State, loss: float, cases: str) -> None:
        """Write down an answer before it leaves, or that it was asked again.

        Raises:
            OSError: it cannot be written; nothing may leave then.
            InputError: other accounts may enter where it is to lie.
        """
        number = max((one.number for one in self.known), default=0) + 1
        digest = self._digest(state, round_number)
        arrays = {f"{_STATE}{name}": value for name, value in state.items()}
        arrays |= {f"{_ANSWER}{name}": value for name, value in answer.items()}
        facts = {"digest": digest, "loss": loss, "cases": cases, "names": [*state], "answered": [*answer]}
        private_folder(self.folder, within=self.folder.parents[2])  # the state folder
        write_bytes(self.folder / f"{number:04d}.safetensors", to_safetensors(arrays, {_FACTS: json.dumps(facts)}))
        self._asked(number)
        if not model_of(self.settings).keeps_path:
            for one in self.known:
                if phase_of(one.state) is Phase.FIT:
                    (self.folder / f"{one.number:04d}.safetensors").unlink(missing_ok=True)

    def asked_again(self, one: Answered) -> None:
        """Take a state that was answered before as the one that the next must follow from."""
        self._asked(one.number)

    def _digest(self, state: State, round_number: int) -> str:
        """Of all that an answer depends on but the cases: what is drawn anew in each round, on the round, too."""
        digest = hashlib.sha256(f"{self.harmonized_to}".encode())
        for name, value in sorted(state.items()):
            digest.update(f"{name}{value.shape}=".encode() + np.ascontiguousarray(value).tobytes())
        if phase_of(state) is Phase.FIT and model_of(self.settings).draws_anew:
            digest.update(f"round={round_number}".encode())
        return digest.hexdigest()

    def _asked(self, number: int) -> None:
        write_bytes(self.folder / "last", f"{number}\n".encode())


def answered_states(state_folder: Path, study: StudyConfig, harmonized_to: str | None) -> AnsweredStates:
    """Read what a site has answered in a study.

    Raises:
        InputError: a file cannot be read; says what to do.
        RefusedError: the study was answered with other settings, or as an earlier version wrote them down.
    """
    assert study.classification is not None
    folder = state_folder / FOLDER / study.name / f"states-{settings_sha256(study)[:16]}"
    # A simulation keeps no register beside them: its folds have other settings, and answer nobody.
    if (others := sorted(set(folder.parent.glob("states-*")) - {folder})) and any(folder.parent.glob("*.json")):
        raise RefusedError(
            Code.ANSWERED,
            f"{others[0]}: study {study.name} was answered with other settings, or by an earlier version of MSFL; only "
            "`msfl-client reset-answers` lets it be answered anew",
        )
    known = sorted((_read(path) for path in folder.glob("[0-9]*.safetensors")), key=lambda one: one.number)
    if known:
        try:
            last = int((folder / "last").read_text())
        except (OSError, ValueError):
            last = known[-1].number
        known.sort(key=lambda one: (one.number == last, one.number))
    return AnsweredStates(folder, study.classification, harmonized_to, tuple(known))


def _read(path: Path) -> Answered:
    try:
        with safe_open(path, framework="np") as stored:
            facts = json.loads(stored.metadata()[_FACTS])
            state = {name: stored.get_tensor(f"{_STATE}{name}") for name in facts["names"]}
            answer = {name: stored.get_tensor(f"{_ANSWER}{name}") for name in facts["answered"]}
        return Answered(int(path.stem), facts["digest"], facts["cases"], state, answer, float(facts["loss"]))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(
            f"{path}: an answer of this site that cannot be read ({reason(error)}); restore it from a backup, or ask "
            "the coordinator for a study of another name"
        ) from None
