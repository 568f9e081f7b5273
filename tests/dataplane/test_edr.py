import random
import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.adapters import tokens as identity_tokens
from connector.dataplane.edr import ACCESS, ENDPOINT_TYPE, REFRESH, Claims, Grant, Tokens, grant_for, read_address
from connector.dsp.messages import Role
from connector.dsp.schemas import Schemas
from connector.errors import TokenRefused, Unauthenticated
from connector.ports import TransferView
from connector.signatures import jws
from connector.vocabulary import read_vocabulary
from tests.contracts.identity_contract import SetClock
from tests.dataplane.rig import CONSUMER, KEY, PROVIDER, STRANGER, TRANSFER, Counted, view

URL = "https://data.hospital.example"
GRANT = Grant(TRANSFER, CONSUMER, "urn:agreement:1", "urn:dataset:1", 1)
OTHER_TRANSFER = "urn:uuid:01890000-0000-7000-8000-000000000002"
OLD_KEY = jws.signing_key(f"{PROVIDER}#old", b"o" * 32)
IDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=40)
GRANTS = st.builds(Grant, IDS, IDS, IDS, IDS, st.integers(0, 2**31))


class Issuer:
    """One participant's tokens on a clock that stands, with keys that a test exchanges."""

    def __init__(self, participant: str = PROVIDER, url: str = URL, *, token_seconds: float = 300.0) -> None:
        self.clock, self.signs, self.keys = SetClock(), KEY, {key.kid: key.key.public for key in (KEY, OLD_KEY)}
        self.tokens = Tokens(
            participant, url, signer=lambda: self.signs, key_of=self._key_of, clock=self.clock, ids=Counted(), token_seconds=token_seconds
        )

    def _key_of(self, kid: str) -> bytes:
        if kid not in self.keys:
            raise Unauthenticated(f"`{kid}` is not a key of ours")
        return self.keys[kid]

    def signed(self, typ: str, **changed: Any) -> str:
        """A token with a true signature of ours over claims of which some are not what the issuer writes; None leaves one out."""
        _, claims = jws.open(self.tokens.access(GRANT)[0], self._key_of, ACCESS)
        return jws.sign({name: value for name, value in (claims | changed).items() if value is not None}, self.signs, typ)

    def refusal(self, token: str, *, transfer: str = TRANSFER, consumer: str = CONSUMER, typ: str = ACCESS) -> str:
        """What is said about a token that must not be taken."""
        check, whose = (self.tokens.check_access, transfer) if typ == ACCESS else (self.tokens.check_refresh, consumer)
        with pytest.raises(TokenRefused) as refused:
            check(token, whose)
        assert refused.value.reasons == (refused.value.message,)
        return refused.value.message


NOT_VALID = Issuer().refusal("x.y.z")


@given(GRANTS)
def test_what_a_token_was_issued_for_is_what_it_says(grant: Grant):
    issuer = Issuer()
    expected = Claims(grant.transfer, grant.consumer, grant.agreement, grant.generation, issuer.clock.now() + 300)
    token, life_seconds = issuer.tokens.access(grant)
    assert life_seconds == 300
    assert issuer.tokens.check_access(token, grant.transfer) == expected
    assert issuer.tokens.check_access(token, grant.transfer) == expected  # now from memory
    refreshed = issuer.tokens.check_refresh(issuer.tokens.refresh(grant), grant.consumer)
    assert (refreshed.transfer, refreshed.consumer, refreshed.agreement, refreshed.generation) == (
        grant.transfer,
        grant.consumer,
        grant.agreement,
        grant.generation,
    )


@pytest.mark.parametrize("typ", [ACCESS, REFRESH])
@pytest.mark.parametrize("known", [False, True])
def test_a_token_with_any_character_altered_is_refused(typ: str, known: bool):
    issuer, draw = Issuer(), random.Random(3)
    token = issuer.tokens.access(GRANT)[0] if typ == ACCESS else issuer.tokens.refresh(GRANT)
    if known and typ == ACCESS:
        issuer.tokens.check_access(token, TRANSFER)
    alphabet = string.ascii_letters + string.digits + "-_.=+/ \u00e9"
    for at, character in enumerate(token):
        other = draw.choice(alphabet.replace(character, ""))
        assert issuer.refusal(f"{token[:at]}{other}{token[at + 1 :]}", typ=typ) == NOT_VALID


@given(st.data())
def test_a_token_that_was_cut_stretched_or_shuffled_is_refused(data: st.DataObject):
    issuer = Issuer()
    token = issuer.tokens.access(GRANT)[0]
    at, until = sorted((data.draw(st.integers(0, len(token))), data.draw(st.integers(0, len(token)))))
    altered = data.draw(
        st.sampled_from([token[:at] + token[until:], token[:until] + token[at:], token[:at] + token[at:until][::-1] + token[until:]])
    )
    if altered != token:
        assert issuer.refusal(altered) == NOT_VALID


