"""Every error that MSFL raises on purpose.

    MsflError                 something a person can act on; one line, no traceback
    ├── InputError            bad input or config; exit code 2
    │   ├── ConfigError       a study or site file; one line per fault
    │   ├── AccountError      what a site has written down of its answers cannot be read
    │   ├── CohortError       a site's data folder as a whole
    │   ├── ModelFolderError  a model folder that is incomplete or altered
    │   └── UnknownModelError a kind of model that nothing here knows
    ├── CaseError             one case cannot be used; the others can
    ├── RefusedError          a site refuses what it was asked, or what it was about to send
    ├── UpdateError           an update that must not be aggregated
    └── RunError              the run cannot continue; everything so far is saved; exit code 1
        ├── NoCaseOfClassError  no site's answer has a case of a class
        └── FutileRunError    it would end the same way if started again; exit code 2

`RefusedError` carries a code because codes, unlike sentences about data, may leave a site.
"""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """What a site tells the coordinator when it cannot do what was asked. Nothing else is told."""

    POLICY = "POLICY"
    WRONG_APP = "WRONG_APP"
    BAD_STUDY = "BAD_STUDY"
    WRONG_STUDY = "WRONG_STUDY"
    ANSWERED = "ANSWERED"
    BUDGET_SPENT = "BUDGET_SPENT"
    BAD_MODEL = "BAD_MODEL"
    BAD_TABLE = "BAD_TABLE"
    NO_CASES = "NO_CASES"
    TOO_FEW_PATIENTS = "TOO_FEW_PATIENTS"
    TRAINING_DIVERGED = "TRAINING_DIVERGED"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    OUTSIDE_HOURS = "OUTSIDE_HOURS"
    DISK_FULL = "DISK_FULL"
    NO_DEVICE = "NO_DEVICE"
    ROSTER_UNCONFIRMED = "ROSTER_UNCONFIRMED"
    NO_MASK_KEY = "NO_MASK_KEY"
    BAD_SUM = "BAD_SUM"
    INTERNAL = "INTERNAL"


# As earlier versions called it, in ledgers and checkpoints that are there already.
FORMER_CODES = {"TOO_FEW_CASES": Code.TOO_FEW_PATIENTS}


# For the coordinator.
SENTENCES: dict[Code, str] = {
    Code.POLICY: "the site's policy does not allow it",
    Code.WRONG_APP: "the run is of another app or version than the site has installed, or asks what that cannot do",
    Code.BAD_STUDY: "the study settings that arrived are not valid for the installed version",
    Code.WRONG_STUDY: "the study is not the one of the site's approved kit; hand it a new kit, to be approved there",
    Code.ANSWERED: "the site has answered another request of this round or a later one, or its data have changed "
    "since its first answer; resume the run that it was part of, or ask the site, whose site.log says which",
    Code.BUDGET_SPENT: "the site has given out as much about its patients as its bounds allow, over all studies; fewer "
    "inputs or rounds ask less, and `msfl-client check --study` there says how much is left",
    Code.BAD_MODEL: "the model weights that arrived do not fit the study's model",
    Code.BAD_TABLE: "a table at the site cannot be used; `msfl-client check --study` there says which line, and why",
    Code.NO_CASES: "no usable case at the site; `msfl-client check` there says why",
    Code.TOO_FEW_PATIENTS: "fewer patients than the site's policy demands",
    Code.TRAINING_DIVERGED: "the loss or the weights became non-finite",
    Code.OUT_OF_MEMORY: "the device ran out of memory",
    Code.OUTSIDE_HOURS: "the site computes at other hours of the day",
    Code.DISK_FULL: "the site's disk is full",
    Code.NO_DEVICE: "the device that the site's file names is not there; `msfl-client check` at the site says which",
    Code.ROSTER_UNCONFIRMED: "nobody at the site has confirmed the roster of the masked sums yet; read its words out "
    "to the site's people, who confirm them with `msfl-client roster`",
    Code.NO_MASK_KEY: "the site has no key of this roster: its state is new or was set back, or the study had ended "
    "there; it takes part again with a new roster, which people confirm at every site",
    Code.BAD_SUM: "the site takes no part in such a sum under masks: none is named, or it is of another roster, "
    "request or members, or was opened before with others; its site.log says which",
    Code.INTERNAL: "an error at the site; its log holds the detail",
}

