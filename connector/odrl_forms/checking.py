"""What one pass over a data file of ours (a profile pack, a set of templates) gathers: every mistake with its place and remedy.

Such a file is data that people write: words, numbers and labels. A key that is not known is a mistake, never skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from connector.odrl.codes import Code, Finding
from connector.odrl.registry import Label
from connector.odrl.vocabulary import ABSOLUTE, PREFIXES
from connector.odrl.words import shown
from connector.odrl_reading.reading import FINDINGS_MAX, nearest, refusal


class Checking:
    """What one pass over a file gathers. `what` names it in the error; `prefixes` are those of the DSP context and the file's own."""

    __slots__ = ("findings", "prefixes", "what")

    def __init__(self, what: str) -> None:
        self.what = what
        self.findings: list[Finding] = []
        self.prefixes: dict[str, str] = dict(PREFIXES)

    def note(self, path: str, message: str, fix: str, code: Code = Code.MALFORMED) -> None:
        """Add a mistake. Raises PolicyError where there are more than anybody mends in one go."""
        self.findings.append(Finding(code, path, message, fix))
        if len(self.findings) > FINDINGS_MAX:
            self.done()

    def done(self) -> None:
        """Raise PolicyError with all mistakes, if there is one."""
        if self.findings:
            raise refusal(self.what, tuple(self.findings))

    def mapping(self, raw: object, path: str, keys: Iterable[str] | None = None) -> Mapping[str, Any]:
        """An object with string keys, of which only `keys` are known; {} where nothing is given, or with a mistake."""
        if raw is None:
            return {}
        if not isinstance(raw, Mapping) or not all(isinstance(key, str) for key in raw):
            self.note(path, "it is no mapping of names", "write `name: value` lines")
            return {}
        if keys is not None:
            known = tuple(keys)
            for key in raw.keys() - set(known):
                near = nearest(key, known)
                fix = f"write `{near}`" if near else f"use one of {', '.join(f'`{name}`' for name in known)}"
                self.note(at(path, key), f"`{shown(key)}` is not known here", fix, Code.TERM_UNSUPPORTED)
        return raw

    def entries(self, raw: object, path: str) -> list[tuple[str, Any]]:
        """The entries of a list, each with its pointer; one value is a list of one, nothing an empty list."""
        if isinstance(raw, list):
            return [(f"{path}/{index}", entry) for index, entry in enumerate(raw)]
        return [] if raw is None else [(path, raw)]

    def text(self, raw: object, path: str, *, required: bool = False) -> str:
        """A string; "" where none is given."""
        if isinstance(raw, str) and raw:
            return raw
        if raw is not None or required:
            self.note(path, "it is missing" if raw is None else "it is no text, or an empty one", "write a text, in quotes where in doubt")
        return ""

    def flag(self, raw: object, path: str) -> bool:
        """`true` or `false`; false where nothing is given."""
        if raw is not None and not isinstance(raw, bool):
            self.note(path, f"`{shown(str(raw))}` is neither true nor false", "write `true` or `false`")
        return raw is True

    def one_of(self, raw: object, choices: Iterable[str], path: str, default: str | None = None) -> Any:
        """One word of `choices`; the default, or the first of them with a mistake, where it is none."""
        known = tuple(choices)
        if raw is None and default is not None:
            return default
        if raw in known:
            return raw
        found = "it is missing" if raw is None else f"`{shown(str(raw))}` is not among the choices"
        self.note(path, found, f"write one of {', '.join(f'`{name}`' for name in known)}")
        return known[0]

    def label(self, raw: Mapping[str, Any], path: str, *, required: bool = True) -> Label:
        """The names `en` and `zh` of a row."""
        if not required and "en" not in raw and "zh" not in raw:
            return Label("", "")
        return Label(*(self.text(raw.get(name), f"{path}/{name}", required=True) for name in ("en", "zh")))

    def word(self, raw: object, path: str, *, bare: bool = False) -> str:
        """A word with a prefix, or an IRI, as the full IRI. With `bare`, a word without any colon, or a path (`$.a.gx:b`), is itself."""
        text = self.text(raw, path, required=True)
        if not text or (bare and (":" not in text or text.startswith("$."))):
            return text
        prefix, _, rest = text.partition(":")
        if prefix in self.prefixes:
            return self.prefixes[prefix] + rest
        if not text.startswith(ABSOLUTE):
            known = ", ".join(f"`{name}:`" for name in sorted(self.prefixes))
            self.note(path, f"`{shown(text)}` is no IRI, and its prefix is not known", f"write it in full, or with one of {known}")
        return text

    def words(self, raw: object, path: str) -> tuple[str, ...]:
        """One word or a list of words, as full IRIs."""
        return tuple(self.word(entry, where) for where, entry in self.entries(raw, path))

    def learn(self, raw: object, path: str) -> dict[str, str]:
        """The prefixes of the file, which are known from here on."""
        found: dict[str, str] = {}
        for name, space in self.mapping(raw, path).items():
            if name in PREFIXES and space != PREFIXES[name]:
                self.note(at(path, name), f"`{name}:` is `{PREFIXES[name]}` by the DSP context", "choose another prefix")
            elif not isinstance(space, str) or not space.startswith(ABSOLUTE):
                self.note(at(path, name), "it is no namespace", "write an absolute IRI that ends in `/` or `#`")
            else:
                found[name] = space
        self.prefixes.update(found)
        return found


_KEY_CHARS_MAX: Final = 120


def at(path: str, key: str) -> str:
    """The RFC 6901 pointer of a key; one that nobody could read is pointed at through its parent."""
    return f"{path}/{key.replace('~', '~0').replace('/', '~1')}" if key.isprintable() and len(key) <= _KEY_CHARS_MAX else path
