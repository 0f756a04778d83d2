"""The files of the host's model folders, for the loaders' lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import folder_paths


def file_names(folders: Iterable[str], suffixes: tuple[str, ...]) -> list[str]:
    """The names in these folders that end with one of the suffixes, each once, in the folders' order."""
    found = (name for folder in folders for name in folder_paths.get_filename_list(folder))
    return list(dict.fromkeys(name for name in found if name.lower().endswith(suffixes)))


def find_file(name: str, folders: Iterable[str]) -> Path | None:
    """The first file of that name in these folders, or None."""
    for folder in folders:
        path = folder_paths.get_full_path(folder, name)
        if path is not None:
            return Path(path)
    return None


def fingerprint(name: str, path_of: Callable[[str], Path]) -> str | tuple[str, int, int]:
    """What changes when the file behind the name does: path, time in ns and size; the name where there is no file."""
    try:
        path = path_of(name)
        stat = path.stat()
    except OSError:
        return name  # the node's execute says what is wrong
    return str(path), stat.st_mtime_ns, stat.st_size