# For the site's own people, who read what was asked of them.
SENTENCES_AT_SITE: dict[Code, str] = {
    **SENTENCES,
    Code.WRONG_APP: "the coordinator's run is of another app or version than is installed here, or asks what that "
    "cannot do; install the version that the coordinator has",
    Code.BAD_STUDY: "the study settings that arrived are not valid for the version that is installed here",
    Code.WRONG_STUDY: "the coordinator runs another study than the kit that was approved here says; ask for its new "
    "kit, and take it over with `msfl-client join`",
    Code.ANSWERED: "another request of this round or a later one was answered, or the data have changed since the "
    "first answer; where the coordinator has lost its run, see `msfl-client reset-answers --help`",
    Code.BUDGET_SPENT: "as much is given out about these patients as this site's bounds allow, over all studies; "
    "`msfl-client status` says how much",
    Code.BAD_TABLE: "a table cannot be used; `msfl-client check` says which line, and why",
    Code.NO_CASES: "no case can be used; `msfl-client check` says why",
    Code.TOO_FEW_PATIENTS: "fewer patients than this site's policy, or the study, demands",
    Code.OUTSIDE_HOURS: "this site computes at other hours of the day",
    Code.DISK_FULL: "the disk is full; free some",
    Code.NO_DEVICE: "the device that `device:` in the site's file names is not there; `auto` takes what there is",
    Code.ROSTER_UNCONFIRMED: "nobody here has confirmed the roster of the masked sums yet; compare its words with the "
    "coordinator's and the other sites' over the telephone, and confirm them with `msfl-client roster`",
    Code.NO_MASK_KEY: "there is no key of this roster here: this site's state is new or was set back, or the study had "
    "ended here; the coordinator makes a new roster, to be confirmed at every site",
    Code.BAD_SUM: "this site takes no part in such a sum under masks: none is named, or it is of another roster, "
    "request or members, or was opened before with others",
    Code.INTERNAL: "an error here; site.log in the state folder holds the detail",
}


def in_brackets(code: Code) -> str:
    """A code behind a sentence that a person reads; none of one that says no more than the sentence.

    >>> in_brackets(Code.TOO_FEW_PATIENTS), in_brackets(Code.INTERNAL)
    (' (TOO_FEW_PATIENTS)', '')
    """
    return "" if code is Code.INTERNAL else f" ({code})"


class MsflError(Exception):
    """An error with one line that says what was expected, what was found and the fix."""

    exit_code = 1


class InputError(MsflError):
    """Bad input or configuration."""

    exit_code = 2


class ConfigError(InputError):
    """A study or site file that does not validate; `faults` holds one line each."""

    def __init__(self, source: str, faults: list[str]) -> None:
        self.source = source
        self.faults = faults
        super().__init__("\n".join(f"{source}: {fault}" for fault in faults))


class PrivateFolderError(InputError):
    """A folder that is to be one account's alone, and is not."""


class AccountError(InputError):
    """What was given out about a site's patients, or its key, that cannot be read: an error of the site's own."""


class CohortError(InputError):
    """A data folder that holds no usable case, or is no BIDS folder."""


class ModelFolderError(InputError):
    """A model folder with a missing, altered or unsupported file."""


class UnknownModelError(InputError):
    """A kind of model that nothing here knows, or another than is asked for."""


class CaseError(MsflError):
    """One case that cannot be used."""


class RefusedError(MsflError):
    """A request or an outgoing message that the site refuses."""

    def __init__(self, code: Code, detail: str = "") -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code.value}: {SENTENCES_AT_SITE[code]}" + (f" ({detail})" if detail else ""))

    @property
    def why(self) -> str:
        """For people at the site, who have no use for a code: the detail, else what the code says."""
        return self.detail or SENTENCES_AT_SITE[self.code]


class UpdateError(MsflError):
    """An update with wrong names, shapes, types, size or values."""


class RunError(MsflError):
    """The run ends here; what it has completed is on disk."""


class NoCaseOfClassError(RunError):
    """Nobody's sums hold a training case of a class."""


class FutileRunError(RunError):
    """The run ends here, and would end so again with the same sites and settings."""

    exit_code = 2


GRANT_ACCESS = "grant read access, or run as the account that it belongs to"


def reason(error: Exception) -> str:
    """What an error of reading a file says, without the number and the path that the system's own put around it."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def unreadable(error: OSError, otherwise: str = "") -> str:
    """That a file cannot be read, and what to do: access, where that is what lacks, else what fits this file.

    >>> unreadable(PermissionError(13, "Permission denied"), "correct its name")
    'cannot be read: Permission denied; grant read access, or run as the account that it belongs to'
    >>> unreadable(OSError(5, "Input/output error"), "restore it from a backup")
    'cannot be read: Input/output error; restore it from a backup'
    """
    fix = GRANT_ACCESS if isinstance(error, PermissionError) else otherwise
    return f"cannot be read: {reason(error)}" + (f"; {fix}" if fix else "")
