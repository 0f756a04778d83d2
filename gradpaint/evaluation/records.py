"""Files that survive an interruption: records as JSON lines, pictures and settings replaced as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]  # of JSON values


class Records:
    """Rows of a JSON-lines file by key; a row added later under the same key replaces the earlier one.

    Every row is one write of one line, so a run that is killed loses at most the row it was writing; such a torn
    line is skipped when the file is read again.
    """

    def __init__(self, path: Path | str, key: Sequence[str]):
        self.path, self.key = Path(path), tuple(key)
        self.rows: dict[tuple, Row] = {}
        text = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                row = json.loads(line)
                self.rows[tuple(row[name] for name in self.key)] = row
            except (json.JSONDecodeError, KeyError, TypeError):
                continue

    def get(self, *key: Any) -> Row | None:
        """The row of that key, or None."""
        return self.rows.get(key)

    def add(self, row: Row) -> None:
        """Keep a row, in memory and on disk."""
        line = json.dumps(row, allow_nan=True) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(descriptor, (("\n" if self._torn else "") + line).encode("utf-8"))
        finally:
            os.close(descriptor)
        self._torn = False
        self.rows[tuple(row[name] for name in self.key)] = row


def replace_file(path: Path | str, write: Callable[[Path], object]) -> Path:
    """Call write(temporary path) in the same folder, then move that file to `path`, which is never half written."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_text(path: Path | str, text: str) -> Path:
    """Replace a text file. Returns its path."""
    return replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flattened: dict[str, Any] = {}
    for name, value in settings.items():
        flattened |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flattened


def check_config(path: Path | str, config: Mapping[str, Any]) -> None:
    """Write `config` (JSON values) to `path`, or compare it with what an earlier run wrote there.

    Raises:
        ValueError: they differ; names what does. Results of two configurations must not mix in one folder.
    """
    path = Path(path)
    config = json.loads(json.dumps(config))
    if not path.is_file():
        write_text(path, json.dumps(config, indent=1) + "\n")
        return
    try:
        before, now = flat(json.loads(path.read_text(encoding="utf-8"))), flat(config)
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); choose another --out folder") from error
    missing = "not set"
    different = [
        f"{name} was {before.get(name, missing)!r} and is now {now.get(name, missing)!r}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name, missing) != now.get(name, missing)
    ]
    if different:
        raise ValueError(
            f"{path.parent} holds results of another configuration: {'; '.join(different)}. "
            "Choose another --out folder, or go back to the earlier settings"
        )
