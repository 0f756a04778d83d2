"""Prints which room of the code imports which: rooms, their modules, the arrows between them, and circles.

    python scripts/import_graph.py                    # the working tree
    python scripts/import_graph.py --commit e38f2ec   # any commit, to compare
    python scripts/import_graph.py --arrows           # each arrow with the modules behind it

A room is a folder of gradpaint/ or nodes/ with Python files in it. Every import counts, those inside functions too.
Left out are imports under `if TYPE_CHECKING`, and `__main__.py`, which only starts the command. A room that imports
no other is on floor 0, any other room one floor above the highest room that it imports; rooms in a circle share a
floor. Needs only Python and git.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
TOP = ("gradpaint", "nodes")

Graph = dict[str, set[str]]  # node -> nodes that it imports


@dataclass(frozen=True)
class Imports:
    """modules: file -> files of ours that it imports, as paths from the root; outside: file -> packages not ours."""

    modules: Graph
    outside: Graph

    def rooms(self) -> Graph:
        """Room -> other rooms that it imports."""
        graph: Graph = {room_of(file): set() for file in self.modules}
        for file, targets in self.modules.items():
            graph[room_of(file)] |= {room_of(target) for target in targets} - {room_of(file)}
        return graph

    def arrows(self) -> dict[tuple[str, str], list[str]]:
        """(room, room that it imports) -> "module -> module" for each import behind that arrow."""
        arrows: dict[tuple[str, str], list[str]] = {}
        for file, targets in sorted(self.modules.items()):
            for target in sorted(targets):
                pair = room_of(file), room_of(target)
                if pair[0] != pair[1]:
                    arrows.setdefault(pair, []).append(f"{PurePosixPath(file).stem} -> {PurePosixPath(target).stem}")
        return arrows


def room_of(file: str) -> str:
    """The folder that the file is in, "." for the root."""
    return PurePosixPath(file).parent.as_posix()


def sources(commit: str | None = None, root: Path = ROOT) -> dict[str, str]:
    """Path from the root -> text, of every Python file of the pack, in the working tree or at a commit."""
    if commit is None:
        files = [root / "__init__.py", *(file for top in TOP for file in sorted((root / top).rglob("*.py")))]
        names = [file.relative_to(root).as_posix() for file in files]
        return {name: (root / name).read_text(encoding="utf-8") for name in names if _is_read(name)}
    archive = subprocess.run(["git", "archive", commit], cwd=root, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files_of_ours = {name: tar.extractfile(name) for name in tar.getnames() if _is_read(name)}
        return {name: file.read().decode() for name, file in files_of_ours.items() if file is not None}


def _is_read(name: str) -> bool:
    path = PurePosixPath(name)
    inside = path.parts[0] in TOP and path.suffix == ".py" and path.name != "__main__.py"
    return inside or name == "__init__.py"


def imports(files: Mapping[str, str]) -> Imports:
    """Who imports whom among these files."""
    modules: Graph = {file: set() for file in files}
    outside: Graph = {file: set() for file in files}
    for file, text in files.items():
        for parts, names in _statements(ast.parse(text, file), file):
            targets = _files_of(parts, names, files)
            modules[file] |= targets - {file}
            if not targets and parts:
                outside[file].add(parts[0])
    return Imports(modules, outside)


def _statements(tree: ast.Module, file: str) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(dotted path from the root as a tuple, names imported from it) of each import statement."""
    folder = PurePosixPath(file).parent.parts
    for node in _outside_type_checking(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield tuple(alias.name.split(".")), ()
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else ()
            path = tuple(node.module.split(".")) if node.module else ()
            yield (*base, *path), tuple(alias.name for alias in node.names)


def _outside_type_checking(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _outside_type_checking(child)


def _files_of(parts: tuple[str, ...], names: tuple[str, ...], files: Mapping[str, str]) -> set[str]:
    """The files behind `from parts import names`: a submodule where a name is one, else the module itself."""
    submodules = {name: _file((*parts, name), files) for name in names}
    targets = {file for file in submodules.values() if file}
    if not names or len(targets) < len(names):
        targets |= {file for file in [_file(parts, files)] if file}
    return targets


def _file(parts: tuple[str, ...], files: Mapping[str, str]) -> str | None:
    path = "/".join(parts)
    candidates = (f"{path}.py", f"{path}/__init__.py") if path else ("__init__.py",)
    return next((file for file in candidates if file in files), None)


def circles(graph: Graph) -> list[list[str]]:
    """Groups of nodes that reach each other, each sorted."""
    reach = {node: _reachable(graph, node) for node in graph}
    groups = {
        frozenset(other for other in reach[node] if node in reach[other]) for node in graph if node in reach[node]
    }
    return sorted(sorted(group) for group in groups)


def _reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo += graph[node]
    return seen


def floors(graph: Graph) -> dict[str, int]:
    """Node -> its floor."""
    together = {node: {node} for node in graph}
    for circle in circles(graph):
        together |= {node: set(circle) for node in circle}
    levels: dict[str, int] = {}

    def level(node: str) -> int:
        if node not in levels:
            below = set().union(*(graph[member] for member in together[node])) - together[node]
            levels[node] = 1 + max((level(target) for target in below), default=-1)
        return levels[node]

    return {node: level(node) for node in graph}


def report(graph: Imports, with_modules: bool = False) -> str:
    """The numbers and the lists, as text."""
    rooms, arrows = graph.rooms(), graph.arrows()
    levels = floors(rooms)
    sizes = {room: sum(room_of(file) == room for file in graph.modules) for room in rooms}
    lines = [
        f"{len(rooms)} rooms, {len(graph.modules)} modules, {1 + max(levels.values())} floors, "
        f"{len(arrows)} arrows between rooms ({sum(map(len, arrows.values()))} imports)",
        "",
        "floor  modules  room -> rooms that it imports",
    ]
    for room in sorted(rooms, key=lambda room: (-levels[room], room)):
        lines.append(f"{levels[room]:5d}  {sizes[room]:7d}  {room} -> {', '.join(sorted(rooms[room])) or 'none'}")
    for kind, groups in (("rooms", circles(rooms)), ("modules", circles(graph.modules))):
        lines += ["", f"circles of {kind}: {len(groups) or 'none'}"]
        lines += [f"  {', '.join(group)}" for group in groups]
    if with_modules:
        for (room, target), pairs in sorted(arrows.items()):
            lines += ["", f"{room} -> {target}", *(f"  {pair}" for pair in pairs)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commit", help="a commit to read instead of the working tree")
    parser.add_argument("--arrows", action="store_true", help="list the imports behind each arrow")
    args = parser.parse_args()
    print(report(imports(sources(args.commit)), args.arrows))


if __name__ == "__main__":
    main()