@given(st.text())
def test_no_text_is_a_token(text: str):
    assert Issuer().refusal(text) == Issuer().refusal(text, typ=REFRESH) == NOT_VALID


def test_tokens_of_one_kind_cannot_stand_for_another():
    issuer = Issuer()
    access, refresh = issuer.tokens.access(GRANT)[0], issuer.tokens.refresh(GRANT)
    assert issuer.refusal(refresh) == NOT_VALID
    assert issuer.refusal(access, typ=REFRESH) == NOT_VALID
    # The same keys sign identity tokens and may one day sign more.
    for typ in (identity_tokens.TYP, "vc+jwt", "AT+JWT", ""):
        assert issuer.refusal(issuer.signed(typ)) == issuer.refusal(issuer.signed(typ), typ=REFRESH) == NOT_VALID
    for token in (access, refresh):
        with pytest.raises(Unauthenticated):
            jws.open(token, lambda _: KEY.key.public, identity_tokens.TYP)


def test_a_foreign_a_forged_and_an_unknown_token_look_alike():
    issuer = Issuer()
    elsewhere = Grant(OTHER_TRANSFER, CONSUMER, "urn:agreement:2", "urn:dataset:2", 1)
    issuer.keys[f"{PROVIDER}#thief"] = jws.signing_key(f"{PROVIDER}#thief", b"t" * 32).key.public
    forger = Issuer()
    forger.signs = jws.signing_key(KEY.kid, b"f" * 32)
    stranger = Issuer()
    stranger.signs = jws.signing_key(f"{STRANGER}#key", b"s" * 32)
    refused = {
        "of another transfer": issuer.refusal(issuer.tokens.access(elsewhere)[0]),
        "ours, for a transfer that is not": issuer.refusal(issuer.tokens.access(GRANT)[0], transfer="urn:none"),
        "forged": issuer.refusal(forger.tokens.access(GRANT)[0]),
        "of an unknown key": issuer.refusal(stranger.tokens.access(GRANT)[0]),
        "no token": issuer.refusal("opaque"),
        "of another participant": issuer.refusal(Issuer(STRANGER).tokens.access(GRANT)[0]),
        "of another listener": issuer.refusal(Issuer(url="https://elsewhere.example").tokens.access(GRANT)[0]),
        "without its claims": issuer.refusal(issuer.signed(ACCESS, dataFlowId=None)),
        "a refresh token in another's hands": issuer.refusal(issuer.tokens.refresh(GRANT), consumer=STRANGER, typ=REFRESH),
        "a forged refresh token": issuer.refusal(forger.tokens.refresh(GRANT), typ=REFRESH),
        "a refresh token of another listener": issuer.refusal(Issuer(url="https://e.example").tokens.refresh(GRANT), typ=REFRESH),
    }
    assert set(refused.values()) == {NOT_VALID}, refused


@pytest.mark.parametrize("missing", ["iss", "sub", "aud", "exp", "dataFlowId", "agreementId", "gen"])
def test_a_token_that_lacks_a_binding_is_refused(missing: str):
    assert Issuer().refusal(Issuer().signed(ACCESS, **{missing: None})) == NOT_VALID


def test_a_token_holds_until_its_expiry_and_not_longer_though_its_signature_is_remembered():
    issuer = Issuer(token_seconds=10)
    token = issuer.tokens.access(GRANT)[0]
    issuer.clock.at += 9.75
    assert issuer.tokens.check_access(token, TRANSFER).expires == issuer.clock.at + 0.25
    issuer.clock.at += 0.25
    assert issuer.refusal(token) == "the access token has expired; renew it"
    assert issuer.refusal(token, transfer=OTHER_TRANSFER) == NOT_VALID


@pytest.mark.parametrize(("ends_after", "life"), [(None, 300), (1000, 300), (300, 300), (299.5, 299.5), (2, 2)])
def test_a_token_ends_with_its_agreement_if_that_is_sooner(ends_after: float | None, life: float):
    issuer = Issuer()
    ends = None if ends_after is None else issuer.clock.now() + ends_after
    grant = Grant(TRANSFER, CONSUMER, "urn:agreement:1", "urn:dataset:1", 1, ends)
    token, life_seconds = issuer.tokens.access(grant)
    assert life_seconds == life
    assert issuer.tokens.check_access(token, TRANSFER).expires == issuer.clock.now() + life
    refresh = issuer.tokens.refresh(grant)
    issuer.clock.at += 299.75 if ends is None else min(299.75, (ends_after or 0) - 0.25)
    issuer.tokens.check_refresh(refresh, CONSUMER)
    if ends is not None:
        issuer.clock.at = ends
        assert issuer.refusal(refresh, typ=REFRESH) == NOT_VALID


