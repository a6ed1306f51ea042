"""The study's server as the one that signs its models."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from msfl_common.errors import InputError
from msfl_common.models.model_signature import ModelSigner
from msfl_server.study.paths import StudyFolder


def model_signer(study: StudyFolder) -> ModelSigner:
    """The server's key, with its certificate and that of the authority that issued it.

    Raises:
        InputError: the key or a certificate is missing or damaged.
    """
    try:
        key = load_pem_private_key(study.server_key.read_bytes(), password=None)
        certificate, authority = study.server_certificate.read_bytes(), study.ca_certificate.read_bytes()
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{study.server_key.parent}: the server cannot sign its models: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InputError(f"{study.server_key}: expected an elliptic-curve key; put back the file that `init` wrote")
    return ModelSigner(key, certificate, authority)
