"""A site and its coordinator as far as the ledger goes, for attacks on it: real keys, kit, gateway and notary."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

from msfl_client.egress import gateway
from msfl_client.egress.gateway import Gateway, release, release_refusal
from msfl_client.egress.ledger import LEDGER_FILE
from msfl_client.egress.ledger_line import Entry, Head, Line, hash_of, parse_line
from msfl_client.egress.ledger_proof import Proof
from msfl_client.egress.ledger_receipts import Receipts
from msfl_client.egress.ledger_witness import Witness
from msfl_client.site.keys import load_key, make_key
from msfl_client.site.kit_approval import approve_kit
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, InputError
from msfl_common.messages.ledger import take_head, with_receipt
from msfl_common.messages.records import Content, ModelUpdate, Refusal, RoundTask, pack_task
from msfl_common.trust.kit import read_kit
from msfl_common.trust.receipts import Receipt, SignedHead, Signer
from msfl_common.trust.signatures import canonical
from msfl_server.study.folder import init_study, open_notary
from msfl_server.study.ledger_heads import Notary
from msfl_server.study.paths import StudyFolder
from msfl_server.study.server_config import ServerConfig
from msfl_server.study.sites import add_site

STUDY = StudyConfig(name="pilot")


def make_study(folder: Path, *sites: str) -> StudyFolder:
    """A study folder, and beside it a folder with key and kit for each site."""
    study = init_study(folder / "pilot", ServerConfig(hosts=("localhost",)))
    for name in sites:
        make_key(folder / name / "site.key", name)
        shutil.unpack_archive(add_site(study, name, folder / name / "site.key.pub"), folder / name)
    return study


@dataclass
class Parties:
    """A site that answers a coordinator, message by message."""

    site: SiteConfig
    study: StudyFolder
    notary: Notary = field(init=False)

    def __post_init__(self) -> None:
        self.notary = open_notary(self.study)

    @property
    def ledger(self) -> Path:
        return self.site.state / LEDGER_FILE

    @property
    def receipts(self) -> Receipts:
        return Receipts.of(self.ledger)

    @property
    def signer(self) -> Signer:
        return Signer(self.site.name, load_key(self.site.key))

    @property
    def gateway(self) -> Gateway:
        return gateway.gateway_of(self.site)

    def restart_coordinator(self) -> None:
        self.notary = open_notary(self.study)

    def request(self) -> Content:
        """What the coordinator sends next."""
        content, receipt = pack_task(RoundTask(STUDY, 1)), self.notary.receipt(self.site.name)
        return with_receipt(content, receipt) if receipt else content

    def take(self, request: Content) -> None:
        """The site takes the receipt out of a request."""
        approved = read_kit(self.site.kit)
        Witness(self.gateway, approved.kit.study, approved.authority).take(request)

    def answer(self, number: int = 1) -> Content:
        """A message through the gateway."""
        weights = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.full(2, number, np.float32)}
        return release(self.gateway, ModelUpdate(weights, 9, 0.5, 1.0), STUDY, number, num_patients=9)

    def refuse(self) -> Content:
        """A refusal through the gateway."""
        return release_refusal(self.gateway, Refusal(Code.DISK_FULL, self.site.name), RoundTask(STUDY, 1))

    def play(self, rounds: int) -> None:
        """Requests and answers, each with what belongs beside it."""
        for number in range(1, rounds + 1):
            self.take(self.request())
            self.notary.note(self.site.name, take_head(self.answer(number)))

    def lines(self) -> list[Line]:
        return [parse_line(raw, self.ledger, "a line") for raw in self.ledger.read_bytes().splitlines()]

    def verify(self) -> Proof:
        """What `msfl-client ledger --verify` does."""
        proof = Proof.of(self.site)
        list(proof.lines())
        return proof

    def write(self, entries: list[Entry], signer: Signer | None, receipts: list[str] | None = None) -> None:
        """Write a whole ledger anew: a chain without a flaw, as whoever has `signer` would."""
        before, raw = Head(), b""
        for number, entry in enumerate(entries, start=1):
            body = {
                **entry.model_dump(include=set(Entry.model_fields)),
                "number": number,
                "time": "2026-01-01T00:00:00+00:00",
                "previous": before.hash,
                "format": 2,
                "receipt": receipts[number - 1] if receipts else "",
            }
            line_hash = hash_of(body)
            signature = signer.sign_head(number, line_hash) if signer else ""
            raw += canonical({**body, "hash": line_hash, "signature": signature}) + b"\n"
            before = Head(number=number, hash=line_hash)
        self.put(raw)

    def put(self, raw: bytes) -> None:
        """Write lines, and the head that fits the last."""
        self.ledger.write_bytes(raw)
        head = parse_line(raw.splitlines()[-1], self.ledger, "the last line").head if raw else Head()
        self.ledger.with_suffix(".head").write_text(head.model_dump_json() + "\n")

    def cut(self, lines: int) -> None:
        """Cut the ledger back to its first lines, head and all."""
        self.put(b"".join(self.ledger.read_bytes().splitlines(keepends=True)[:lines]))

    def snapshot(self, to: Path) -> None:
        shutil.copytree(self.site.state, to)

    def restore(self, backup: Path) -> None:
        shutil.rmtree(self.site.state)
        shutil.copytree(backup, self.site.state)


def head_of(line: Line) -> SignedHead:
    return line.signed_head


def request_with(receipt: Receipt) -> RecordDict:
    return with_receipt(pack_task(RoundTask(STUDY, 1)), receipt)


def site_of(folder: Path, name: str, state: Path, policy: Policy | None = None) -> SiteConfig:
    """A site whose key and approved kit lie in `folder`."""
    site = SiteConfig(
        name=name,
        data=(folder,),
        state=state,
        kit=folder / name / "kit",
        key=folder / name / "site.key",
        policy=policy or Policy(),
    )
    approve_kit(site, read_kit(site.kit))
    return site


def caught(parties: Parties, match: str) -> None:
    with pytest.raises(InputError, match=match):
        parties.verify()
