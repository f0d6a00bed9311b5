"""The driver before real servers of every policy, and before those that lie, expire, or stand in the middle."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.connection import MessageChunk
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.ua.ua_binary import struct_to_binary
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge_agent.cli import main
from edge_agent.driver import Driver, load_driver
from edge_agent.errors import DeviceRefused
from edge_agent.model import Sample
from edge_agent_drivers.opcua import link
from edge_agent_drivers.opcua.certificates import load, thumbprint
from edge_agent_drivers.opcua.pki import Pki, host_name
from edge_agent_drivers.opcua.security import SecureClient, now
from support.opcua_farm import (
    ACTIVATE_SESSION,
    CREATE_SESSION,
    CREATE_SESSION_ANSWER,
    GET_ENDPOINTS,
    GET_ENDPOINTS_ANSWER,
    MANY,
    PASSWORD,
    URI,
    USER,
    WORD,
    Farm,
    Middle,
    altered,
    middle,
    service,
)
from support.opcua_pki import DAY, certificate, der, key_of, revocations, write

POLICIES = ("Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss")
SECURE = [f"{policy}_{mode}" for policy in POLICIES for mode in ("Sign", "SignAndEncrypt")]
ENCRYPTED = "Basic256Sha256_SignAndEncrypt"
EVERY_LOGIN = ["anonymous", "user", "cert"]


class Plant:
    """The servers, and certificates of everybody."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.press = certificate("press")
        self.ca = certificate("plant-ca", ca=True, uri=None)
        self.by_ca = certificate("line", issuer="plant-ca")
        self.user = certificate("bob", uri=None, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
        self.ours = Pki(folder).make_own(host_name(), now(), 2048)
        own = folder / "own"
        write(folder, "user", self.user)
        (folder / "clients").mkdir()
        (folder / "clients" / "ours.der").write_bytes(der(self.ours))
        open_to_us = {"clients": str(folder / "clients")}
        ended = certificate("ended", good_for=-DAY)
        strange = certificate("strange", issuer="plant-ca", uri="urn:edge-agent.example:oven")
        elsewhere = certificate("elsewhere", issuer="plant-ca", host="press.example")
        self.farm = Farm(
            {
                "every": {"policies": ["NoSecurity", *SECURE], "tokens": EVERY_LOGIN, **write(folder, "p", self.press)}
                | {"known": [str(folder / "user.der"), str(own / "certificate.der")]},
                "plain": {"policies": ["NoSecurity"], "tokens": ["anonymous", "user"]},
                "strict": {"policies": [ENCRYPTED], "tokens": ["user"], **write(folder, "s", self.press)},
                "wary": {"policies": [ENCRYPTED], **write(folder, "w", self.press), **open_to_us},
                "ended": {"policies": [ENCRYPTED], **write(folder, "e", ended)},
                "by_ca": {"policies": [ENCRYPTED], **write(folder, "c", self.by_ca)},
                "strange": {"policies": [ENCRYPTED], **write(folder, "x", strange)},
                "elsewhere": {"policies": [ENCRYPTED], **write(folder, "h", elsewhere)},
            }
        )


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    made = Plant(tmp_path_factory.mktemp("opcua"))
    with made.farm:
        yield made


@pytest.fixture
def pki(plant: Plant, tmp_path: Path) -> Path:
    """A folder of ours in which the press is trusted."""
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / "own").symlink_to(plant.folder / "own")
    Pki(tmp_path / "pki").trust(plant.press)
    return tmp_path / "pki"


def driver(url: str, pki: Path, **security: Any) -> Driver:
    spec = load_driver("opcua")
    group = {"poll": "1s", "tags": {"word": {"node": "ns=2;s=word", "type": "string"}}}
    section = {"connection": url, "security": {"pki": str(pki), **security}, "groups": {"all": group}}
    return spec.create("press", spec.settings().model_validate(section))


async def word(device: Driver) -> Any:
    """Connect, read, part."""
    try:
        await device.open()
        (sample,) = await device.read("all")
        assert isinstance(sample, Sample)
        return sample.values[0]
    finally:
        await device.close()


async def refused(device: Driver) -> str:
    """What the refusal says, hint and all."""
    with pytest.raises(DeviceRefused) as caught:
        await word(device)
    assert caught.value.hint
    return str(caught.value)


