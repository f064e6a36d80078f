"""Renders the report: one file with style, script, charts and images inside, which asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from sage_trl.errors import DataError
from sage_trl.reporting.charts import Chart
from sage_trl.reporting.gallery import Gallery
from sage_trl.reporting.tables import Table
from sage_trl.storage import atomic_writer

FOLDER = "page"


@dataclass(frozen=True)
class ChartSection:
    """Charts under one heading."""

    id: str
    heading: str
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Page:
    """Everything that the report shows."""

    title: str
    recognised: Sequence[tuple[str, str]]
    notes: Sequence[str]
    tables: Sequence[Table]
    sections: Sequence[ChartSection]
    gallery: Gallery | None
    images: Sequence[str]


def write_page(path: Path, page: Page) -> None:
    """Write the report whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    # Replies and names are strangers' text: jinja2 escapes all that it fills in, and `tojson` what ends a script.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sage_trl.reporting", FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    style, script = (_part(name) for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    stream = environment.get_template("report.html.jinja").stream(
        page=page, style=style, script=script, script_digest=digest
    )
    try:
        with atomic_writer(path) as file:
            for piece in stream:
                # Halves of characters, which models emit at times, are no UTF-8.
                file.write(piece.encode(errors="replace").decode())
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise DataError.at(path, None, problem, "give --output a file that can be written") from None


def _part(name: str) -> str:
    return (Path(__file__).parent / FOLDER / name).read_text(encoding="utf-8")
