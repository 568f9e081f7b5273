"""Installs the packages of a lock by uv, in a sixth of the time of pip, which reads all that an index has of each; by pip where uv cannot.

Usage: python -m tests.install_packages LOCK   Whoever has an index of their own told pip of it, and uv reads nothing of that: it is told
what pip is, and goes nowhere else."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pip._internal.commands import create_command
from pip._internal.models.index import PyPI

UV = Path(sys.executable).with_name("uv")
LOCKED = ("install", "--quiet", "--require-hashes")


def told() -> Any:
    """What pip takes from its files and the environment, in its order: its own parser says it."""
    return create_command("install").parse_args([])[0]


def environment(options: Any) -> dict[str, str]:
    """The same in uv's words. Addresses may have passwords, and arguments can be seen by everybody on the machine."""
    links = [link for link in options.find_links if "://" in link or Path(link).exists()]  # pip only warns of a folder that is not there
    words = {
        "UV_DEFAULT_INDEX": options.index_url if options.index_url != PyPI.simple_url else "",
        "UV_INDEX": " ".join(options.extra_index_urls),
        "UV_INDEX_STRATEGY": "unsafe-best-match",  # any index that has what the hashes say will do, as for pip
        "UV_FIND_LINKS": ",".join(links),
        "UV_INSECURE_HOST": " ".join(options.trusted_hosts),
        "SSL_CERT_FILE": options.cert or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE"),
        "SSL_CLIENT_CERT": options.client_cert,
        "HTTP_PROXY": options.proxy,
        "HTTPS_PROXY": options.proxy,
    }
    return {name: word for name, word in words.items() if word}


def main(lock: str) -> int:
    """Return the exit code."""
    options = told()
    by_uv = [UV, "pip", *LOCKED, "--python", sys.executable, "--system-certs", "--compile-bytecode"]
    if options.no_index:
        by_uv.append("--no-index")
    try:
        if subprocess.run([*by_uv, "-r", lock], env=os.environ | environment(options), check=False).returncode == 0:
            return 0
    except OSError as error:
        print(f"{UV}: {error.strerror}", file=sys.stderr)
    print("uv could not install the packages; pip does it, which takes longer", file=sys.stderr, flush=True)
    return subprocess.run([sys.executable, "-m", "pip", *LOCKED, "--disable-pip-version-check", "-r", lock], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
