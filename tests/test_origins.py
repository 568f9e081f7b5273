import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.origins import origin


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://peer.example/dsp/2025-1", "https://peer.example"),
        ("https://PEER.example:443/dsp?x=1", "https://peer.example"),
        ("HTTPS://peer.example:0443/", "https://peer.example"),
        ("http://peer.example:80", "http://peer.example"),
        ("http://peer.example:443/", "http://peer.example:443"),
        ("https://peer.example:8443/a#b", "https://peer.example:8443"),
        ("http://127.0.0.1:8080/dsp", "http://127.0.0.1:8080"),
        ("https://[2001:DB8::1]:8443/", "https://[2001:db8::1]:8443"),
    ],
)
def test_an_origin_has_one_spelling(url: str, expected: str):
    assert origin(url) == expected


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "characters"),
        ("https://peer.example/a b", "characters"),
        ("https://peer.example/\t", "characters"),
        ("https://peer.exa\nmple/", "characters"),
        ("https://peer.example\\@evil.example/", "characters"),
        ("https://münchen.example/", "characters"),
        ("ftp://peer.example/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("//peer.example/", "https://"),
        ("peer.example", "https://"),
        ("https://user@peer.example/", "user name"),
        ("https://peer.example:443@evil.example/", "user name"),
        ("https://@peer.example/", "user name"),
        ("https:///path", "no host"),
        ("https://:443/", "no host"),
        ("https://peer.example:/", "no host"),
        ("https://peer.example:0/", "no host"),
        ("https://peer.example:99999/", "not a URL"),
        ("https://peer.example:x/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https://[fe80::1%25eth0]/", "no host"),
        ("https://%31%32%37.0.0.1/", "no host"),
        ("https://peer.example%00.other/", "no host"),
        ("https://peer.example;x/", "no host"),
        ("https://a[::1]/", "no(t a URL| host)"),
        ("https://peer.example/" + "a" * 4096, "longer than 4096"),
        ("https://" + "a" * 4096, "longer than 4096"),
    ],
)
def test_what_has_no_origin_is_refused_with_its_reason(url: str, problem: str):
    with pytest.raises(ValueError, match=problem):
        origin(url)


@given(st.text(max_size=40), st.sampled_from(["", "https://", "http://", "https://peer.example", "https://[::1]"]))
def test_an_origin_is_its_own_origin_and_anything_else_is_a_value_error(text: str, start: str):
    try:
        found = origin(start + text)
    except ValueError:
        return
    assert origin(found) == found == origin(found + "/path?query")
