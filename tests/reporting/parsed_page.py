"""A report as a browser's parser sees it."""

from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

VOID = frozenset({"meta", "link", "img", "br", "input"})


class ParsedPage(HTMLParser):
    """Elements, texts and scripts of a page.

    Attributes:
        elements: (tag, attributes) in order.
        tables: the rows of each table, as the texts of their cells.
        scripts: type and content of each script.
        texts: the text outside of scripts and styles.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)

    @classmethod
    def read(cls, path: Path) -> ParsedPage:
        return cls(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "script":
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if "script" in self._open:
            attributes, before = self.scripts[-1]
            self.scripts[-1] = attributes, before + data
        elif "style" not in self._open:
            self.texts.append(data)
            if self.tables and self.tables[-1] and {"td", "th"} & set(self._open):
                self.tables[-1][-1][-1] += data

    def data(self, identifier: str) -> Any:
        """A JSON script."""
        return json.loads(next(text for attributes, text in self.scripts if attributes.get("id") == identifier))

    def groups(self) -> list[Any]:
        """The gallery's groups."""
        return [
            json.loads(text) for attributes, text in self.scripts if (attributes.get("id") or "").startswith("group-")
        ]

    def images(self) -> list[str]:
        """The embedded images."""
        return [text for attributes, text in self.scripts if (attributes.get("id") or "").startswith("image-")]

    def ids(self) -> Counter[str]:
        """How often each id occurs."""
        return Counter(found for _, attributes in self.elements if (found := attributes.get("id")))

    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join(" ".join(self.texts).split())
