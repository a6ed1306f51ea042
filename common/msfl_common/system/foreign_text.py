"""Text that others wrote, such as names, notes, codes and errors, made safe to show.

A terminal obeys some characters: escape sequences move its cursor and rename its window, a right-to-left override turns
a name round. None of them is shown as itself; how text may look otherwise, people decide.
"""

from __future__ import annotations

import logging
import unicodedata

MOST_SHOWN = 200
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"

_LINES = "\n\t"


def is_plain(text: str) -> bool:
    """Whether a text holds nothing that a terminal obeys, but for ends of lines and tabs."""
    return text.isprintable() or not any(_is_obeyed(character) for character in text if character not in _LINES)


def harmless(text: str) -> str:
    """The text with its ends of lines and tabs, each character that a terminal obeys as its code, such as x1b."""
    if text.isprintable():
        return text
    return "".join(
        _code(character) if character not in _LINES and _is_obeyed(character) else character for character in text
    )


def shown(text: str, most: int = MOST_SHOWN) -> str:
    """The text on one line, not longer than `most` characters."""
    short = text if len(text) <= most else f"{text[:most]}..."
    if short.isprintable():
        return short
    return "".join(
        _code(character) if character in _LINES or _is_obeyed(character) else character for character in short
    )


class LineFormatter(logging.Formatter):
    """One log line for a message, however many lines it has; a traceback follows on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """See `logging.Formatter`."""
        record.message = shown("; ".join(record.message.splitlines()), 4000)
        return super().formatMessage(record)

    def formatException(self, ei) -> str:  # type: ignore[no-untyped-def]  # noqa: N802 - logging's name
        """See `logging.Formatter`."""
        return harmless(super().formatException(ei))


def log_to_stderr() -> None:
    """Log from INFO on, a line a message."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(LOG_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _is_obeyed(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Zl", "Zp") or (category == "Cf" and character not in "\u200c\u200d")


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode()