@given(st.integers(4, 4 * 86_400).map(lambda quarters: quarters / 4))
def test_a_data_address_never_promises_more_life_than_its_token_has(token_seconds: float):
    stated = read_address(Issuer(token_seconds=token_seconds).tokens.data_address(GRANT)).expires_seconds
    assert stated is not None
    assert token_seconds - 1 < stated <= token_seconds


def test_a_new_token_never_ends_an_older_one():
    issuer = Issuer()
    tokens = [issuer.tokens.access(GRANT)[0] for _ in range(20)]
    assert len(set(tokens)) == len(tokens)
    assert all(issuer.tokens.check_access(token, TRANSFER) for token in tokens)


def test_more_tokens_than_are_remembered_all_hold():
    issuer = Issuer()
    first = issuer.tokens.access(GRANT)[0]
    issuer.tokens.check_access(first, TRANSFER)
    for _ in range(4200):
        issuer.tokens.check_access(issuer.tokens.access(GRANT)[0], TRANSFER)
    assert issuer.tokens.check_access(first, TRANSFER)


def test_old_and_new_keys_overlap_and_a_key_that_was_taken_away_takes_its_tokens_along():
    issuer = Issuer()
    issuer.signs = OLD_KEY
    old = issuer.tokens.access(GRANT)[0]
    issuer.signs = KEY
    new = issuer.tokens.access(GRANT)[0]
    assert issuer.tokens.check_access(old, TRANSFER) == issuer.tokens.check_access(new, TRANSFER)
    del issuer.keys[OLD_KEY.kid]
    issuer.tokens.forget()
    assert issuer.refusal(old) == NOT_VALID
    assert issuer.tokens.check_access(new, TRANSFER)


@pytest.mark.parametrize(
    ("agreement_ends", "bound", "ends"), [(None, None, None), (5.0, None, 5.0), (None, 7.0, 7.0), (5.0, 7.0, 5.0), (9.0, 7.0, 7.0)]
)
def test_a_grant_ends_with_the_agreement_or_a_bound_of_the_policy(agreement_ends: float | None, bound: float | None, ends: float | None):
    running: TransferView = view({}, generation=3, agreement_ends=agreement_ends, bound=bound, role=Role.PROVIDER)
    assert grant_for(running) == Grant(TRANSFER, CONSUMER, "urn:agreement", "urn:dataset", 3, ends)


def test_the_data_address_is_what_the_schema_asks_and_reads_back_whole():
    issuer = Issuer()
    document = issuer.tokens.data_address(GRANT)
    message = {
        "@context": ["https://w3id.org/dspace/2025/1/context.jsonld"],
        "@type": "TransferStartMessage",
        "providerPid": "urn:uuid:1",
        "consumerPid": "urn:uuid:2",
        "dataAddress": document,
    }
    assert Schemas(read_vocabulary().schemas).reasons("TransferStartMessage", message) == []
    address = read_address(document)
    assert (address.endpoint, address.refresh_endpoint) == (f"{URL}/data/{TRANSFER}", f"{URL}/token")
    assert address.expires_seconds == 300
    assert address.access_token is not None
    assert address.refresh_token is not None
    assert issuer.tokens.check_access(address.access_token, TRANSFER)
    assert issuer.tokens.check_refresh(address.refresh_token, CONSUMER)


def test_the_data_address_says_where_and_with_what_under_the_names_of_edc_which_shows_nothing_else_of_it():
    document = Issuer().tokens.data_address(GRANT)
    properties = {each["name"]: each["value"] for each in document["endpointProperties"]}
    assert properties["https://w3id.org/edc/v0.0.1/ns/endpoint"] == document["endpoint"]
    assert properties["https://w3id.org/edc/v0.0.1/ns/authorization"] == properties["authorization"]
    assert not read_address(document).by_edc


def listed(**properties: str) -> list[dict[str, str]]:
    return [{"@type": "EndpointProperty", "name": name, "value": value} for name, value in properties.items()]


def address_of(properties: object, endpoint: object = "https://p.example/data") -> dict[str, Any]:
    return {"@type": "DataAddress", "endpointType": ENDPOINT_TYPE, "endpoint": endpoint, "endpointProperties": properties}


EVERYTHING = {
    "authorization": "access",
    "authType": "bearer",
    "refreshToken": "refresh",
    "refreshEndpoint": "https://p.example/token",
    "expiresIn": "300",
}


