"""A log that strangers cannot fill: so many lines a minute, each of a bounded length, and how many were left out."""

from __future__ import annotations

import logging
import time

LINES_A_MINUTE = 60
_MOST_CHARACTERS = 300


class SparingHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the process's standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.setLevel(logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._since, self._lines, self._left_out = time.monotonic(), 0, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or count it."""
        moment = time.monotonic()
        if moment - self._since > 60:
            left_out, self._since, self._lines, self._left_out = self._left_out, moment, 0, 0
            if left_out:
                super().emit(logging.makeLogRecord({"levelname": "WARNING", "msg": f"{left_out} lines were left out"}))
        if self._lines >= LINES_A_MINUTE:
            self._left_out += 1
            return
        self._lines += 1
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        """One line, cut off where it is too long; what fails inside says where in the same line."""
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            trace, place = error.__traceback__, "?"
            while trace is not None:
                place, trace = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}", trace.tb_next
            text = f"{text.strip()}: {type(error).__name__} at {place}: {error}"
        text = text.encode("ascii", "backslashreplace").decode().replace("\n", "\\n").replace("\r", "\\r")
        short = logging.makeLogRecord({**record.__dict__, "msg": text[:_MOST_CHARACTERS], "args": (), "exc_info": None})
        short.exc_text = None
        return super().format(short)


def log_sparingly(*loggers: str) -> None:
    """Let all of this process's lines, those of these loggers too, go through one such handler."""
    handler = SparingHandler()
    logging.getLogger().handlers[:] = [handler]
    for name in loggers:
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
