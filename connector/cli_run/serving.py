"""`connector run` in a process of its own: from its words to the running connector, by the shortest way.

A connector that was killed is away until it has started again. The tree of commands, with the parser that it is built for and the modules
of all the other commands, takes an eighth of that start; who is told nothing but where the settings are needs none of it.
"""

from __future__ import annotations

import gc
import os
import resource
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from connector.settings import Settings

DESCRIPTORS: Final = 65_536  # of a connector that may have as many
SETTINGS_FILE: Final = "connector.toml"
SETTINGS_VARIABLE: Final = "QIAO_CONFIG"


def told(arguments: Sequence[str], environ: Mapping[str, str]) -> Path | None:
    """The settings that `arguments` tell to run a connector with. None for whatever else they say: the tree of commands knows what to do
    with it, and what to say."""
    match list(arguments):
        case ["run"]:
            named = environ.get(SETTINGS_VARIABLE, SETTINGS_FILE)
        case ["run", "--config", named]:
            pass
        case _:
            return None
    return Path(named) if named and not named.startswith("-") else None


def serve(path: Path) -> None:
    """Run the connector of the settings in `path` until SIGTERM or Ctrl-C. Raises SettingsError with every mistake, StoreError."""
    from connector.settings import load

    settings = load(path, os.environ, look_at_files=True, contents=inside)
    with loading():
        from connector import app

    _open_as_many_files_as_may_be()
    app.run(settings, path=path, environ=dict(os.environ))


def inside(settings: Settings, spoken: Set[str]) -> tuple[str, ...]:
    """What only reading the files that settings name can tell; those of the fields `spoken` are left alone."""
    with loading():
        from connector.app_settings import mistakes

    return mistakes(settings, spoken, time.time())


@contextmanager
def loading() -> Iterator[None]:
    """For the imports of a process that has just begun: most of its start is theirs.

    What is imported stays, and looking for garbage among it again and again takes a tenth of a start, and once more as much. And aiohttp
    makes two TLS contexts as it is imported, into each of which it reads all authorities of the system, which takes another tenth: nobody
    here dials with them (`adapters_streams.dialled.client_tls`), and without authorities they believe nobody.
    """
    import ssl  # not for those who only ask for help

    gc.disable()
    ssl.SSLContext.set_default_verify_paths = _none_read  # type: ignore[assignment]  # which it inherits
    try:
        yield
    finally:
        del ssl.SSLContext.set_default_verify_paths
        gc.freeze()
        gc.enable()


def _none_read(_context: object) -> None:
    pass


def _open_as_many_files_as_may_be() -> None:
    """Systems begin with 1,024 descriptors for the sake of select(2), which nobody here calls, and let a process have more that asks: each
    connection and each log that is open holds some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if most > soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
