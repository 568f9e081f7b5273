import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.dataplane.ranges import plan, write_repr_digest
from connector.errors import PeerFailed, PeerRefused
from connector.intake.heads import LATER, LINK_CHARACTERS_MAX, Head, NotNow, Unfit, manifest_url, read_head
from connector.metering.live import LOST

DIGEST = hashlib.sha256(b"data").digest()


@given(st.integers(1, 10**15), st.data())
def test_what_a_provider_plans_by_the_rfc_a_consumer_reads(size: int, data: st.DataObject):
    offset = data.draw(st.integers(0, size - 1))
    planned = plan(size, '"tag"', range_=f"bytes={offset}-" if offset else None, if_range='"tag"')
    headers = {"etag": '"tag"', "repr-digest": write_repr_digest(DIGEST), "content-length": str(planned.span.length)}
    if planned.status == 206:
        headers["content-range"] = planned.span.content_range
    assert read_head(planned.status, headers, offset) == Head(offset, size, '"tag"', DIGEST)


def test_a_whole_answer_to_a_request_for_the_rest_begins_at_zero():
    assert read_head(200, {"content-length": "10", "etag": '"new"'}, 5) == Head(0, 10, '"new"', None)


def test_a_part_of_unknown_size_says_where_it_begins():
    assert read_head(206, {"content-range": "bytes 5-9/*"}, 5) == Head(5, None, None, None)


@pytest.mark.parametrize("length", [None, "", "-1", "1.5", "1e3", "\u0661", "0x10", "5, 5", "1" * 19])
def test_a_length_that_is_no_number_is_not_known(length: str | None):
    assert read_head(200, {} if length is None else {"content-length": length}, 0).size_bytes is None


@pytest.mark.parametrize("etag", ['W/"weak"', "bare", ""])
def test_only_a_strong_tag_validates_a_continuation(etag: str):
    assert read_head(200, {"etag": etag}, 0).validator is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-range": "bytes */10"},
        {"content-range": "nonsense"},
        {"content-range": "bytes 9-5/10"},
        {"content-type": "multipart/byteranges; boundary=x"},
    ],
)
def test_a_part_that_does_not_say_which_is_refused(headers: dict[str, str]):
    with pytest.raises(PeerFailed, match="did not say which") as failed:
        read_head(206, headers, 5)
    assert not isinstance(failed.value, PeerRefused)


def test_a_part_that_nobody_asked_for_is_refused():
    with pytest.raises(PeerFailed, match="not asked for"):
        read_head(206, {"content-range": "bytes 0-9/10"}, 0)


@pytest.mark.parametrize("first", [4, 6, 0])
def test_a_part_from_another_place_than_asked_is_refused(first: int):
    with pytest.raises(PeerFailed, match=f"bytes {first} to 9, asked for were those from 5"):
        read_head(206, {"content-range": f"bytes {first}-9/10"}, 5)


@pytest.mark.parametrize("status", sorted(LATER))
def test_an_overloaded_provider_asks_for_patience(status: int):
    with pytest.raises(NotNow, match=str(status)) as failed:
        read_head(status, {"retry-after": "120"}, 0)
    assert failed.value.retry_after_seconds == 120.0
    assert not isinstance(failed.value, PeerRefused)


@pytest.mark.parametrize("value", [None, "", "-5", "1.5", "soon", "\u0661", "Wed, 25 Nov 2026 12:00:00 GMT", "9" * 30])
def test_a_time_that_is_no_number_of_seconds_counts_as_none(value: str | None):
    with pytest.raises(NotNow) as failed:
        read_head(503, {} if value is None else {"retry-after": value}, 0)
    assert failed.value.retry_after_seconds == 0.0


@pytest.mark.parametrize("status", [100, 201, 204, 301, 302, 304, 307, 400, 401, 403, 404, 410, 412, 416, 451, 501])
def test_any_other_status_is_a_refusal_that_keeps_its_number(status: int):
    with pytest.raises(PeerRefused) as refused:
        read_head(status, {"location": "http://127.0.0.1/elsewhere"}, 0)
    assert refused.value.status == status


