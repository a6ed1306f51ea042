"""What the page and the document of a ledger count."""

from __future__ import annotations

from pathlib import Path

from tests.client.egress.test_ledger import entry

from msfl_client.egress.ledger import LEDGER_FILE, append
from msfl_client.egress.ledger_facts import gather_facts
from msfl_client.egress.ledger_proof import Proof
from msfl_client.site.keys import load_key, make_key
from msfl_common.config.site import SiteConfig
from msfl_common.errors import SENTENCES_AT_SITE, Code
from msfl_common.trust.receipts import Signer


def test_lines_from_before_the_key_count_as_unsigned(tmp_path: Path) -> None:
    key = tmp_path / "site.key"
    make_key(key, "here")
    site = SiteConfig(name="here", data=(tmp_path,), state=tmp_path / "state", kit=tmp_path / "kit", key=key)
    ledger = site.state / LEDGER_FILE
    for number in range(1, 4):
        append(ledger, entry(number))
    append(ledger, entry(4), signer=Signer("here", load_key(key)))
    document = gather_facts(site, Proof.of(site)).document
    assert (document["proof"]["lines"], document["proof"]["signed"]) == (4, 1)
    assert document["proof"]["without_receipt"] == 4


def test_a_code_of_an_earlier_version_has_its_meaning(tmp_path: Path) -> None:
    site = SiteConfig(name="here", data=(tmp_path,), state=tmp_path / "state", kit=tmp_path / "kit")
    ledger = site.state / LEDGER_FILE
    for number, code in enumerate(("TOO_FEW_CASES", "TOO_FEW_PATIENTS", "INVENTED"), start=1):
        append(ledger, entry(number).model_copy(update={"kind": "refusal", "code": code}))
    (study,) = gather_facts(site, Proof.of(site)).document["studies"]
    former, now, unknown = study["refused"]
    assert former["meaning"] == now["meaning"] == SENTENCES_AT_SITE[Code.TOO_FEW_PATIENTS]
    assert unknown["meaning"] == "not recorded at that time"
