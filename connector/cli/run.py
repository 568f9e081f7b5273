"""`connector run`, `check` and `demo`: what happens in this process instead of being asked of a running connector."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from connector.cli import show
from connector.cli.session import Common, read_settings
from connector.cli_run.serving import inside, serve
from connector.errors import SettingsError

if TYPE_CHECKING:
    from connector.settings import Settings

SHOWN_CHARACTERS = 80  # of a name that nobody has


def run(*, common: Common | None = None) -> None:
    """Run the connector until SIGTERM or Ctrl-C; SIGHUP reads registry, keys and settings again."""
    serve((common or Common()).config)


def check(*, common: Common | None = None) -> None:
    """Check the settings, keys, certificates and the registry, and report every mistake."""
    common = common or Common()
    settings = read_settings(common, look_at_files=True, contents=inside)
    if mistakes := inside(settings, frozenset()) or (*_outdated(settings), *_unknown(settings)):
        raise SettingsError(f"the settings at `{common.config}` cannot work", mistakes)
    from connector.app_settings import misnamed

    warnings = misnamed(settings)
    if common.json:
        show.document({"settings": str(common.config), "participant": settings.participant.id, "mistakes": [], "warnings": warnings})
        return
    for said in warnings:
        show.note(f"warning: {said}")
    show.line(f"the settings at {common.config} are in order: {settings.participant.name} ({settings.participant.id})")


def demo(*, keep: Annotated[bool, Parameter(negative=())] = False) -> int:
    """See a hospital and a biopharma exchange real data on this machine.

    Parameters
    ----------
    keep
        keep both connectors' folders, and say how to look around in them
    """
    return int(importlib.import_module("connector.cli.demo").main(keep=keep))


def _outdated(settings: Settings) -> tuple[str, ...]:
    """What the file that peers are given of us says otherwise than we do while we run."""
    from connector.adapters.keys import Keys
    from connector.adapters.registry import Registry
    from connector.cli.init import DSP_PATH

    own, registry = settings.participant.id, Registry(settings.registry.directory)
    held = Keys(settings.keys.directory, own)
    if (told := registry.find(own)) is None:
        return ()
    pairs = {
        "endpoints.protocol": (told.protocol, settings.protocol.url + DSP_PATH),
        "keys": tuple(", ".join(sorted(key.kid.partition("#")[2] for key in keys)) for keys in (registry.keys(own), held.public())),
    }
    remedy = "put what `/.well-known/participant.jsonld` of our running connector says there, and give it to our peers again"
    where = f"our self-description in `{settings.registry.directory}`"
    return tuple(f"{where} has `{old}` for `{name}`, and it is `{new}`; {remedy}" for name, (old, new) in pairs.items() if old != new)


def _unknown(settings: Settings) -> tuple[str, ...]:
    """Whom the settings name and nobody knows. A start leaves them out and says so: a participant may leave the registry at any time."""
    from connector.adapters.registry import Registry

    registry = Registry(settings.registry.directory)
    remedy = f"put its self-description into `{settings.registry.directory}`, or take the name out"
    strange = (name for name in settings.catalog.nested if registry.find(name) is None)
    return tuple(
        f"`catalog.nested` names `{name[:SHOWN_CHARACTERS]}`, which is no participant of the registry; {remedy}" for name in strange
    )
