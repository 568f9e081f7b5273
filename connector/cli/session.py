"""What commands share: the options that every one takes, and the way from them to the own connector's client."""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from cyclopts import Parameter

from connector.cli_run.serving import SETTINGS_FILE, SETTINGS_VARIABLE
from connector.errors import ConnectorError

if TYPE_CHECKING:
    import ssl

    from connector.client.management import ManagementClient
    from connector.settings import Contents, Settings

T = TypeVar("T")
TOKEN_FILE = "admin-token"  # noqa: S105 - its name; `connector init --save-token` writes it beside the settings
CERTIFICATE_FILE = "admin.pem"  # looked for beside the settings
NOT_AUTHORIZED = 401  # RFC 9110
GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Common:
    """Options of every command."""

    config: Annotated[Path, Parameter(env_var=SETTINGS_VARIABLE, help="settings of the own connector")] = Path(SETTINGS_FILE)
    token_file: Annotated[
        Path | None, Parameter(help="file with the admin token; without it QIAO_TOKEN, then `admin-token` beside the settings")
    ] = None
    client_certificate: Annotated[
        Path | None,
        Parameter(
            env_var="QIAO_CLIENT_CERTIFICATE",
            help="PEM with our certificate and its key, for a management listener that asks; without it `admin.pem` beside the settings",
        ),
    ] = None
    json: Annotated[bool, Parameter(negative=(), help="print JSON")] = False


def ask(common: Common, work: Callable[[ManagementClient], Awaitable[T]]) -> T:
    """Run `work` with a client of the own connector. Raises ConnectorError."""
    import asyncio

    settings = read_settings(common, look_at_files=False)
    token = read_token(common)

    async def with_client() -> T:
        from connector.client.management import ManagementClient, ManagementError

        async with ManagementClient(_address(settings), token, tls=_tls(settings, common)) as client:
            try:
                return await work(client)
            except ManagementError as error:
                if error.status != NOT_AUTHORIZED:
                    raise
                raise ConnectorError(
                    f"`{_address(settings)}` does not take our admin token; give it the last one that `connector init` or"
                    " `connector token` showed, in QIAO_TOKEN or with --token-file; it reads one that was made while it ran at SIGHUP"
                ) from None

    return asyncio.run(with_client())


def read_settings(common: Common, *, look_at_files: bool, contents: Contents | None = None) -> Settings:
    """The settings of the own connector with the environment over them."""
    from connector.settings import load

    return load(common.config, os.environ, look_at_files=look_at_files, contents=contents)


def read_token(common: Common) -> str:
    """The admin token from `--token-file`, the environment or the saved file. Raises ConnectorError."""
    saved = common.config.absolute().parent / TOKEN_FILE
    if common.token_file is None and (token := os.environ.get("QIAO_TOKEN", "").strip()):
        if not token.isascii() or not token.isprintable():  # such as the whole answer of `connector init`
            raise ConnectorError("QIAO_TOKEN holds no admin token; set it to the one that `connector init` showed, which is one word")
        return token
    path = common.token_file or saved
    try:
        if path.stat().st_mode & GROUP_AND_OTHERS:
            raise ConnectorError(f"the admin token in `{path}` can be read by others; run `chmod 600 {path}`")
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        if common.token_file is None and isinstance(error, FileNotFoundError):
            raise ConnectorError(
                "no admin token; set QIAO_TOKEN to the one that `connector init` showed, or give --token-file; `connector token` makes"
                " another one"
            ) from None
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConnectorError(f"the admin token in `{path}` cannot be read: {why}; name the file that it is in, or set QIAO_TOKEN") from None
    if not token or not token.isascii() or not token.isprintable():
        raise ConnectorError(f"`{path}` holds no admin token; write the one that `connector init` showed into it")
    return token


def _address(settings: Settings) -> str:
    if not settings.management.url:
        raise ConnectorError("management.port is 0, so nobody knows the address; set QIAO_MANAGEMENT_URL to the one that is in use")
    return settings.management.url


def _tls(settings: Settings, common: Common) -> ssl.SSLContext | None:
    """What to trust, and what to show. Our own certificate vouches for the management listener beside the system's authorities."""
    import ssl

    if not settings.management.url.startswith("https:"):
        return None
    context = ssl.create_default_context()
    if settings.management.certificate is not None:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # itself, whoever has issued it
        try:
            context.load_verify_locations(settings.management.certificate)
        except OSError as error:
            raise ConnectorError(
                f"`management.certificate` is `{settings.management.certificate}`, which is not a PEM certificate: {error}"
            ) from None
    if (shown := _client_certificate(common)) is not None:
        try:
            context.load_cert_chain(shown, password=_nobody_types)
        except (OSError, ValueError) as error:
            raise ConnectorError(
                f"`{shown}` cannot be shown as our certificate: {error}; put both, certificate and key, into it as PEM"
            ) from None
    return context


def _client_certificate(common: Common) -> Path | None:
    """The file to show at the management listener. Raises ConnectorError if others can read the key in it."""
    saved = common.config.absolute().parent / CERTIFICATE_FILE
    path = common.client_certificate or (saved if saved.exists() else None)
    if path is not None and path.exists() and path.stat().st_mode & GROUP_AND_OTHERS:
        raise ConnectorError(f"the key in `{path}` can be read by others; run `chmod 600 {path}`")
    return path


def _nobody_types() -> str:
    raise ValueError("the key is encrypted, and nobody is asked for a password")
