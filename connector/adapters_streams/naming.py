"""How a part gets the name of its file where that is free, and nothing that has come under it meanwhile is replaced."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

MODE: Final = 0o600
SUFFIX: Final = ".part"
CLAIMED: Final = ".name"
CLAIM: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
# A file system that knows one name for a file alone, as that of a stick or of a bucket. EPERM is what link(2) says of it.
NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def name_new(directory: int, part: str, name: str) -> None:
    """Let `part` in an open directory be `name`. Raises FileExistsError if there is one, OSError.

    A link fails if the name is taken, in one step with taking it; a rename would replace whatever came meanwhile. Where there are no links
    an empty file takes the name first, and another one beside the part says so, for a crash in between: see `tidied`.
    """
    try:
        os.link(part, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
    else:
        with suppress(FileNotFoundError):  # whoever asked for the same name just now has tidied it up
            os.unlink(part, dir_fd=directory)
        return
    os.close(os.open(_claim(part), CLAIM & ~os.O_EXCL, MODE, dir_fd=directory))
    try:
        os.close(os.open(name, CLAIM, MODE, dir_fd=directory))
    except FileExistsError:  # any other failure may be of a file that is there all the same, and is ours
        disclaim(directory, part)
        raise
    try:
        os.replace(part, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:  # of a file system elsewhere, which may have done it all the same
        tidied(directory, part, name, os.stat(name, dir_fd=directory, follow_symlinks=False))
        raise
    os.unlink(_claim(part), dir_fd=directory)


def tidied(directory: int, part: str, name: str, found: os.stat_result) -> bool:
    """Remove what was left as `part` got the `name` of the file `found`: the part if it is only a second name of that, or the empty file
    that took the name and was not replaced. Returns whether the name is free then. Raises OSError."""
    free = False
    with suppress(FileNotFoundError):
        second = os.stat(part, dir_fd=directory, follow_symlinks=False)
        if (second.st_dev, second.st_ino) == (found.st_dev, found.st_ino):
            os.unlink(part, dir_fd=directory)
        elif not found.st_size:
            os.stat(_claim(part), dir_fd=directory, follow_symlinks=False)
            os.unlink(name, dir_fd=directory)
            free = True
    disclaim(directory, part)
    return free


def disclaim(directory: int, part: str) -> None:
    """Say no more that an empty file of the name is ours: none is, and one that comes is somebody else's. Raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(_claim(part), dir_fd=directory)


def _claim(part: str) -> str:
    """The empty file that says that an empty one of the name is ours. No longer than the name of the part, for which there was room."""
    return f"{part.removesuffix(SUFFIX)}{CLAIMED}"
