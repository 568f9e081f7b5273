"""The origin of a URL: what of it decides with whom one speaks.

Pure. A callback address is accepted only at an origin that its sender's self-description names, so both sides of that
comparison go through this one function.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import urlsplit

URL_CHARACTERS_MAX = 4096  # a signed object-store URL has about 1,000; what is remembered of others is bounded by it, too
END_OF_AUTHORITY = re.compile(r"[/?#]")  # RFC 3986, 3.2
DEFAULT_PORTS = {"http": 80, "https": 443}
# RFC 3986 has printable ASCII only. `urlsplit` would silently drop tabs and line ends; browsers take `\` for `/`.
ADDRESS = re.compile(r"[!-\[\]-~]+")
# RFC 3986, 3.2.2, without userinfo, and of a name's characters those that a host can have (RFC 1123, 2.1, and the underscore):
# no escapes, which some decode and others do not. A scope (`%eth0`) names an interface of ours.
AUTHORITY = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


@lru_cache(maxsize=64)  # a request is looked at three times on its way out
def origin(url: str) -> str:
    """Return `scheme://host[:port]` of an http or https URL, in lower case and without the scheme's own port (RFC 6454, 6.2).

    Raises ValueError, whose text says what is wrong with the URL.
    """
    if len(url) > URL_CHARACTERS_MAX:
        raise ValueError(f"is longer than {URL_CHARACTERS_MAX} characters")
    if not ADDRESS.fullmatch(url):
        raise ValueError("has characters that a URL cannot have; percent-encode them, and write a host in its ASCII form")
    scheme, _, rest = url.partition("://")
    return _origin(scheme, END_OF_AUTHORITY.split(rest, 1)[0])


@lru_cache(maxsize=1024)  # a connector speaks with few others, at ever new paths
def _origin(scheme: str, authority: str) -> str:
    scheme = scheme.lower()
    if scheme not in DEFAULT_PORTS:
        raise ValueError("does not begin with https:// or http://")
    if "@" in authority:
        raise ValueError("has a user name before its host; take it out")
    try:
        parts = urlsplit(f"{scheme}://{authority}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if not AUTHORITY.fullmatch(authority) or not host or port == 0:
        raise ValueError("has no host that could be dialled")
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}" if port in (None, DEFAULT_PORTS[scheme]) else f"{scheme}://{host}:{port}"