@pytest.mark.parametrize(("status", "code", "who"), [(502, "source-failed", "look after them"), (503, "disk-short", "make some")])
def test_what_only_the_operator_over_there_can_mend_is_said_in_our_own_words(status: int, code: str, who: str):
    with pytest.raises(NotNow, match=rf"status {status}, `{code}`: .*its operator has to {who}"):
        read_head(status, {}, 0, code=code)


@pytest.mark.parametrize("status", [401, 503])
def test_a_refusal_says_the_code_that_the_provider_gave(status: int):
    with pytest.raises(PeerFailed, match=rf"status {status}, `signature-old`$"):
        read_head(status, {}, 0, code="signature-old")


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "GZIP"])
def test_bytes_in_an_encoding_that_nobody_asked_for_are_refused(encoding: str):
    with pytest.raises(PeerFailed, match="content encoding"):
        read_head(200, {"content-encoding": encoding}, 0)


@pytest.mark.parametrize("encoding", ["identity", "Identity", " identity ", ""])
def test_no_encoding_may_be_said_aloud(encoding: str):
    assert read_head(200, {"content-encoding": encoding, "content-length": "4"}, 0).size_bytes == 4


ENDPOINT = "https://p.example/data/1?x=y"
OURS = '<https://p.example/data/1/manifest>; rel="describedby"; type="application/jwt"'


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (OURS, "https://p.example/data/1/manifest"),
        ("</data/1/manifest>;rel=describedby;type=application/jwt", "https://p.example/data/1/manifest"),
        ('<1/manifest> ; REL="Up DescribedBy" ; TYPE="Application/JWT"', "https://p.example/data/1/manifest"),
        (f'<https://other.example/s.json>; rel="describedby"; type="application/schema+json", {OURS}', "https://p.example/data/1/manifest"),
        (f'<a>; rel=next; title="a, \\"b\\"; c", {OURS}', "https://p.example/data/1/manifest"),
        ('<https://p.example/m>; rel=describedby; rel=next; type="application/jwt"', "https://p.example/m"),
        ("", None),
        ('<https://other.example/s.json>; rel="describedby"; type="application/json"', None),
        ('<https://p.example/m>; rel="describedby"', None),
        ('<https://p.example/m>; rel="next"; rel="describedby"; type="application/jwt"', None),
        ('<https://p.example/m>; rel="describedbyx"; type="application/jwt"', None),
        ('https://p.example/m; rel="describedby"; type="application/jwt"', None),
        ('<https://p.example/m; rel="describedby"; type="application/jwt"', None),
        (f"nonsense, {OURS}", None),
        (",".join(["<a>; rel=next"] * LINK_CHARACTERS_MAX) + "," + OURS, None),
    ],
    ids=range(15),
)
def test_a_manifest_is_found_where_a_link_of_its_kind_says(link: str, expected: str | None):
    assert manifest_url({"link": link}, ENDPOINT) == expected


def test_without_a_link_there_is_no_manifest():
    assert manifest_url({}, ENDPOINT) is None


@pytest.mark.parametrize(
    "target", ["https://other.example/m", "http://p.example/m", "https://p.example:8443/m", "//other.example/m", "mailto:a@b", "https://["]
)
def test_a_manifest_elsewhere_is_refused_because_the_token_would_go_there(target: str):
    with pytest.raises(Unfit, match="at another origin"):
        manifest_url({"link": f'<{target}>; rel="describedby"; type="application/jwt"'}, ENDPOINT)


def test_a_refusal_says_its_code_to_who_goes_by_it():
    with pytest.raises(PeerRefused) as caught:
        read_head(403, {}, 5, code=LOST)
    assert (caught.value.status, caught.value.said) == (403, LOST)