@pytest.mark.parametrize("prefix", ["", "https://w3id.org/edc/v0.0.1/ns/", "https://w3id.org/tractusx/auth/", "edc:", "tx-auth:"])
def test_an_address_of_another_connector_is_read_by_its_names(prefix: str):
    properties = listed(
        **{prefix + name: value for name, value in EVERYTHING.items()}, **{prefix + "refreshAudience": "x", "flowType": "PULL"}
    )
    read = read_address(address_of(properties))
    assert (read.access_token, read.refresh_token) == ("access", "refresh")
    assert (read.refresh_endpoint, read.expires_seconds) == ("https://p.example/token", 300.0)


def test_an_address_as_eclipse_edc_sends_it_with_its_endpoint_among_the_properties():
    edc, auth = "https://w3id.org/edc/v0.0.1/ns/", "https://w3id.org/tractusx/auth/"
    document = {
        "@type": "DataAddress",
        "endpointType": "https://w3id.org/idsa/v4.1/HTTP",
        "endpointProperties": listed(
            **{
                edc + "endpointType": "https://w3id.org/idsa/v4.1/HTTP",
                edc + "endpoint": "https://p.example/api/public",
                auth + "refreshEndpoint": "https://p.example/api/token",
                auth + "audience": "did:web:c.example",
                auth + "refreshToken": "refresh",
                auth + "expiresIn": "300",
                auth + "refreshAudience": "did:web:c.example",
                edc + "authorization": "access",
                edc + "authType": "bearer",
            }
        ),
    }
    read = read_address(document)
    assert (read.endpoint, read.access_token, read.refresh_token) == ("https://p.example/api/public", "access", "refresh")
    assert (read.refresh_endpoint, read.expires_seconds) == ("https://p.example/api/token", 300.0)


def test_a_single_property_may_stand_without_its_list():
    assert read_address(address_of(listed(authorization="access")[0])).access_token == "access"


def test_an_address_without_tokens_is_one_that_needs_none():
    for properties in (None, [], "absent"):
        document = address_of(properties)
        if properties == "absent":
            del document["endpointProperties"]
        read = read_address(document)
        assert (read.access_token, read.refresh_token, read.refresh_endpoint, read.expires_seconds) == (None, None, None, None)


@pytest.mark.parametrize("value", ["Bearer access", "bearer access", "BEARER access"])
def test_a_token_that_brings_its_scheme_along_is_taken_without(value: str):
    assert read_address(address_of(listed(authorization=value, authType="Bearer"))).access_token == "access"


@pytest.mark.parametrize("value", ["", "-5", "1.5", "soon", "\u0661", "300 ", "9" * 11])
def test_a_life_that_is_no_number_of_seconds_is_not_known(value: str):
    assert read_address(address_of(listed(authorization="access", expiresIn=value))).expires_seconds is None


SECRET = "S3CR3T"
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no endpoint": (address_of([], None), "no `endpoint`"),
    "an empty endpoint": (address_of([], ""), "no `endpoint`"),
    "an endpoint that is no text": (address_of([], 5), "`endpoint` is not an http"),
    "a file": (address_of([], "file:///etc/passwd"), "`endpoint` is not an http"),
    "a relative endpoint": (address_of([], "/data"), "`endpoint` is not an http"),
    "a line end in the endpoint": (address_of([], "https://p.example/\r\nHost: x"), "`endpoint` is not an http"),
    "a space in the endpoint": (address_of([], "https://p.example/a b"), "`endpoint` is not an http"),
    "a long endpoint": (address_of([], "https://p.example/" + "a" * 2048), "`endpoint` is not an http"),
    "a refresh endpoint that is none": (address_of(listed(refreshEndpoint="gopher://p.example")), "`refreshEndpoint` is not an http"),
    "another scheme of tokens": (address_of(listed(authorization=SECRET, authType="basic")), "`authType` is `basic`"),
    "a line end in the token": (address_of(listed(authorization=f"{SECRET}\r\nX: y")), "characters that no token has"),
    "an empty token": (address_of(listed(authorization="")), "one of its tokens is empty"),
    "a scheme without its token": (address_of(listed(authorization="Bearer ")), "one of its tokens is empty"),
    "a space in the refresh token": (address_of(listed(refreshToken=f"{SECRET} x")), "characters that no token has"),
}


@pytest.mark.parametrize(("document", "said"), BAD.values(), ids=BAD)
def test_an_address_that_cannot_be_used_is_refused_without_showing_its_tokens(document: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said) as refused:
        read_address(document)
    assert SECRET not in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["https://p.example", *EVERYTHING]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "value", "x"]), inner, max_size=3),
)


@given(JSON, JSON)
@example(5, "https://p.example")
@example(True, "https://p.example")
def test_no_address_does_worse_than_be_refused(properties: object, endpoint: object):
    try:
        read = read_address(address_of(properties, endpoint))
    except ValueError:
        return
    assert read.endpoint.startswith("http")
