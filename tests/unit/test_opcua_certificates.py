"""Who is believed, and what the settings of security may say together."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_agent_drivers.opcua.certificates import NotTrusted, Peer, certificates, thumbprint, verify
from edge_agent_drivers.opcua.pki import MAX_REJECTED, Pki, PkiProblem
from edge_agent_drivers.opcua.security_settings import SecuritySettings
from support.opcua_pki import DAY, NOW, PRESS, certificate, der, revocations, write

HERE = Peer(PRESS, "127.0.0.1")
ROOT = certificate("root", ca=True, uri=None)
SHOP = certificate("shop", issuer="root", ca=True, uri=None, path_length=0)
LEAF = certificate("leaf", issuer="shop")


def judged(
    sent: Sequence[x509.Certificate],
    trusted: Sequence[x509.Certificate],
    *,
    revoked: Sequence[x509.CertificateRevocationList] = (),
    peer: Peer = HERE,
    at: datetime.datetime = NOW,
) -> str:
    """Why it is not believed; "" when it is."""
    try:
        verify(sent, trusted, revoked, peer, at)
    except NotTrusted as error:
        return str(error)
    return ""


def test_a_person_trusts_one_certificate_whatever_its_names() -> None:
    odd = certificate("odd", uri=None)
    assert judged([odd], [odd]) == ""
    assert "vouches" in judged([odd], [certificate("odd", uri=None)])  # of the same key and name, and another


def test_a_ca_vouches_through_those_between() -> None:
    assert judged([LEAF, SHOP], [ROOT]) == ""
    assert judged([LEAF], [ROOT, SHOP]) == ""
    assert judged([LEAF], [SHOP]) == ""
    assert "vouches" in judged([LEAF], [ROOT])
    assert "vouches" in judged([LEAF, SHOP], [certificate("root", ca=True, uri=None, good_for=-DAY)])


def test_who_is_no_ca_vouches_for_nobody() -> None:
    plain = certificate("plain", uri=None)
    assert "vouches" in judged([certificate("under", issuer="plain")], [plain])
    application = certificate("application", ca=True)  # OPC UA applications sign themselves, many with the CA flag
    assert judged([application], [application]) == ""
    assert "vouches" in judged([certificate("under", issuer="application")], [application])
    deeper = certificate("deeper", issuer="shop", ca=True, uri=None)  # shop may have no CA below
    assert "vouches" in judged([certificate("under", issuer="deeper"), deeper, SHOP], [ROOT])


def test_a_forged_signature_is_nobodys() -> None:
    forger = certificate("shop", ca=True, uri=None)  # signed by itself: the same name and key, but not by the root
    assert judged([LEAF, forger], [forger]) == ""
    real = bytearray(der(LEAF))
    real[-1] ^= 1
    assert "vouches" in judged(certificates(bytes(real)), [SHOP])


def test_under_a_ca_names_and_purpose_must_fit() -> None:
    assert "it is made for urn" in judged([LEAF], [SHOP], peer=Peer("urn:other", "127.0.0.1"))
    assert "not for 10.0.0.1" in judged([LEAF], [SHOP], peer=Peer(PRESS, "10.0.0.1"))
    named = certificate("named", issuer="shop", host="Press.example")
    assert judged([named], [SHOP], peer=Peer(PRESS, "press.EXAMPLE.")) == ""
    client = certificate("client", issuer="shop", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    assert "no certificate of a server" in judged([client], [SHOP])


def test_revoked_by_its_own_issuer_only() -> None:
    assert "CN=shop has revoked CN=leaf" in judged([LEAF], [SHOP], revoked=[revocations("shop", LEAF)])
    assert "CN=root has revoked CN=shop" in judged([LEAF, SHOP], [ROOT], revoked=[revocations("root", SHOP)])
    assert judged([LEAF], [SHOP], revoked=[revocations("other", LEAF), revocations("shop")]) == ""


def test_a_trusted_certificate_ends_all_the_same() -> None:
    ends = LEAF.not_valid_after_utc
    assert judged([LEAF], [LEAF], at=ends) == ""
    assert "it ended on" in judged([LEAF], [LEAF], at=ends + datetime.timedelta(seconds=1))
    assert "this PC's clock says 1970-01-01" in judged(
        [LEAF], [LEAF], at=datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    )


def test_a_short_key_is_not_believed() -> None:
    weak = certificate("weak")
    assert "its key has 1024 bits" in judged([weak], [weak])


def test_a_chain_comes_in_one_piece() -> None:
    assert certificates(der(LEAF) + der(SHOP) + der(ROOT)) == [LEAF, SHOP, ROOT]


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=40).map(lambda tail: der(LEAF) + tail)))
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    try:
        found = certificates(data)
    except NotTrusted:
        return
    assert b"".join(map(der, found)) == data


@given(st.data())
def test_a_damaged_certificate_is_refused_or_not_believed(data: st.DataObject) -> None:
    raw = bytearray(der(LEAF))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    try:
        sent = certificates(bytes(raw))
    except NotTrusted:
        return
    assert judged(sent, [SHOP]) != ""


# --- the folder ----------------------------------------------------------------------------------------------


def test_what_is_rejected_is_bounded_and_leaves_when_trusted(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    assert pki.trusted().certificates == pki.rejected() == []
    assert pki.reject(LEAF)
    assert pki.reject(LEAF)
    assert [thumbprint(one) for one in pki.rejected()] == [thumbprint(LEAF)]
    pki.trust(LEAF)
    assert pki.rejected() == []
    assert pki.trusted().certificates == [LEAF]
    for number in range(MAX_REJECTED):
        (tmp_path / "rejected" / f"{number}.der").write_bytes(b"")
    assert not pki.reject(ROOT)


def test_a_name_of_a_server_is_no_path(tmp_path: Path) -> None:
    odd = certificate("../../etc/cron.d/x\n")
    path = Pki(tmp_path).trust(odd)
    assert path.parent == tmp_path / "trusted"
    assert path.name == f"etc-cron.d-x-{thumbprint(odd)}.der"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda own: (own / "key.pem").unlink(), "there is no"),
        (lambda own: (own / "certificate.der").write_bytes(b"\x30"), "is no certificate"),
        (lambda own: (own / "certificate.der").write_bytes(der(LEAF)), "is not the key of"),
        (lambda own: (own / "key.pem").write_bytes(b"-----BEGIN nothing"), "is no private key"),
    ],
)
def test_a_damaged_folder_says_what_to_type(tmp_path: Path, damage: Any, said: str) -> None:
    pki = Pki(tmp_path)
    pki.make_own("line4", NOW, 2048)
    assert pki.own().uri == "urn:line4:edge-agent"
    damage(tmp_path / "own")
    with pytest.raises(PkiProblem, match=said) as caught:
        pki.own()
    assert "edge-agent opcua certificate" in caught.value.hint


def test_no_certificate_is_made_while_the_clock_is_not_set(tmp_path: Path) -> None:
    with pytest.raises(PkiProblem, match="1970-01-01"):
        Pki(tmp_path).make_own("line4", datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), 2048)
    assert not (tmp_path / "own").exists()


def test_a_file_that_does_not_belong_into_trusted_is_named(tmp_path: Path) -> None:
    (tmp_path / "trusted").mkdir()
    write(tmp_path / "trusted", "leaf", LEAF)  # with its key, which has no business there
    with pytest.raises(PkiProblem, match=r"leaf\.pem is no certificate"):
        Pki(tmp_path).trusted()


# --- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"mode": "Sign"}, "needs a policy"),
        ({"user": "bob"}, "come together"),
        ({"password": {"env": "X"}}, "come together"),
        ({"policy": "Basic256Sha256", "user_certificate": "a.der"}, "come together"),
        ({"user_certificate": "a.der", "user_key": "a.pem"}, "needs a secure channel"),
        ({"password_in_clear": True}, "means something only"),
        ({"policy": "Basic256Sha256", "user": "b", "password": {"env": "X"}, "password_in_clear": True}, "only with"),
        ({"policy": "Basic128Rsa15"}, "Basic256Sha256"),
        ({"user": "bob", "password": "plain"}, "Secret"),
    ],
)
def test_a_contradiction_is_refused_with_what_to_write(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SecuritySettings.model_validate(section)


def test_trust_is_asked_for_where_something_is_to_be_kept_from_others() -> None:
    def needs(**section: Any) -> bool:
        return SecuritySettings.model_validate(section).needs_trust

    secret = {"user": "bob", "password": {"env": "X"}}
    assert not needs()
    assert needs(policy="Basic256Sha256")
    assert needs(**secret)
    assert not needs(**secret, password_in_clear=True)
    assert needs(policy="Basic256Sha256", mode="Sign", **secret, password_in_clear=True)
