"""The page that a data protection officer reads: it opens offline, on a desktop or a phone, and prints."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from jinja2 import Environment
from rich.filesize import decimal

from msfl_client.egress.ledger_facts import Facts
from msfl_client.egress.ledger_sums import ANSWERS_RESET, BUDGET_RESET, ROSTER_CONFIRMED
from msfl_common.config.message_kinds import KINDS, MessageKind, words_of
from msfl_common.system.files import write_text

TEMPLATE = "ledger.html.j2"
# What a person here did, beside what left.
_DONE_HERE = {
    ANSWERS_RESET: MessageKind("answers reset", "a person here let the study be answered anew", by_default=False),
    BUDGET_RESET: MessageKind(
        "budget reset", "a person here let as much be given out about patients once more", by_default=False
    ),
    ROSTER_CONFIRMED: MessageKind(
        "roster confirmed", "a person here confirmed who takes part in the masked sums", by_default=False
    ),
}
PAGE_START = "<title>What left "  # of every page, near its top


def write_page(path: Path, facts: Facts) -> None:
    """Write the page, whole or not at all."""
    source = (resources.files("msfl_client") / "templates" / TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "bytes": decimal,
        "when": _when,
        "answered": _answered,
        "grouped": _grouped,
        "capitalized": _capitalized,
    }
    page = environment.from_string(source).render(facts.document, kind_names={**KINDS, **_DONE_HERE})
    write_text(path, page)


def _when(time: str) -> str:
    return time[:16].replace("T", " ")


def _answered(register: str) -> str:
    """The name of a register of answers, STAGE-PURPOSE or PURPOSE, in words."""
    stage, _, purpose = register.rpartition("-")
    is_fold = stage.startswith("segmentation-")
    of = " of the model of lesions" if stage.startswith("segmentation") else ""
    return words_of(purpose) + of + (f" without fold {stage.rpartition('-')[2]}" if is_fold else "")


def _capitalized(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _grouped(digits: str) -> str:
    """A fingerprint in groups of eight, to be read out and broken across lines."""
    return " ".join(digits[start : start + 8] for start in range(0, len(digits), 8))
