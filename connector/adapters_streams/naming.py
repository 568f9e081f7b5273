"""How a part gets the name of its file where that is free, and nothing that has come under it meanwhile is replaced."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

MODE: Final = 0o600
CLAIM: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
# A file system that knows one name for a file alone, as that of a stick or of a bucket. EPERM is what link(2) says of it.
NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def name_new(directory: int, part: str, name: str) -> None:
    """Let `part` in an open directory be `name`. Raises FileExistsError if there is one, OSError.

    A link fails if the name is taken, in one step with taking it; a rename would replace whatever came meanwhile. Where there are no links
    an empty file takes the name first: a crash in between leaves that, and the part beside it.
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
    os.close(os.open(name, CLAIM, MODE, dir_fd=directory))
    try:
        os.replace(part, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.unlink(name, dir_fd=directory)
        raise
