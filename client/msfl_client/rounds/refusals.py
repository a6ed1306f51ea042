"""The code that an error leaves a site as."""

from __future__ import annotations

import errno

import torch

from msfl_common.errors import (
    AccountError,
    Code,
    CohortError,
    ConfigError,
    InputError,
    PrivateFolderError,
    RefusedError,
    UpdateError,
)


def code_of(error: Exception) -> Code:
    """The code that stands for an error outside the site."""
    match error:
        case RefusedError():
            return error.code
        case ConfigError():
            return Code.BAD_STUDY
        case UpdateError():
            return Code.BAD_MODEL
        case CohortError():
            return Code.NO_CASES
        case PrivateFolderError() | AccountError():
            return Code.INTERNAL
        case InputError():
            return Code.BAD_TABLE
        case torch.OutOfMemoryError() | MemoryError():
            return Code.OUT_OF_MEMORY
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Code.DISK_FULL
        case _:
            return Code.INTERNAL
