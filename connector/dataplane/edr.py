"""Endpoint data references: the tokens that open the data listener, and the data address that carries them.

A token is a JWT signed by us for one transfer of one consumer (claims as in RFC 9068 and the access token claims of the data
plane signaling profiles), so any worker can check it without a look-up. What a signature cannot know, whether the transfer
still runs, is asked at each request (`connector.dataplane.gate`). A new token never takes the place of an old one: an answer
that is lost on its way costs nothing, and the old one ends by its own short life.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from connector.errors import TokenRefused, Unauthenticated
from connector.ports import Clock, Ids, TransferView
from connector.signatures import jws
from connector.values import Value

ENDPOINT_TYPE = "https://w3id.org/idsa/v4.1/HTTP"  # what the examples of DSP 2025-1 and its compatibility kit carry
ACCESS, REFRESH = "at+jwt", "rt+jwt"  # RFC 9068, 2.1; the second is ours, so that neither can stand for the other
REFRESH_SECONDS_MAX = 366 * 86_400  # for agreements without an end
CHECKED_MAX = 4096  # tokens whose signature is remembered, some 1 KiB each
NOT_VALID = "the token is not valid here"  # one text for foreign, forged and unknown ones: who tries them learns nothing
EDC = "https://w3id.org/edc/v0.0.1/ns/"  # Eclipse EDC shows its users only what it finds under names that begin so
# Names under which older connectors send the properties.
PREFIXES = (EDC, "https://w3id.org/tractusx/auth/", "edc:", "tx-auth:")
VISIBLE = re.compile(r"[!-~]+")
ADDRESS_URL_CHARACTERS_MAX = 2048


class Grant(Value):
    """What a token is for. `generation` counts the starts of the transfer: a start ends the tokens of the one before.
    `ends` is the instant (POSIX seconds) after which the agreement permits nothing, or None."""

    transfer: str
    consumer: str
    agreement: str
    dataset: str
    generation: int
    ends: float | None = None


def grant_for(view: TransferView) -> Grant:
    """What a token for this transfer is for: it ends with its agreement or with a bound of the policy, whichever is first."""
    ends = [end for end in (view.agreement_ends, view.bound) if end is not None]
    return Grant(view.pid, view.peer, view.agreement, view.dataset, view.generation, min(ends, default=None))


class Claims(Value):
    """What a token that we signed says; `expires` in POSIX seconds."""

    transfer: str
    consumer: str
    agreement: str
    generation: int
    expires: float


class Address(Value):
    """A data address as read. `expires_seconds` counts from its arrival; tokens are None where the peer sent none."""

    endpoint: str
    access_token: str | None
    refresh_token: str | None
    refresh_endpoint: str | None
    expires_seconds: float | None
    by_edc: bool = False  # its token stands under the name that Eclipse EDC has for it


class Tokens:
    """Issues and checks tokens of participant `participant` for its data listener at `url` (no slash at its end).

    `signer` returns the key that signs now, `key_of` the public key of one of our `kid`s.
    """

    def __init__(
        self,
        participant: str,
        url: str,
        *,
        signer: Callable[[], jws.SigningKey],
        key_of: jws.KeyOf,
        clock: Clock,
        ids: Ids,
        token_seconds: float,
    ) -> None:
        self._participant, self._url = participant, url
        self._signer, self._key_of = signer, key_of
        self._clock, self._ids = clock, ids
        self.token_seconds = token_seconds
        self._checked: dict[str, Claims] = {}

    def access(self, grant: Grant) -> tuple[str, float]:
        """Return an access token and the seconds that it lives: the set time, or less if the agreement ends before."""
        return self._issue(grant, ACCESS, self.token_seconds)

    def refresh(self, grant: Grant) -> str:
        """Return a refresh token; it lives as long as the agreement, at most a year."""
        return self._issue(grant, REFRESH, REFRESH_SECONDS_MAX)[0]

    def _issue(self, grant: Grant, typ: str, life_seconds: float) -> tuple[str, float]:
        now = self._clock.now()
        expires = now + life_seconds if grant.ends is None else min(now + life_seconds, grant.ends)
        claims = {
            "iss": self._participant,
            "sub": grant.consumer,
            "aud": self._url,
            "iat": now,
            "exp": expires,
            "jti": self._ids.new(),
            "dataFlowId": grant.transfer,
            "agreementId": grant.agreement,
            "datasetId": grant.dataset,
            "gen": grant.generation,
        }
        return jws.sign(claims, self._signer(), typ), expires - now

    def data_address(self, grant: Grant) -> dict[str, Any]:
        """Return the `DataAddress` of a transfer start message (DSP 2025-1), with fresh tokens; what a client needs to begin stands there
        under EDC's names, too."""
        token, life_seconds = self.access(grant)
        endpoint = f"{self._url}/data/{grant.transfer}"
        properties = {
            "authorization": token,
            "authType": "bearer",
            "expiresIn": whole_seconds(life_seconds),
            "refreshToken": self.refresh(grant),
            "refreshEndpoint": f"{self._url}/token",
            f"{EDC}endpoint": endpoint,
            f"{EDC}authorization": token,
        }
        return {
            "@type": "DataAddress",
            "endpointType": ENDPOINT_TYPE,
            "endpoint": endpoint,
            "endpointProperties": [{"@type": "EndpointProperty", "name": n, "value": v} for n, v in properties.items()],
        }

    def sink_address(self, transfer: str, provider: str, agreement: str, dataset: str, ends: float | None) -> dict[str, Any]:
        """Return the `DataAddress` of a transfer request for push: our sink of transfer `transfer` (our pid), with a token that opens it to
        `provider` as long as the agreement lasts, at most a year. There is nothing to renew: who holds it can only bring what is wanted."""
        token, life_seconds = self._issue(Grant(transfer, provider, agreement, dataset, 0, ends), ACCESS, REFRESH_SECONDS_MAX)
        properties = {"authorization": token, "authType": "bearer", "expiresIn": whole_seconds(life_seconds)}
        return {
            "@type": "DataAddress",
            "endpointType": ENDPOINT_TYPE,
            "endpoint": f"{self._url}/sink/{transfer}",
            "endpointProperties": [{"@type": "EndpointProperty", "name": n, "value": v} for n, v in properties.items()],
        }

    def check_access(self, token: str, transfer: str) -> Claims:
        """Return the claims of an access token for `transfer` that holds now. Raises TokenRefused; a token of another
        transfer looks like a forged one."""
        claims = self._checked.get(token)
        if claims is None:
            claims = self._open(token, ACCESS)
            if len(self._checked) >= CHECKED_MAX:
                del self._checked[next(iter(self._checked))]
            self._checked[token] = claims
        if claims.transfer != transfer:
            raise TokenRefused(NOT_VALID)
        if claims.expires <= self._clock.now():
            raise TokenRefused("the access token has expired; renew it")
        return claims

    def check_refresh(self, token: str, consumer: str) -> Claims:
        """Return the claims of a refresh token that `consumer` presents and that holds now. Raises TokenRefused."""
        claims = self._open(token, REFRESH)
        if claims.consumer != consumer or claims.expires <= self._clock.now():
            raise TokenRefused(NOT_VALID)
        return claims

    def forget(self) -> None:
        """Check all signatures anew: our keys have changed."""
        self._checked.clear()

    def _open(self, token: str, typ: str) -> Claims:
        try:
            _, claims = jws.open(token, self._key_of, typ)
            if claims["iss"] != self._participant or claims["aud"] != self._url:
                raise TokenRefused(NOT_VALID)
            return Claims(claims["dataFlowId"], claims["sub"], claims["agreementId"], claims["gen"], claims["exp"])
        except (Unauthenticated, KeyError):
            raise TokenRefused(NOT_VALID) from None