def through(plant: Plant, name: str, act: Callable[[Middle], Awaitable[None]]) -> Middle:
    """Do it over a line to this server."""

    async def run() -> Middle:
        async with middle(plant.farm.port(name)) as line:
            await act(line)
            return line

    return asyncio.run(run())


def heard(line: Middle) -> bytes:
    return b"".join([*line.up, *line.down])


# --- it works ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("mode", ["Sign", "SignAndEncrypt"])
def test_each_policy_and_mode_is_what_goes_over_the_line(plant: Plant, pki: Path, policy: str, mode: str) -> None:
    async def act(line: Middle) -> None:
        assert await word(driver(line.url, pki, policy=policy, mode=mode)) == WORD

    line = through(plant, "every", act)
    assert line.secured
    assert CREATE_SESSION not in line.asked or mode == "Sign"
    assert (WORD.encode() in heard(line)) == (mode == "Sign")
    uri = policy.replace("Aes128Sha256RsaOaep", "Aes128_Sha256_RsaOaep").replace("Aes256Sha256", "Aes256_Sha256_")
    assert uri.replace("__", "_").encode() in b"".join(chunk for chunk in line.up if chunk[:3] == b"OPN")


@pytest.mark.parametrize("security", [{}, {"policy": "Basic256Sha256", "mode": "Sign"}, {"policy": "Basic256Sha256"}])
def test_a_password_is_never_read_on_the_line(
    plant: Plant, pki: Path, security: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESS_PASSWORD", PASSWORD)

    async def act(line: Middle) -> None:
        assert await word(driver(line.url, pki, user=USER, password={"env": "PRESS_PASSWORD"}, **security)) == WORD

    assert PASSWORD.encode() not in heard(through(plant, "every", act))


def test_a_password_may_be_sent_in_clear_by_who_says_so(plant: Plant, pki: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{PASSWORD}\n")
    login = {"user": USER, "password": {"file": str(secret)}}

    async def wary(line: Middle) -> None:
        assert "set up a certificate on the server" in await refused(driver(line.url, pki, **login))

    line = through(plant, "plain", wary)
    assert ACTIVATE_SESSION not in line.asked
    assert PASSWORD.encode() not in heard(line)

    async def knowing(line: Middle) -> None:
        assert await word(driver(line.url, pki, **login, password_in_clear=True)) == WORD

    assert PASSWORD.encode() in heard(through(plant, "plain", knowing))


def test_a_user_logs_in_with_a_certificate(plant: Plant, pki: Path) -> None:
    login = {"user_certificate": str(plant.folder / "user.der"), "user_key": str(plant.folder / "user.pem")}
    url = plant.farm.url("every")
    for policy in POLICIES:
        assert asyncio.run(word(driver(url, pki, policy=policy, **login))) == WORD
    stranger = write(pki, "stranger", certificate("stranger", uri=None))
    login = {"user_certificate": stranger["cert"], "user_key": stranger["key"]}
    assert "BadUserAccessDenied" in asyncio.run(refused(driver(url, pki, policy=POLICIES[0], **login)))


def test_a_ca_vouches_for_a_server(plant: Plant, pki: Path) -> None:
    device = driver(plant.farm.url("by_ca"), pki, policy="Basic256Sha256")
    assert "nobody in trusted/ vouches for it" in asyncio.run(refused(device))
    Pki(pki).trust(plant.ca)
    assert asyncio.run(word(device)) == WORD
    (pki / "trusted" / "ca.crl").write_bytes(der(revocations("plant-ca", plant.by_ca)))
    assert "CN=plant-ca has revoked CN=line" in asyncio.run(refused(device))


# --- we do not trust the server ------------------------------------------------------------------------------


def test_an_unknown_server_gets_nothing_but_the_question_who_it_is(plant: Plant, pki: Path) -> None:
    for path in (pki / "trusted").iterdir():
        path.unlink()

    async def act(line: Middle) -> None:
        said = await refused(driver(line.url, pki, policy="Basic256Sha256"))
        assert thumbprint(plant.press) in said
        assert "edge-agent opcua trust press" in said

    line = through(plant, "every", act)
    assert not line.secured
    assert line.asked == [GET_ENDPOINTS]
    assert [thumbprint(one) for one in Pki(pki).rejected()] == [thumbprint(plant.press)]


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("ended", "it ended on"),
        ("strange", "it is made for urn:edge-agent.example:oven, the server calls itself urn:edge-agent.example:press"),
        ("elsewhere", "it is made for press.example, not for 127.0.0.1"),
    ],
)
def test_a_certificate_that_does_not_fit_is_refused(plant: Plant, pki: Path, server: str, said: str) -> None:
    Pki(pki).trust(plant.ca)
    if server == "ended":
        Pki(pki).trust(load((plant.folder / "e.der").read_bytes())[0])
    assert said in asyncio.run(refused(driver(plant.farm.url(server), pki, policy="Basic256Sha256")))


