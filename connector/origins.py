"""The origin of a URL: what of it decides with whom one speaks.

Pure. A callback address is accepted only at an origin that its sender's self-description names, so both sides of that
comparison go through this one function.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
# RFC 3986 has printable ASCII only. `urlsplit` would silently drop tabs and line ends; browsers take `\` for `/`.
ADDRESS = re.compile(r"[!-\[\]-~]+")
# RFC 3986, 3.2.2, without userinfo: a name, or an IP literal in brackets; an empty port after the colon is no port.
AUTHORITY = re.compile(r"(?:[A-Za-z0-9._~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def origin(url: str) -> str:
    """Return `scheme://host[:port]` of an http or https URL, in lower case and without the scheme's own port (RFC 6454, 6.2).

    Raises ValueError, whose text says what is wrong with the URL.
    """
    if not ADDRESS.fullmatch(url):
        raise ValueError("has characters that a URL cannot have; percent-encode them, and write a host in its ASCII form")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("does not begin with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError("has a user name before its host; take it out")
    if not AUTHORITY.fullmatch(parts.netloc) or not parts.hostname or port == 0:
        raise ValueError("has no host that could be dialled")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" if port in (None, DEFAULT_PORTS[parts.scheme]) else f"{parts.scheme}://{host}:{port}"
