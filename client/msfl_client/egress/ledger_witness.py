"""The coordinator as a witness of the ledger: takes its receipts out of requests, and keeps those that hold."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from cryptography import x509

from msfl_client.egress.gateway import Gateway
from msfl_client.egress.ledger_receipts import Receipts
from msfl_common.errors import InputError
from msfl_common.messages.ledger import take_receipt
from msfl_common.messages.records import Content
from msfl_common.trust.receipts import check_receipt

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Witness:
    """The study's coordinator, as the joining kit names it.

    Attributes:
        gateway: of the site.
        study: the kit's.
        authority: the kit's; only what its server has signed is a receipt.
    """

    gateway: Gateway
    study: str
    authority: x509.Certificate

    def take(self, request: Content) -> None:
        """Take the receipt out of a request and keep it; one that does not hold is not kept, and the log says why."""
        receipt = take_receipt(request)
        if receipt is None or self.gateway.signer is None:
            return
        try:
            check_receipt(receipt, self.authority, self.study, self.gateway.signer.owner)
            Receipts.of(self.gateway.ledger).keep(receipt, self.gateway.ledger)
        except InputError as error:
            log.error("the coordinator's receipt for line %d of the ledger: %s", receipt.number, error)
        except OSError as error:  # a full disk: it comes again
            log.warning("the coordinator's receipt could not be kept: %s", error.strerror)