# --- the server refuses us -----------------------------------------------------------------------------------


def test_a_server_that_does_not_trust_us_is_named_with_our_thumbprint(plant: Plant, pki: Path) -> None:
    assert asyncio.run(word(driver(plant.farm.url("wary"), pki, policy="Basic256Sha256"))) == WORD
    (pki / "own").unlink()
    stranger = Pki(pki).make_own(host_name(), now(), 2048)
    said = asyncio.run(refused(driver(plant.farm.url("wary"), pki, policy="Basic256Sha256")))
    assert "the server does not t" in said
    assert thumbprint(stranger) in said
    assert "edge-agent opcua certificate" in said


@pytest.mark.parametrize("how", ["hangs up", "BadSecurityChecksFailed", "BadCertificateUriInvalid"])
def test_a_server_that_refuses_the_channel_is_understood(plant: Plant, pki: Path, how: str) -> None:
    def answer(chunk: bytes) -> bytes | None:
        if chunk[:3] != b"OPN" or b"SecurityPolicy#None" in chunk:
            return None
        if how == "hangs up":
            return b""
        code = getattr(ua.StatusCodes, how)
        body = struct_to_binary(ua.ErrorMessage(ua.StatusCode(code), "no"))
        return b"ERRF" + (len(body) + 8).to_bytes(4, "little") + body

    async def act(line: Middle) -> None:
        line.answer = answer
        said = await refused(driver(line.url, pki, policy="Basic256Sha256"))
        assert (how if how.startswith("Bad") else thumbprint(plant.ours)) in said
        assert "edge-agent opcua certificate" in said

    through(plant, "every", act)


def test_a_fault_in_place_of_a_channel_is_understood(plant: Plant, pki: Path) -> None:
    """node-opcua answers so; the specification has both this and an error message."""
    mode = ua.MessageSecurityMode.SignAndEncrypt
    policy = SecurityPolicyBasic256Sha256(plant.ours, plant.press, key_of("press"), mode)
    header = ua.ResponseHeader(ServiceResult=ua.StatusCode(ua.StatusCodes.BadSecurityChecksFailed))
    fault = struct_to_binary(ua.ServiceFault(ResponseHeader=header))
    (made,) = MessageChunk.message_to_chunks(policy, fault, 65536, ua.MessageType.SecureOpen)
    made.SequenceHeader.SequenceNumber = 1
    refusing = made.to_binary()

    def answer(chunk: bytes) -> bytes | None:
        if chunk[:3] != b"OPN" or b"SecurityPolicy#None" in chunk:
            return None
        return refusing

    async def act(line: Middle) -> None:
        line.answer = answer
        said = await refused(driver(line.url, pki, policy="Basic256Sha256"))
        assert "BadSecurityChecksFailed" in said
        assert thumbprint(plant.ours) in said

    through(plant, "every", act)


