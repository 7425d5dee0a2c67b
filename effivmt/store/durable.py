"""Changes of the disk that a power cut leaves done or not done, never half done; and deletion of whatever is there."""

import errno
import os
import shutil
from pathlib import Path


def replace_durably(temporary: Path, path: Path) -> None:
    """Moves a file to `path` once its content is on the disk: not even a power cut leaves a part of it there."""
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk, where the file system can say so.

    Some network file systems cannot, of folders or at all. What a power cut leaves half written there has another
    digest than its record says, so that it is made again.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Deletes a file, a link or a folder with all that it holds; what is not there is deleted already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
