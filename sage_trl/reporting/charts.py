"""Charts as inline SVG whose colours are the page's own, so that they follow light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, SOFT, LINE = "#1d2224", "#5d6668", "#dcdcd5"
COLOURS = ("#1b6ca8", "#c2571a", "#22715a", "#8a4fae", "#9a7400", "#b03060", "#3f7f93", "#6b6b6b")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LONGEST_NAME = 30
# Drawn with the light colours; the page's style sheet gives each variable its colour in both schemes.
_VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line"} | {colour: f"c{n}" for n, colour in enumerate(COLOURS)}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a model's name is no formula
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
}


class Look(NamedTuple):
    """How a model is drawn, the same in every chart."""

    colour: str
    marker: str


@dataclass(frozen=True)
class Chart:
    """A chart with what is written above and below it."""

    title: str
    svg: str
    caption: str = ""


Looks = Mapping[str, Look]


class Canvas:
    """A context manager: draw on `axes`, then ask for the `svg`.

    Attributes:
        axes: where to draw.
        svg: the finished picture, once the context was left.
    """

    def __init__(self, name: str, height: float = 3.2) -> None:
        self._name = name
        self._height = height
        self.svg = ""

    def __enter__(self) -> Canvas:
        self._context = rc_context({**_SETTINGS, "svg.hashsalt": self._name})
        self._context.__enter__()
        self._figure = Figure(figsize=(4.8, self._height), layout="constrained")
        self.axes: Axes = self._figure.subplots()
        self.axes.set_axisbelow(True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self.svg = self._draw()
        finally:
            self._context.__exit__(None, None, None)

    def legend(self) -> None:
        """Put the legend below the chart, where it covers nothing."""
        handles, labels = self.axes.get_legend_handles_labels()
        columns = 2 if max(map(len, labels), default=0) <= LONGEST_NAME // 2 else 1
        self._figure.legend(handles, labels, loc="outside lower center", ncols=columns)

    def _draw(self) -> str:
        stream = io.StringIO()
        self._figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return _for_the_page(stream.getvalue())


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, repeated only where there are more names than colours."""
    return {
        name: Look(COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)])
        for number, name in enumerate(dict.fromkeys(names))
    }


def short(name: str) -> str:
    """A name that fits into a legend."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _for_the_page(svg: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # the same in every chart; ids of a page must differ
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    return re.sub(
        "#[0-9a-f]{6}", lambda found: f"var(--{_VARIABLES[found[0]]})" if found[0] in _VARIABLES else found[0], svg
    )