def test_a_wrong_password_and_a_login_that_the_server_lacks(
    plant: Plant, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESS_PASSWORD", "guessed")
    login = {"user": USER, "password": {"env": "PRESS_PASSWORD"}, "policy": "Basic256Sha256"}
    assert "BadUserAccessDenied" in asyncio.run(refused(driver(plant.farm.url("strict"), pki, **login)))
    said = asyncio.run(refused(driver(plant.farm.url("strict"), pki, policy="Basic256Sha256")))
    assert "no login by anonymous here; it offers user and password" in said
    monkeypatch.delenv("PRESS_PASSWORD")
    assert "PRESS_PASSWORD" in asyncio.run(refused(driver(plant.farm.url("strict"), pki, **login)))


# --- nothing weaker than what is written ---------------------------------------------------------------------


def test_a_server_without_encryption_is_refused_and_told_nothing(plant: Plant, pki: Path) -> None:
    async def act(line: Middle) -> None:
        said = await refused(driver(line.url, pki, policy="Basic256Sha256"))
        assert "does not offer Basic256Sha256 SignAndEncrypt; it offers None" in said

    line = through(plant, "plain", act)
    assert line.asked == [GET_ENDPOINTS]


def test_a_server_that_wants_security_is_named(plant: Plant, pki: Path) -> None:
    said = asyncio.run(refused(driver(plant.farm.url("strict"), pki)))
    assert "no endpoint without security" in said
    assert "edge-agent opcua trust press" in said


def test_without_a_certificate_of_ours_there_is_a_command_to_type(plant: Plant, tmp_path: Path) -> None:
    said = asyncio.run(refused(driver(plant.farm.url("every"), tmp_path, policy="Basic256Sha256")))
    assert f"edge-agent opcua certificate --pki {tmp_path}" in said


def changing(number: int, response: Any, change: Callable[[Any], None]) -> Callable[[bytes], bytes]:
    return lambda chunk: altered(chunk, response, change) if service(chunk) == number else chunk


def test_a_list_of_endpoints_stripped_of_the_secure_ones_gains_a_refusal(plant: Plant, pki: Path) -> None:
    def strip(answer: Any) -> None:
        answer.Endpoints = [one for one in answer.Endpoints if one.SecurityMode == ua.MessageSecurityMode.None_]

    async def act(line: Middle) -> None:
        line.change = changing(GET_ENDPOINTS_ANSWER, ua.GetEndpointsResponse, strip)
        assert "it offers None" in await refused(driver(line.url, pki, policy="Basic256Sha256"))

    line = through(plant, "every", act)
    assert line.asked == [GET_ENDPOINTS]


def test_a_list_of_endpoints_that_is_not_that_of_the_session_is_noticed(plant: Plant, pki: Path) -> None:
    """The channel is the one that was asked for, and still: whoever changes the list stands between us."""

    def strip(answer: Any) -> None:
        answer.Endpoints = [one for one in answer.Endpoints if "Aes256" not in one.SecurityPolicyUri]

    async def act(line: Middle) -> None:
        line.change = changing(GET_ENDPOINTS_ANSWER, ua.GetEndpointsResponse, strip)
        said = await refused(driver(line.url, pki, policy="Basic256Sha256", mode="Sign"))
        assert "was changed on its way: it hid or altered Aes256Sha256RsaPss Sign" in said

    line = through(plant, "every", act)
    assert CREATE_SESSION in line.asked
    assert ACTIVATE_SESSION not in line.asked


def test_a_server_certificate_of_the_man_in_the_middle_is_not_trusted(plant: Plant, pki: Path) -> None:
    his = certificate("press", issuer="middle")

    def swap(answer: Any) -> None:
        for one in answer.Endpoints:
            one.ServerCertificate = der(his)

    async def act(line: Middle) -> None:
        line.change = changing(GET_ENDPOINTS_ANSWER, ua.GetEndpointsResponse, swap)
        assert thumbprint(his) in await refused(driver(line.url, pki, policy="Basic256Sha256"))

    assert not through(plant, "every", act).secured


def test_a_password_is_not_sent_to_who_weakens_the_login(
    plant: Plant, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a channel in clear everything can be changed on its way, the answers to both questions alike."""
    monkeypatch.setenv("PRESS_PASSWORD", PASSWORD)

    def weaken(endpoints: list[Any]) -> None:
        for one in endpoints:
            for token in one.UserIdentityTokens:
                token.SecurityPolicyUri = "http://opcfoundation.org/UA/SecurityPolicy#None"

    def change(chunk: bytes) -> bytes:
        match service(chunk):
            case number if number == GET_ENDPOINTS_ANSWER:
                return altered(chunk, ua.GetEndpointsResponse, lambda answer: weaken(answer.Endpoints))
            case number if number == CREATE_SESSION_ANSWER:
                return altered(
                    chunk, ua.CreateSessionResponse, lambda answer: weaken(answer.Parameters.ServerEndpoints)
                )
        return chunk

    async def act(line: Middle) -> None:
        line.change = change
        said = await refused(driver(line.url, pki, user=USER, password={"env": "PRESS_PASSWORD"}))
        assert "wants the password in clear" in said

    line = through(plant, "every", act)
    assert ACTIVATE_SESSION not in line.asked
    assert PASSWORD.encode() not in heard(line)


def test_a_password_is_encrypted_for_the_server_that_we_trust_only(
    plant: Plant, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESS_PASSWORD", PASSWORD)
    his = certificate("middle")

    def swap(answer: Any) -> None:
        answer.Parameters.ServerCertificate = der(his)

    async def act(line: Middle) -> None:
        line.change = changing(CREATE_SESSION_ANSWER, ua.CreateSessionResponse, swap)
        said = await refused(driver(line.url, pki, user=USER, password={"env": "PRESS_PASSWORD"}))
        assert "another certificate" in said

    assert ACTIVATE_SESSION not in through(plant, "every", act).asked


def test_times_are_those_of_the_pc(plant: Plant) -> None:
    """The farm's certificates must be good now, or the tests above would pass for the wrong reason."""
    assert plant.press.not_valid_before_utc < datetime.datetime.now(datetime.UTC) < plant.press.not_valid_after_utc


# --- at the bench --------------------------------------------------------------------------------------------


CONFIG = """\
agent: {{id: test, location: {{enterprise: acme, site: here, area: hall, line: L1}}, data_dir: {folder}/data}}
devices:
  press:   # by the window
    driver: opcua
    connection: {url}
    security: {{policy: Basic256Sha256, pki: {pki}}}
"""


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code and all that is printed."""
    code, out, err = _typed(capsys, *arguments)
    return code, out + err


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What a verb says in JSON."""
    code, out, err = _typed(capsys, *arguments, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def _typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["--lang", "en", *arguments])
    printed = capsys.readouterr()
    return int(left.value.code or 0), printed.out, printed.err


@pytest.fixture
def config(plant: Plant, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(folder=tmp_path, url=plant.farm.url("wary"), pki=tmp_path / "fresh"))
    return path


def test_a_technician_makes_and_trusts_certificates(
    plant: Plant, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warned = typed(capsys, "check", str(config))[1]
    assert "there is no certificate of this PC" in warned
    assert "edge-agent opcua trust press" in warned
    made = told(capsys, "opcua", "certificate", "--config", str(config), "--device", "press")
    assert made["made"]
    key = tmp_path / "fresh" / "own" / "key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    assert not told(capsys, "opcua", "certificate", "--pki", str(tmp_path / "fresh"))["made"]

    trust = ("opcua", "trust", "press", "--config", str(config))
    code, said = typed(capsys, *trust)
    assert (code, "nobody is here to compare the certificate" in said) == (2, True)
    code, said = typed(capsys, *trust, "--thumbprint", thumbprint(plant.ca))
    assert (code, "the server shows another certificate" in said) == (1, True)
    assert Pki(tmp_path / "fresh").trusted().certificates == []
    shown = thumbprint(plant.press)
    assert typed(capsys, *trust, "--thumbprint", " ".join([shown[:20].lower(), shown[20:]]))[0] == 0
    assert "it is trusted already" in typed(capsys, *trust, "--yes")[1]
    listed = told(capsys, "opcua", "list", "--config", str(config), "--device", "press")
    assert [one["thumbprint"] for one in listed["trusted"]] == [shown]

    said = typed(capsys, "browse", "opcua", "press", "--config", str(config))[1]
    assert made["thumbprint"] in said  # the server does not trust the new one, and says so


def test_a_new_certificate_leaves_the_old_one_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = told(capsys, "opcua", "certificate", "--pki", str(tmp_path))
    export = tmp_path / "agent.pem"
    second = told(capsys, "opcua", "certificate", "--pki", str(tmp_path), "--renew", "--export", str(export))
    assert first["thumbprint"] != second["thumbprint"] == thumbprint(load(export.read_bytes())[0])
    assert thumbprint(load((tmp_path / "own" / "certificate.der.old").read_bytes())[0]) == first["thumbprint"]
    assert first["uris"] == second["uris"] == [Pki(tmp_path).own().uri]


def test_the_tree_is_shown_and_picked_from(
    plant: Plant, pki: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = plant.farm.url("every")
    tree = {one["id"]: one for one in told(capsys, "browse", "opcua", url, "--depth", "2")["nodes"]}
    assert tree["ns=2;s=word"]["value"] == WORD
    force = tree["ns=2;s=force"]
    assert (force["path"], force["type"], force["value"]) == (["Press", "Force"], "float32", 1.5)
    assert force["writable"]
    assert not tree["ns=2;s=list"]["writable"]
    assert tree["ns=2;s=list"]["type"] == "int16[]"
    assert tree["ns=2;s=empty"]["type"] == "float64"  # a Duration, without a value now
    assert tree["ns=2;s=reset"]["kind"] == "method"
    assert "i=2254" not in tree  # below Server

    many = told(capsys, "browse", "opcua", url, "ns=2;s=many", "--depth", "1")["nodes"]
    assert len({one["id"] for one in many}) == MANY + 1
    press = [one["id"] for one in told(capsys, "browse", "opcua", url, "ns=2;s=press", "--depth", "20")["nodes"]]
    assert len(press) == len(set(press)) == 6  # its cycle is cut

    pick = ("--pick", "Force", "--pick", "ns=2;s=list", "--add", "window.state")
    code, said = typed(capsys, "browse", "opcua", url, "ns=2;s=press", "--config", str(config), *pick)
    assert code == 0, said
    text = config.read_text()
    assert "# by the window" in text
    assert f'force: {{node: "nsu={URI};s=force", type: float32}}' in text
    assert told(capsys, "browse", "opcua", "window", "--config", str(config), "--find", "FORCE")["nodes"] == [force]
    assert typed(capsys, "browse", "opcua", url, "--find", "nothing of that name")[0] == 1
    assert "Bad_NodeIdUnknown" in typed(capsys, "browse", "opcua", url, "ns=2;s=nowhere")[1]
    assert f"it has urn:edge-agent.example:press, {URI}" in typed(capsys, "browse", "opcua", url, "nsu=other;i=1")[1]


def test_a_scan_says_what_a_server_offers(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    hosts = [f"127.0.0.1:{plant.farm.port(name)}" for name in ("every", "plain")] + ["127.0.0.1:1"]
    arguments = [text for host in hosts for text in ("--host", host)]
    found = told(capsys, "devices", "scan", "--driver", "opcua", *arguments)["found"]
    by_url = {one["where"]: one for one in found}
    assert set(by_url) == {plant.farm.url("every"), plant.farm.url("plain")}
    assert by_url[plant.farm.url("every")]["section"]["security"] == {"policy": "Aes256Sha256RsaPss"}
    assert "security" not in by_url[plant.farm.url("plain")]["section"]
    assert "None; login: anonymous, user and password" in by_url[plant.farm.url("plain")]["what"]


@pytest.mark.long
@pytest.mark.parametrize("policy", POLICIES)
def test_many_renewals_of_the_channel_lose_no_value_and_no_write(
    plant: Plant, pki: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short_lived(url: str, timeout_s: float) -> SecureClient:
        client = SecureClient(url, timeout_s)
        client.secure_channel_timeout = 3000  # an old key is good for a quarter of it: a busy machine needs that
        return client

    monkeypatch.setattr(link, "SecureClient", short_lived)
    force = {"node": "ns=2;s=force", "type": "float32", "write": True}

    async def act(line: Middle) -> None:
        spec = load_driver("opcua")
        section = {
            "connection": line.url,
            "security": {"pki": str(pki), "policy": policy, "mode": "SignAndEncrypt"},
            "groups": {"all": {"subscribe": "50ms", "queue": 100, "tags": {"force": force}}},
        }
        device = spec.create("press", spec.settings().model_validate(section))
        await device.open()
        seen: list[Any] = []
        last = 0.0

        async def listen() -> None:
            while True:
                seen.extend(each.values[0] for each in await device.read() if isinstance(each, Sample))

        try:
            await device.read()  # the level
            listening = asyncio.create_task(listen())
            end = asyncio.get_running_loop().time() + 12.0
            while asyncio.get_running_loop().time() < end:
                await device.write("force", last + 1.0)
                last += 1.0
                await asyncio.sleep(0.005)
            async with asyncio.timeout(5):
                while seen[-1:] != [last] and not listening.done():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert not listening.done(), listening.exception()
            listening.cancel()
        finally:
            await device.close()
        assert seen[seen.index(1.0) :] == [float(number) for number in range(1, int(last) + 1)]
        assert last > 50

    line = through(plant, "every", act)
    assert len([chunk for chunk in line.up if chunk[:3] == b"OPN" and b"Policy#None" not in chunk]) >= 5