def whole_seconds(life_seconds: float) -> str:
    """The life of a token as the digits that `expiresIn` wants: rounded down, for a consumer that renews too early loses nothing."""
    return str(max(1, int(life_seconds)))


def read_address(document: Mapping[str, Any]) -> Address:
    """Read a `DataAddress` of DSP 2025-1, also with the property names of older connectors; unknown ones are ignored.

    Raises ValueError with what is missing or wrong; never shows a token.
    """
    listed = document.get("endpointProperties")
    properties: dict[str, str] = {}
    names: set[str] = set()
    for item in listed if isinstance(listed, list) else [listed]:
        if isinstance(item, Mapping) and isinstance(item.get("name"), str) and isinstance(item.get("value"), str):
            properties.setdefault(_short(item["name"]), item["value"])
            names.add(item["name"])
    endpoint = document.get("endpoint") or properties.get("endpoint")
    refresh_endpoint = properties.get("refreshEndpoint")
    if not endpoint:
        raise ValueError("it has no `endpoint`")
    for name, url in (("endpoint", endpoint), ("refreshEndpoint", refresh_endpoint)):
        if url is not None and not _is_url(url):
            raise ValueError(f"its `{name}` is not an http or https URL of at most {ADDRESS_URL_CHARACTERS_MAX} characters")
    token = properties.get("authorization")
    if token is not None and properties.get("authType", "bearer").lower() != "bearer":
        raise ValueError(f"its `authType` is `{properties['authType'][:32]}`; this connector presents bearer tokens")
    if token is not None and token[:7].lower() == "bearer ":
        token = token[7:]  # some put the whole header's value there
    for secret in (token, properties.get("refreshToken")):
        if secret is not None and not is_token(secret):
            raise ValueError("one of its tokens is empty, or has characters that no token has")
    expires_in = properties.get("expiresIn", "")
    expires_seconds = float(expires_in) if expires_in.isascii() and expires_in.isdigit() and len(expires_in) <= 10 else None  # noqa: PLR2004
    by_edc = f"{EDC}authorization" in names and "authorization" not in names
    return Address(endpoint, token, properties.get("refreshToken"), refresh_endpoint, expires_seconds, by_edc)


def _short(name: str) -> str:
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def _is_url(url: object) -> bool:
    return isinstance(url, str) and url.startswith(("https://", "http://")) and len(url) <= ADDRESS_URL_CHARACTERS_MAX and is_token(url)


def is_token(text: object) -> bool:
    """Visible ASCII only: what can stand in a header or a request line without becoming two."""
    return isinstance(text, str) and VISIBLE.fullmatch(text) is not None
