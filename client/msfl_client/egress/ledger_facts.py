"""What a data protection officer asks of the ledger: what left, to whom, of how many patients, and what that proves."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from msfl_client.egress.answers import num_answers
from msfl_client.egress.budget_record import budget_lines
from msfl_client.egress.gateway import policy_sha256
from msfl_client.egress.ledger_content import SENT_FOLDER, kept_numbers
from msfl_client.egress.ledger_late import late_of
from msfl_client.egress.ledger_line import Line
from msfl_client.egress.ledger_proof import Proof
from msfl_client.egress.ledger_sums import MaskedSums
from msfl_common.config.site import SiteConfig
from msfl_common.errors import FORMER_CODES, SENTENCES_AT_SITE, Code

REFUSAL = "refusal"
UNPROVEN = (
    "That nothing left by another way: the ledger holds what MSFL sent. The hospital's firewall log shows the rest.",
    "What was sent after the newest receipt: whoever has the site's key could still have changed those lines.",
    "What a message tells about patients. Model weights can hold properties of those that they were trained on.",
    "Who used the site's key. A signature is the key's, not a person's.",
    "That the numbers of patients are right: the site's own program counted them.",
)


@dataclass
class Group:
    """Messages of one kind, in one round or in all.

    Attributes:
        messages: how many.
        num_bytes: of all together.
        cases: fewest and most cases behind one of them.
        smallest: fewest patients behind any figure, where lines say so.
    """

    messages: int = 0
    num_bytes: int = 0
    cases: list[int] = field(default_factory=list)
    smallest: int | None = None

    def add(self, line: Line) -> None:
        """One more message."""
        self.messages += 1
        self.num_bytes += line.num_bytes
        self.cases = [min([line.num_cases, *self.cases]), max([line.num_cases, *self.cases])]
        if line.min_patients:
            self.smallest = min(line.min_patients, self.smallest or line.min_patients)


@dataclass
class Round:
    """A round of a study."""

    number: int
    first: str = ""
    last: str = ""
    kinds: dict[str, Group] = field(default_factory=dict)


@dataclass
class Refused:
    """Refusals with one code."""

    code: str
    meaning: str
    messages: int = 0
    late: int = 0
    last: str = ""


@dataclass
class Study:
    """What left for one study."""

    name: str
    first: str = ""
    last: str = ""
    kinds: dict[str, Group] = field(default_factory=dict)
    rounds: dict[int, Round] = field(default_factory=dict)
    refused: dict[str, Refused] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)
    rounds_answered: int = 0
    spent: tuple[float, float] | None = None

    def add(self, line: Line) -> None:
        """One more line of the ledger."""
        time = line.late or line.time
        self.first, self.last = self.first or time, time
        if line.version not in self.versions:
            self.versions.append(line.version)
        if line.kind == REFUSAL:
            code = FORMER_CODES.get(line.code, Code.__members__.get(line.code))
            meaning = SENTENCES_AT_SITE[code] if code else "not recorded at that time"
            found = self.refused.setdefault(line.code, Refused(line.code or "?", meaning))
            found.messages, found.late, found.last = found.messages + 1, found.late + bool(line.late), time
            return
        if line.epsilon is not None and line.delta is not None:
            self.spent = line.epsilon, line.delta
        counted = self.rounds.setdefault(line.round, Round(line.round))
        counted.first, counted.last = counted.first or time, time
        for kinds in (self.kinds, counted.kinds):
            kinds.setdefault(line.kind, Group()).add(line)
        self.rounds_answered = sum("model_update" in one.kinds for one in self.rounds.values())


@dataclass(frozen=True)
class Facts:
    """All that the page says.

    Attributes:
        document: the same as one JSON document.
        studies: by the name, in the order of their first message.
    """

    document: dict[str, Any]
    studies: tuple[Study, ...]


def gather_facts(site: SiteConfig, proof: Proof) -> Facts:
    """Read, and by that verify, the whole ledger.

    Raises:
        InputError: it was touched; see `Proof.lines`.
    """
    studies: dict[str, Study] = {}
    policies: Counter[str] = Counter()
    num_heads = 0
    for line in proof.lines():
        studies.setdefault(line.study, Study(line.study)).add(line)
        policies[line.policy] += 1
        num_heads += line.head_sent
    newest = proof.countersigned.newest
    now = policy_sha256(site.policy)
    document = {
        "schema_version": 1,
        "site": site.name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "to": {
            "address": proof.kit.address if proof.kit else None,
            "study": proof.kit.study if proof.kit else None,
            "authority_sha256": proof.authority_sha256 or None,
        },
        "proof": {
            "sentences": proof.sentences,
            "lines": proof.num_lines,
            "signed": proof.num_lines - proof.num_unsigned,
            "hash": proof.end.hash if proof.end else None,
            "key_sha256": proof.owner.fingerprint if proof.owner else None,
            "receipts": proof.countersigned.number,
            "countersigned": {"number": newest.number, "time": newest.time} if newest else None,
            "without_receipt": proof.num_lines - (newest.number if newest else 0),
            "heads_sent": num_heads,
            "refusals_without_line": len(late_of(proof.ledger).pending()),
            "kept": len(kept_numbers(site.state / SENT_FOLDER)),
            "not_proven": list(UNPROVEN),
        },
        "policy": json.loads(site.policy.model_dump_json()),
        "lines_under_this_policy": policies[now],
        "lines_under_other_policies": sum(policies.values()) - policies[now],
        "budget": [{**asdict(line), "text": str(line)} for line in budget_lines(site)],
        "studies": [_study_document(study, site, proof.sums.studies.get(study.name)) for study in studies.values()],
    }
    return Facts(document, tuple(studies.values()))


def _study_document(study: Study, site: SiteConfig, sums: MaskedSums | None) -> dict[str, Any]:
    return {
        "study": study.name,
        "first": study.first,
        "last": study.last,
        "versions": study.versions,
        "kinds": {kind: asdict(group) for kind, group in study.kinds.items()},
        "rounds": [asdict(one) for one in study.rounds.values()],
        "refused": [asdict(one) for one in study.refused.values()],
        "masked_sums": {
            "values": sums.values,
            "sums": len(sums.sums),
            "least_sites": sums.least,
            "sites": sorted(sums.sites),
            "opened": len(sums.opened),
            "rosters": sums.rosters,
            "sentence": sums.sentence,
        }
        if sums
        else None,
        "limits": {
            "rounds": {"spent": study.rounds_answered, "limit": site.policy.max_rounds},
            "answers": num_answers(site.state, study.name),
            "epsilon": {"spent": study.spent[0], "delta": study.spent[1], "limit": site.policy.max_epsilon}
            if study.spent
            else None,
        },
    }
