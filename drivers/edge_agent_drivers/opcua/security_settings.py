"""How the connection to an OPC UA server is secured and who logs in, as the config says it.

Never weaker than written here: what the server does not offer is refused with what it offers, and nothing is chosen
for the technician. No secret stands in the config, only where it is kept.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from edge_agent.driver import Secret, Settings

DEFAULT_PKI = "/var/lib/edge-agent/opcua"  # beside the data: the service may write there, and so keep what it rejected


class SecuritySettings(Settings):
    """Policy and mode of the secure channel, the certificates, and the login."""

    policy: Literal["None", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"] = Field(
        default="None", description="security policy; None: everybody on the network may read and change what is sent"
    )
    mode: Literal["Sign", "SignAndEncrypt"] | None = Field(
        default=None, description="with a policy: SignAndEncrypt (default), or Sign, which keeps nothing secret"
    )
    pki: str = Field(
        default=DEFAULT_PKI,
        min_length=1,
        description="folder of the certificates: own/ (made by `edge-agent opcua certificate`), trusted/ and rejected/",
    )
    user: str | None = Field(default=None, min_length=1, description="user name to log in with; default: anonymous")
    password: Secret | None = Field(default=None, description="{file: /path} or {env: NAME}; never the secret itself")
    password_in_clear: bool = Field(
        default=False,
        description="send the password though nobody vouches for the server, and readable where the server wants it so",
    )
    user_certificate: str | None = Field(
        default=None, min_length=1, description="log in with this certificate (file, DER or PEM) instead of a password"
    )
    user_key: str | None = Field(default=None, min_length=1, description="its private key, a file without a password")

    @property
    def encrypts(self) -> bool:
        """Nobody on the network can read what is sent."""
        return self.policy != "None" and self.mode != "Sign"

    @property
    def needs_trust(self) -> bool:
        """The server must show a certificate that we trust: for the channel, or to encrypt a password for it."""
        return self.policy != "None" or (self.user is not None and not self.password_in_clear)

    @model_validator(mode="after")
    def _consistent(self) -> SecuritySettings:
        if self.policy == "None" and self.mode is not None:
            raise ValueError(f"mode: {self.mode} needs a policy, e.g. policy: Basic256Sha256; or leave mode: out")
        if (self.user is None) != (self.password is None):
            raise ValueError("user: and password: come together; write password: {file: /path} or {env: NAME}")
        if (self.user_certificate is None) != (self.user_key is None):
            raise ValueError("a user's certificate and its key come together; write user_certificate: and user_key:")
        if self.user is not None and self.user_certificate is not None:
            raise ValueError("log in with user: and password:, or with user_certificate: and user_key:, not with both")
        if self.user_certificate is not None and self.policy == "None":
            raise ValueError("a login by certificate needs a secure channel; write policy: Basic256Sha256")
        if self.password_in_clear and (self.user is None or self.encrypts):
            raise ValueError("password_in_clear: means something only with user: and policy: None or mode: Sign")
        return self
