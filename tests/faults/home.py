"""The directory of one connector of the pair: settings, keys and token, made by `connector init` as an operator would."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.connectors import LISTENERS
from tests.free_ports import free_block

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, str | float | bool] = {
    "telemetry.log_format": "json",
    "delivery.retry_seconds_max": 0.5,  # a peer that was killed comes back soon
    "edr.token_seconds": 3,
    "edr.quiet_seconds": 3,  # long against a restart, so that a consumer that lives completes its transfers itself
}
# Delayed decisions are a path of their own: one side takes it, the other answers at once.
SETTINGS_OF: dict[str, dict[str, str | float | bool]] = {"consumer": {"approval.delay_seconds": 0.02}, "provider": {}}


@dataclass(frozen=True)
class Home:
    """Where a connector lives, and how to reach its management API."""

    name: str
    directory: Path
    port: int

    @property
    def settings(self) -> Path:
        return self.directory / "connector.toml"

    @property
    def database(self) -> Path:
        return self.directory / "connector.db"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port + LISTENERS.index('management')}"

    @property
    def token(self) -> str:
        return (self.directory / "admin-token").read_text().strip()


def make(root: Path, names: tuple[str, ...]) -> dict[str, Home]:
    """Make connectors that know each other below `root`."""
    homes = {name: Home(name, root / name, free_block(len(LISTENERS))) for name in names}
    begun = []
    for home in homes.values():
        command = [sys.executable, "-m", "connector", "init", "--development", "--save-token", "--directory", str(home.directory)]
        who = ["--name", home.name, "--id", f"did:web:{home.name}.example", "--role", home.name, "--port", str(home.port)]
        begun.append(subprocess.Popen([*command, *who], cwd=ROOT, stdout=subprocess.DEVNULL))
    for home, init in zip(homes.values(), begun, strict=True):
        if status := init.wait():
            raise subprocess.CalledProcessError(status, init.args)
        home.settings.write_text(with_values(home.settings.read_text(), SETTINGS | SETTINGS_OF[home.name]))
    for home in homes.values():
        for other in homes.values():
            if other is not home:
                shutil.copy(other.directory / "participants" / f"{other.name}.jsonld", home.directory / "participants")
    return homes


def with_values(text: str, values: dict[str, str | float | bool]) -> str:
    """The settings file with other values; `section.field` -> value. Raises KeyError for a field that it has not."""
    for name, value in values.items():
        section, field = name.split(".")
        text, count = re.subn(rf"(?ms)(^\[{section}\]$[^\[]*?^{field} = )\S+", rf"\g<1>{json.dumps(value)}", text, count=1)
        if not count:
            raise KeyError(name)
    return text
