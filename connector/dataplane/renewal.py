"""Token renewal: a refresh token and the consumer's identity become a fresh access token (RFC 6749, 6).

The consumer authenticates with a self-issued identity token, as for any message; the refresh token alone is worth nothing. Where its
agreement demands signed requests, this one has to be signed, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from connector.dataplane.edr import NOT_VALID, Tokens, whole_seconds
from connector.dataplane.gate import Gate
from connector.dataplane.possession import Proof
from connector.errors import ConnectorError, SignatureRefused, TokenRefused, Unauthenticated, Withdrawn
from connector.ports import Identity

GRANT_TYPE = "refresh_token"
Answer = tuple[int, dict[str, Any]]
# error -> (HTTP status, OAuth error): RFC 6749, 5.2. A refusal is the same whether the token is foreign, forged or retired.
ERRORS: dict[type[ConnectorError], tuple[int, str]] = {
    Unauthenticated: (401, "invalid_client"),
    SignatureRefused: (401, "invalid_client"),
    TokenRefused: (400, "invalid_grant"),
    Withdrawn: (400, "invalid_grant"),
}


async def renew(
    parameters: Mapping[str, Sequence[str]],
    authorization: str | None,
    *,
    identity: Identity,
    gate: Gate,
    tokens: Tokens,
    proof: Proof | None = None,
    body: bytes = b"",
) -> Answer:
    """Answer a renewal: HTTP status and JSON body, an access token response (RFC 6749, 5.1) or an error (5.2).

    `parameters` holds all values of each form or query parameter, `proof` what the request with this `body` proves beside them. The old
    access token lives on to its short end, so that a lost answer costs nothing.
    """
    grant_types, presented = parameters.get("grant_type", ()), parameters.get("refresh_token", ())
    if not grant_types:
        return _error(400, "invalid_request", f"`grant_type` is missing; it is `{GRANT_TYPE}`")
    if len(grant_types) > 1 or len(presented) > 1:
        return _error(400, "invalid_request", "`grant_type` and `refresh_token` are each said once, in the form or in the query")
    if grant_types[0] != GRANT_TYPE:
        return _error(400, "unsupported_grant_type", f"the only grant type here is `{GRANT_TYPE}`")
    if not presented or not presented[0]:
        return _error(400, "invalid_request", "`refresh_token` is missing")
    try:
        caller = await identity.verify(authorization)
        grant = await gate.renewable(presented[0], caller.participant.id, proof)
        if proof is not None:
            proof.cover(body)
    except (Unauthenticated, SignatureRefused, TokenRefused, Withdrawn) as error:
        status, code = ERRORS[type(error)]
        return _error(status, code, NOT_VALID if isinstance(error, TokenRefused) else error.message)
    token, life_seconds = tokens.access(grant)
    return 200, {
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": int(whole_seconds(life_seconds)),
        "refresh_token": tokens.refresh(grant),
    }


def _error(status: int, code: str, description: str) -> Answer:
    return status, {"error": code, "error_description": description}
