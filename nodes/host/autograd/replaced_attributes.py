"""Attributes put on single objects (a layer's forward, a library's kernel) and restored afterwards."""

from __future__ import annotations

from typing import Any

_ABSENT = object()


class ReplacedAttributes:
    """Remembers what it replaces. As a context manager it restores everything on exit, also after an error.

    Only the given objects change: their classes and other instances stay as they are.
    """

    def __init__(self) -> None:
        self._originals: list[tuple[Any, str, Any]] = []

    def replace(self, owner: Any, name: str, value: Any) -> None:
        self._originals.append((owner, name, vars(owner).get(name, _ABSENT)))
        setattr(owner, name, value)

    def restore(self) -> None:
        """Put the originals back, last one first. New replacements may follow."""
        while self._originals:
            owner, name, original = self._originals.pop()
            if original is _ABSENT:
                vars(owner).pop(name, None)
            else:
                setattr(owner, name, original)

    def owners(self) -> list[Any]:
        """The objects with a replaced attribute."""
        return [owner for owner, *_ in self._originals]

    def __enter__(self) -> ReplacedAttributes:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()
