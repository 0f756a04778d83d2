"""Builds a workflow in the frontend's JSON (litegraph schema 0.4) from calls like g.add("VAEDecode", samples=x, vae=y).

Nodes, their inputs and their defaults come from a server's /object_info; what does not fit it is a ValueError. Nodes
lie in the cells of a grid: `at(column, band)` says where the next ones go, below each other.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")
TITLE, GAP, BAND_GAP, COLUMN_GAP = 30, 40, 90, 70  # pixels; TITLE is the bar above a node's position
NAMESPACE = uuid.UUID("6f0c1a52-8c1e-4b57-9d0e-2b8f5a7c9d31")
OURS, CORE = {"cnr_id": "gradpaint", "ver": "0.1.0"}, {"cnr_id": "comfy-core", "ver": "0.18.1"}
GROUP_COLOUR, NOTE_COLOURS = "#3f789e", {"color": "#432", "bgcolor": "#000"}


def stable_id(name: str) -> str:
    """The same UUID for the same name."""
    return str(uuid.uuid5(NAMESPACE, name))


@dataclass(frozen=True)
class Out:
    """An output of a node, to connect."""

    node: Node
    slot: int


@dataclass(eq=False)
class Node:
    """A node of a Graph; node["IMAGE"] or node[0] is an output."""

    id: int
    type: str
    cell: tuple[int, int]
    size: tuple[int, int]
    outputs: list[tuple[str, str]]  # name, type
    sockets: list[dict]
    widgets: list[dict]
    values: list
    extra: dict = field(default_factory=dict)
    group: str | None = None
    spans: bool = False
    position: tuple[int, int] = (0, 0)

    def __getitem__(self, which: int | str) -> Out:
        names = [name for name, _ in self.outputs]
        if isinstance(which, int):
            return Out(self, which)
        if names.count(which) != 1:
            raise ValueError(f"{self.type} has the outputs {names}, not one {which!r}")
        return Out(self, names.index(which))


def is_widget(spec) -> bool:
    """Whether an input of /object_info is a widget (a list of choices is the older form of COMBO)."""
    options = spec[1] if len(spec) > 1 else {}
    return (isinstance(spec[0], list) or spec[0] in WIDGET_TYPES) and not options.get("forceInput")


def _choices(spec) -> list | None:
    options = spec[1] if len(spec) > 1 else {}
    choices = spec[0] if isinstance(spec[0], list) else options.get("options")
    return [c["key"] if isinstance(c, dict) else c for c in choices] if choices else None  # dict: a dynamic combo


def _default(spec, name: str, type_: str) -> Any:
    options = spec[1] if len(spec) > 1 else {}
    if "default" in options:
        return options["default"]
    choices = _choices(spec)
    if not choices:
        raise ValueError(f"{type_}: say what {name} is, it has no default")
    return choices[0]


def _check(value, spec, where: str) -> None:
    """ValueError if a number is out of range or a choice unknown. Lists of files differ by machine: not checked."""
    options = spec[1] if len(spec) > 1 else {}
    choices = _choices(spec)
    if choices and not any(isinstance(c, str) and "." in c for c in [*choices, value]) and value not in choices:
        raise ValueError(f"{where} is {value!r}; allowed: {choices}")
    if spec[0] in ("INT", "FLOAT"):
        low, high = options.get("min", value), options.get("max", value)
        if isinstance(value, (bool, str)) or not low <= value <= high:
            raise ValueError(f"{where} is {value!r}; allowed: {low} to {high}")


class Graph:
    """A workflow under construction. info: /object_info of a server with this pack."""

    def __init__(self, name: str, info: Mapping, band_gap: int = BAND_GAP, column_gap: int = COLUMN_GAP):
        self.name, self.info, self.band_gap, self.column_gap = name, info, band_gap, column_gap
        self.nodes: list[Node] = []
        self.links: list[tuple[Out, Node, str, str]] = []
        self._cell, self._group, self._spans = (0, 0), None, False

    def at(self, column: int, band: int = 0, group: str | None = None, spans: bool = False) -> None:
        """Where the next nodes go. spans: the cell reaches over the bands below, its height counts for none."""
        self._cell, self._group, self._spans = (column, band), group, spans

    def note(self, text: str, size: tuple[int, int], title: str = "Read me") -> Node:
        return self._append(
            "MarkdownNote", size, [], [], [], [text.strip() + "\n"], {"title": title, **NOTE_COLOURS}, {}
        )

    def add(
        self,
        type_: str,
        *,
        title: str | None = None,
        box: tuple[int, int] | None = None,
        wide: int = 300,
        room: int = 0,
        models: list[dict] | None = None,
        control: str = "fixed",
        omit: tuple[str, ...] = (),
        **given,
    ) -> Node:
        """A node; `given` are its inputs: values, outputs of other nodes, or None for an open socket.

        box: its size in pixels; wide: its width, the height as the frontend needs and `room` more, for a preview;
        models: files to offer for download; omit: optional inputs that older hosts lack, left to their defaults.
        """
        if type_ not in self.info:
            raise ValueError(f"{self.name}: the server has no node {type_}")
        info = self.info[type_]
        required = info["input"].get("required", {})
        specs = {**required, **info["input"].get("optional", {})}
        unknown = set(given) - set(specs)
        if unknown:
            raise ValueError(f"{type_} has no input {', '.join(sorted(unknown))}; it has {', '.join(specs)}")
        sockets, widgets, values, rows = [], [], [], 0
        for name, spec in ((name, spec) for name, spec in specs.items() if name not in omit):
            if not is_widget(spec):  # an optional socket given as None stays open
                if name in required and name not in given:
                    raise ValueError(f"{type_}: nothing for {name}")
                kind = "COMBO" if isinstance(spec[0], list) else spec[0]
                sockets.append({"name": name, "type": kind, **({} if name in required else {"shape": 7})})
                continue
            options = spec[1] if len(spec) > 1 else {}
            value = given.get(name)
            if isinstance(value, Out) or value is None:
                value = _default(spec, name, type_)
            _check(value, spec, f"{type_}.{name}")
            kind = "COMBO" if isinstance(spec[0], list) else spec[0]
            widgets.append(
                {"name": name, "type": kind, **({} if name in required else {"shape": 7}), "widget": {"name": name}}
            )
            values.append(value)
            rows += 4 if options.get("multiline") else 1
            if options.get("control_after_generate"):
                values.append(control)
                rows += 1
        height = 20 * max(len(sockets), len(info["output"])) + 6 + (24 * rows + 8 if rows else 0)  # as the frontend
        extra = {"title": title} if title else {}
        properties = {"Node name for S&R": type_, **(OURS if type_.startswith("GradPaint") else CORE)}
        if models:
            properties["models"] = models
        outputs = list(zip(info["output_name"], info["output"]))
        node = self._append(type_, box or (wide, height + room), outputs, sockets, widgets, values, extra, properties)
        for name, value in given.items():
            if isinstance(value, Out):
                self.links.append((value, node, name, value.node.outputs[value.slot][1]))
        return node

    def _append(self, type_, size, outputs, sockets, widgets, values, extra, properties) -> Node:
        node = Node(
            len(self.nodes) + 1,
            type_,
            self._cell,
            size,
            outputs,
            sockets,
            widgets,
            values,
            {**extra, "properties": properties},
            self._group,
            self._spans,
        )
        self.nodes.append(node)
        return node

    # ---- layout

    def _place(self) -> None:
        cells: dict[tuple[int, int], list[Node]] = {}
        for node in self.nodes:
            cells.setdefault(node.cell, []).append(node)
        heights = {cell: sum(n.size[1] + TITLE + GAP for n in nodes) - GAP for cell, nodes in cells.items()}
        bands, columns = sorted({band for _, band in cells}), sorted({column for column, _ in cells})
        top, left = {}, {}
        y = 0
        for band in bands:
            top[band] = y
            y += self.band_gap + max(
                (heights[cell] for cell, nodes in cells.items() if cell[1] == band and not nodes[0].spans), default=0
            )
        x = 0
        for column in columns:
            left[column] = x
            x += self.column_gap + max(n.size[0] for cell, nodes in cells.items() for n in nodes if cell[0] == column)
        for (column, band), nodes in cells.items():
            y = top[band] + TITLE
            for node in nodes:
                node.position = (left[column], y)
                y += node.size[1] + TITLE + GAP

    def _groups(self) -> list[dict]:
        groups = []
        for title in dict.fromkeys(n.group for n in self.nodes if n.group):
            members = [n for n in self.nodes if n.group == title]
            x0, y0 = (min(n.position[i] for n in members) for i in (0, 1))
            x1, y1 = (max(n.position[i] + n.size[i] for n in members) for i in (0, 1))
            number = len(groups) + 1
            groups.append(
                {
                    "id": number,
                    "title": f"{number}. {title}",
                    "color": GROUP_COLOUR,
                    "font_size": 24,
                    "flags": {},
                    "bounding": [x0 - 20, y0 - TITLE - 44, x1 - x0 + 40, y1 - y0 + TITLE + 64],
                }
            )
        return groups

    # ---- the frontend's JSON

    def _node_json(self, node: Node) -> dict:
        incoming = {name: i + 1 for i, (_, target, name, _) in enumerate(self.links) if target is node}
        outputs = []
        for slot, (name, kind) in enumerate(node.outputs):
            links = [i + 1 for i, (out, *_) in enumerate(self.links) if out.node is node and out.slot == slot]
            outputs.append({"localized_name": name, "name": name, "type": kind, "links": links or None})
        inputs = [
            {"localized_name": entry["name"], **entry, "link": incoming.get(entry["name"])}
            for entry in node.sockets + node.widgets
        ]
        return {
            "id": node.id,
            "type": node.type,
            "pos": list(node.position),
            "size": list(node.size),
            "flags": {},
            "order": node.id - 1,
            "mode": 0,
            "inputs": inputs,
            "outputs": outputs,
            **node.extra,
            "widgets_values": node.values,
        }

    def parts(self) -> dict:
        """{"nodes", "links", "groups"}, links as [id, source, its slot, target, its slot, type]."""
        self._place()
        slot = {(n.id, e["name"]): i for n in self.nodes for i, e in enumerate(n.sockets + n.widgets)}
        links = [
            [i + 1, out.node.id, out.slot, target.id, slot[target.id, name], kind]
            for i, (out, target, name, kind) in enumerate(self.links)
        ]
        return {"nodes": [self._node_json(n) for n in self.nodes], "links": links, "groups": self._groups()}

    def build(self) -> dict:
        """The workflow's file."""
        parts = self.parts()
        return {
            "id": stable_id(self.name),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            **parts,
            "config": {},
            "extra": {"ds": {"scale": 0.6, "offset": [60, 120]}},
            "version": 0.4,
        }
