"""The security codes of OPC UA as errors that name who rejected whom, and what to do on which side.

Servers say little on purpose: most answer BadSecurityChecksFailed to everything that is wrong with a client's
certificate, as the specification advises. So the hints name the likely reason first, and the log of the server.
"""

from __future__ import annotations

from asyncua import ua
from asyncua.ua.uaerrors import UaStatusCodeError

from edge_agent.errors import DeviceRefused

_ACCEPT, _POLICY = "accept", "policy"  # hints that name who is meant, see _hint
_RENEW = "make a new one with `edge-agent opcua certificate --renew`, and accept it at the server"
_LOGIN = "look at user: and password: (or user_certificate:) under security:, and at the user's rights on the server"

_REFUSALS = {
    # the certificate of this PC, as the server sees it
    "BadSecurityChecksFailed": ("the server does not trust our certificate, or found something wrong with it", _ACCEPT),
    "BadCertificateUntrusted": ("the server does not trust our certificate", _ACCEPT),
    "BadCertificateInvalid": ("the server cannot use our certificate", _RENEW),
    "BadCertificatePolicyCheckFailed": (
        "the server does not take a certificate like ours (its key or its signature)",
        "look at what it asks for (key length); edge-agent opcua certificate --renew --bits 3072",
    ),
    "BadCertificateTimeInvalid": (
        "the server says that our certificate has ended or does not begin yet",
        "compare the clocks of the server and of this PC first; then `edge-agent opcua certificate --renew`",
    ),
    "BadCertificateIssuerTimeInvalid": ("the server says that the CA of our certificate has ended", _RENEW),
    "BadCertificateUriInvalid": (
        "the server says that our certificate is made for another application than we call ourselves",
        _RENEW,
    ),
    "BadCertificateHostNameInvalid": ("the server says that our certificate is made for another host", _RENEW),
    "BadCertificateUseNotAllowed": ("the server says that our certificate is not made for this use", _RENEW),
    "BadCertificateIssuerUseNotAllowed": ("the server does not take the CA of our certificate", _ACCEPT),
    "BadCertificateRevoked": ("the server says that our certificate was revoked", _RENEW),
    "BadCertificateIssuerRevoked": ("the server says that the CA of our certificate was revoked", _RENEW),
    "BadCertificateRevocationUnknown": (
        "the server lacks the revocation list for our certificate",
        "give the server the revocation list of the CA, beside the CA's certificate",
    ),
    "BadCertificateIssuerRevocationUnknown": (
        "the server lacks the revocation list for the CA of our certificate",
        "give the server the revocation list of the CA, beside the CA's certificate",
    ),
    "BadCertificateChainIncomplete": (
        "the server does not know the CA of our certificate",
        "give the server the certificates of the CA and of those above it",
    ),
    "BadNoValidCertificates": ("the server has no valid certificate, of us or of its own", _ACCEPT),
    "BadApplicationSignatureInvalid": ("the server does not take our signature", _RENEW),
    # the channel
    "BadSecurityPolicyRejected": ("the server does not take this security policy", _POLICY),
    "BadSecurityModeRejected": ("the server does not take this security mode", _POLICY),
    "BadSecurityModeInsufficient": ("the server allows this only on a more secure channel", _POLICY),
    # the user
    "BadUserAccessDenied": ("the server knows who we are and does not let us in, or not do this", _LOGIN),
    "BadIdentityTokenRejected": ("the server does not take our login", _LOGIN),
    "BadIdentityTokenInvalid": (
        "the server does not take our login: wrong in form, or of a kind it does not have",
        _LOGIN,
    ),
    "BadUserSignatureInvalid": ("the server does not take the signature of the user's certificate", _LOGIN),
    "BadIdentityChangeNotSupported": ("the server does not let this session change its user", _LOGIN),
}


def code_name(code: int) -> str:
    """A status code by its name: BadUserAccessDenied."""
    return str(ua.StatusCode(ua.UInt32(code)).name)


def refusal(device: str, error: BaseException, ours: str = "") -> DeviceRefused | None:
    """The refusal that a code of the server means; None when it is about something else than security.

    ``ours`` is the thumbprint of our certificate (``client.agreed.ours``).
    """
    if not isinstance(error, UaStatusCodeError):
        return None
    name = code_name(error.code)
    if name not in _REFUSALS:
        return None
    what, hint = _REFUSALS[name]
    return DeviceRefused(device, f"{name}: {what}", hint=_hint(hint, device, ours))


def _hint(hint: str, device: str, ours: str) -> str:
    if hint == _POLICY:
        return f"edge-agent opcua trust {device} shows what the server offers; write that policy: and mode:"
    if hint != _ACCEPT:
        return hint
    which = f"; its thumbprint is {ours}" if ours else ""
    return (
        f"in the server's trust list (often a list of rejected ones) accept this PC's certificate{which}; "
        "`edge-agent opcua certificate` shows and exports it"
    )
