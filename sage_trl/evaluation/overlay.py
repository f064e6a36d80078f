"""Draws one case as figure 6 of the paper does: the test image with the patches that facts are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL.Image import Image

from sage_trl.errors import DataError
from sage_trl.evaluation.evidence_rows import Evidence

PANEL_INCHES = 4.5


def check_overlay_path(path: Path) -> None:
    """Refuse a picture that could not be written, before the work that it would show.

    Raises:
        DataError: the ending is of no picture, or there is a directory.
    """
    endings = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in endings:
        problem = f"{path.suffix or 'no ending'} is no picture that can be written"
        raise DataError.at(path, None, problem, "end its name with .png")
    if path.is_dir():
        raise DataError.at(path, None, "it is a directory", "name a file")


def draw_overlay(test: Image, reference: Image | None, evidence: Evidence, path: Path) -> None:
    """Write the picture; the ending of `path` decides its format.

    With a reference, the K selected patches are outlined and numbered, the most distinct first, the redder the less
    similar, and the reference stands beside. Without one each patch is shaded by the attention that it gets, the mean
    over the facts.

    Args:
        test, reference: the images as they were given to the model.
        evidence: of that pair.
        path: the picture; written over.
    """
    figure = Figure(figsize=(PANEL_INCHES * (1 if reference is None else 2) + 1, PANEL_INCHES), layout="constrained")
    panels = figure.subplots(1, 1 if reference is None else 2, squeeze=False)[0]
    panels[0].set_title("test image")
    panels[0].imshow(test)
    boxes = [_pixels(patch.box, test.size) for patch in evidence.patches]
    if reference is None:
        values, label, colour_map = _mean_attention(evidence), "attention, mean over the facts", "plasma"
    else:
        values = [patch.similarity for patch in evidence.patches if patch.similarity is not None]
        label, colour_map = "similarity to the reference", "autumn"
    colours = ScalarMappable(Normalize(min(values), max(values)), colour_map)
    # The most distinct last, so that it is on top.
    shades = colours.to_rgba(np.asarray(values))
    for number, box, shade in reversed(list(zip(range(1, len(boxes) + 1), boxes, shades, strict=True))):
        if reference is None:
            panels[0].add_patch(Rectangle(*box, facecolor=shade, alpha=0.5, linewidth=0))
        else:
            _outline(panels[0], box, str(number), shade)
    if reference is not None:
        panels[1].set_title("reference")
        panels[1].imshow(reference)
    for panel in panels:
        panel.set_axis_off()
    figure.colorbar(colours, ax=panels.tolist(), label=label, shrink=0.8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _pixels(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[tuple[float, float], float, float]:
    """Corner, width and height in pixels, which are drawn around their centres."""
    x1, y1, x2, y2 = (side * length for side, length in zip(box, size * 2, strict=True))
    return (x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1


def _outline(panel: Axes, box: tuple[tuple[float, float], float, float], label: str, colour: Any) -> None:
    # Parts are bright and dark: a dark rim keeps a line to be seen on both.
    rim = [withStroke(linewidth=4, foreground="black")]
    panel.add_patch(Rectangle(*box, fill=False, edgecolor=colour, linewidth=2, path_effects=rim))
    panel.annotate(
        label,
        box[0],
        xytext=(4, -4),
        textcoords="offset points",
        va="top",
        color=colour,
        weight="bold",
        path_effects=[withStroke(linewidth=2.5, foreground="black")],
    )


def _mean_attention(evidence: Evidence) -> list[float]:
    by_patch = zip(*(fact.attention for fact in evidence.facts), strict=True)
    return [sum(weights) / len(weights) for weights in by_patch]
