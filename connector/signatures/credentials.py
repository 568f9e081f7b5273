"""What a credential looks like wherever it stands in a text: one rule for logs, which hide it, and for evidence, which has none. Pure.

Each pattern matches the secret and not what stands before it. A text in evidence that has one is refused, or accuses who gave it, so
`CREDENTIAL` is nothing that a sentence for people may have. Where a word too many is hidden nobody is harmed, so logs hide `PERHAPS` too.
"""

from __future__ import annotations

import re
from typing import Final

# Words begin as in ASCII: a Chinese character is no letter before a token, since nobody writes a space behind one.
_B: Final = r"(?a:\b)"
_LETTER: Final = "[A-Za-z0-9_-]"  # of base64url
_B64: Final = "[A-Za-z0-9+/]"
_SIGN: Final = "[A-Za-z0-9._~+/=-]"
_CALLED: Final = "(?i:(?<=token)|(?<=authorization)|(?<=secret)|(?<=password)|(?<=api_key))"
_HEADER: Final = "|".join(rf"(?<=authorization{by}{scheme}\s)" for by in (":", r":\s", "=") for scheme in ("bearer", "basic", "dpop"))
_IS: Final = r"""(?:=|['"]\s*:\s*['"])"""
# A short name that has a number, such as `COVID-19`, or of a parameter: what a challenge has behind `Bearer` (RFC 6750, 3).
_NAME: Final = r"""(?!(?=[A-Za-z0-9-]{3,19}\.?(?![\w.~+/=-]))(?:[A-Za-z]+|\d{1,5})(?:-(?:[A-Za-z]+|\d{1,5}))+(?![\w-]))(?![a-z_]+=['"])"""
# What stands where a secret would, and says that there is none, or how it is with it.
_ABSENT: Final = (
    "(?!(?i:none|null|true|false|empty|unset|missing|absent|unknown|required|optional|pending|expired|revoked|rotated|changed|valid|invalid"
    "|wrong|granted|denied|refused|withdrawn)"
    r"""[.,;:!?)\]}]*(?:[\s&'"]|\Z))"""
)
# What says by how it begins that it is one, and what follows then: so much, or of such a form, that no hash or signature is taken for it
# that begins so by chance.
_MIXED: Final = "(?=[a-z0-9_-]*[A-Z])"  # else a host `hvs.` and a dataset `sk_test_` would be tokens, whose names are written small
ANNOUNCED: Final = {
    **dict.fromkeys(("AKIA", "ASIA"), "[A-Z2-7]{16}"),  # AWS
    **dict.fromkeys(("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), "[A-Za-z0-9]{36}"),  # GitHub
    "github_pat_": "[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
    "glpat-": rf"{_MIXED}[\w-]{{20,}}",  # GitLab
    **dict.fromkeys(("xoxb-", "xoxp-", "xoxa-", "xapp-"), r"\d+-[\w-]{13,}"),  # Slack
    "AIza": r"[\w-]{35}",  # Google
    **dict.fromkeys(("sk_live_", "sk_test_", "rk_live_", "rk_test_"), rf"{_MIXED}[A-Za-z0-9]{{16,}}"),  # Stripe
    "hvs.": rf"{_MIXED}[\w-]{{24,}}",  # Vault
}
ANNOUNCED_LEAST: Final = 20  # characters of each
_ANNOUNCED: Final = "|".join(re.escape(beginning) + rest for beginning, rest in ANNOUNCED.items())

KEY: Final = "-----BEGIN [A-Z ]*PRIVATE KEY-----"  # in PEM form
WHOLE_KEY: Final = rf"{KEY}(?:(?!-----END)[\s\S])*"  # hidden before all else, which would take its first line for a secret, and leave it
CREDENTIAL: Final = "|".join(
    (
        # A JSON web token. Of several beginnings in one row of letters the first decides, so that each letter is looked at once.
        rf"(?<!{_LETTER})(?>{_LETTER}*?{_B}eyJ){_LETTER}{{8,}}+\.{_LETTER}{{8,}}+\.{_LETTER}*",
        # What follows `Bearer` if no word of a language looks so: by a digit, a capital behind a small letter, a sign or a dot in it, or
        # 20 characters, unless all of it is a name. In quotes, or where it is said to be a header, it need not look like anything.
        rf"(?i:(?<={_B}bearer\s)|(?<={_B}dpop\s))\s*{_NAME}(?={_SIGN}*(?:[0-9_~+=]|[a-z][A-Z]|\.[A-Za-z])|{_SIGN}{{20}}){_SIGN}{{8,}}",
        rf"(?i:(?<=['\"`]bearer\s))\s*{_SIGN}{{8,}}(?=\Z|['\"`])",
        rf"(?i:{_HEADER})\s*[^\s*]{{4,}}",
        # Base64 is by fours, its end filled up: `Basic PostgreSQL` is none.
        rf"(?i:(?<={_B}basic\s))\s*(?={_B64}*[a-z][A-Z0-9])(?:{_B64}{{4}}){{2,}}(?:{_B64}{{2}}==|{_B64}{{3}}=)?(?![\w=+/-]|\.\w)",
        r"(?<=://)[^\s/?#:@]*:[^\s/?#]+(?=@)",  # name and password in an address
        rf"{_CALLED}{_IS}{_ABSENT}[^\s&'\"*]{{4,}}",  # in a query, a form, a document or a `repr`
        rf"(?a:(?<!{_LETTER})(?:{_ANNOUNCED})(?!{_LETTER}))",
    )
)
PERHAPS: Final = "|".join(
    (
        rf"(?i:(?<={_B}bearer\s)|(?<={_B}basic\s)|(?<={_B}dpop\s))\s*[\w.~+/=-]+",
        r"(?:(?<=://)|(?<=:/))[^\s/?#]+(?=@)",
        rf"{_B}eyJ[\w-]{{4,}}(?:\.[\w-]*)*",
        rf"(?:{_CALLED}|(?i:(?<=signature)|(?<={_B}sig))){_IS}[^\s&'\"]+",
    )
)
