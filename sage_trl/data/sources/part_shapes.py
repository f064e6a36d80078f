"""Shapes of the generated parts: an outline and a few features, drawn with PIL at several times the final size.

All lengths are in units of 1/64 of the picture's side, so a part looks the same at every picture size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
FloatArray = NDArray[np.float64]

SIDE = 64.0
OUTLINE_POINTS = 240
COLOUR_SPREAD = 10


@dataclass(frozen=True)
class Feature:
    """A hole, slot, pad or mark. `width` and `height` are its full extents."""

    kind: str
    centre: Point
    width: float
    height: float
    colour: Colour

    def box(self, margin: float = 0.0) -> tuple[float, float, float, float]:
        x, y = self.centre
        half_width, half_height = self.width / 2 + margin, self.height / 2 + margin
        return x - half_width, y - half_height, x + half_width, y + half_height

    def moved_to(self, centre: Point) -> Feature:
        return replace(self, centre=centre)


@dataclass(frozen=True)
class Blueprint:
    """A good part: background, closed outline `[points, 2]`, features."""

    background: Colour
    body: Colour
    outline: FloatArray
    features: tuple[Feature, ...]


def draw(blueprint: Blueprint, pixels: int) -> Image.Image:
    """Draw a blueprint on a square of `pixels`, without antialiasing; callers draw large and scale down."""
    scale = pixels / SIDE
    picture = Image.new("RGB", (pixels, pixels), blueprint.background)
    pen = ImageDraw.Draw(picture)
    rim: Colour = (blueprint.body[0] * 2 // 3, blueprint.body[1] * 2 // 3, blueprint.body[2] * 2 // 3)
    polygon = [(float(x) * scale, float(y) * scale) for x, y in blueprint.outline]
    pen.polygon(polygon, fill=blueprint.body)
    pen.line([*polygon, polygon[0]], fill=rim, width=max(1, round(scale)))
    for feature in blueprint.features:
        corners = tuple(value * scale for value in feature.box())
        if feature.kind == "circle":
            pen.ellipse(corners, fill=feature.colour)
        elif feature.kind == "ring":
            pen.ellipse(corners, outline=feature.colour, width=max(1, round(2.4 * scale)))
        else:
            pen.rectangle(corners, fill=feature.colour)
    return picture


def superellipse(centre: Point, half_width: float, half_height: float, power: float) -> FloatArray:
    """Closed outline from a circle (power 2) to a rectangle with round corners (power 8)."""
    angle = np.linspace(0.0, 2 * math.pi, OUTLINE_POINTS, endpoint=False)
    cosine, sine = np.cos(angle), np.sin(angle)
    radius = (np.abs(cosine / half_width) ** power + np.abs(sine / half_height) ** power) ** (-1 / power)
    return np.stack([centre[0] + radius * cosine, centre[1] + radius * sine], axis=1)


def bump(outline: FloatArray, position: int, depth: float, width: float) -> FloatArray:
    """Push the outline outwards (depth > 0) or inwards around one of its points, over about `width` along it."""
    middle = outline.mean(axis=0)
    away = outline - outline[position]
    weight = np.exp(-((np.hypot(away[:, 0], away[:, 1]) / (width / 2)) ** 2))
    direction = outline[position] - middle
    step: FloatArray = depth * weight[:, None] * direction / max(float(np.hypot(*direction)), 1e-6)
    return outline + step


@dataclass(frozen=True)
class Palette:
    """The usual colours of a kind of part: what lies behind it, its material, its features."""

    background: Colour
    body: Colour
    feature: Colour

    def varied(self, rng: np.random.Generator) -> Palette:
        """The colours of one part: no two batches of a material look quite the same."""
        return Palette(*(_varied(colour, rng) for colour in (self.background, self.body, self.feature)))


def _varied(colour: Colour, rng: np.random.Generator) -> Colour:
    red, green, blue = (int(value) for value in np.array(colour) + rng.integers(-COLOUR_SPREAD, COLOUR_SPREAD + 1, 3))
    return red, green, blue


@dataclass(frozen=True)
class Category:
    """A kind of part: its colours, and how its outline and its features are drawn by chance."""

    name: str
    outline: Callable[[np.random.Generator], FloatArray]
    kinds: tuple[str, ...]
    feature_count: tuple[int, int]
    palette: Palette


def _plate(rng: np.random.Generator) -> FloatArray:
    return superellipse((32, 32), rng.uniform(23, 28), rng.uniform(21, 28), 8)


def _capsule(rng: np.random.Generator) -> FloatArray:
    long, short = rng.uniform(26, 29), rng.uniform(15, 18)
    half_width, half_height = (long, short) if rng.random() < 0.5 else (short, long)
    return superellipse((32, 32), half_width, half_height, 2.8)


def _connector(rng: np.random.Generator) -> FloatArray:
    outline = superellipse((32, 32), rng.uniform(25, 28), rng.uniform(17, 21), 8)
    side = 1 if rng.random() < 0.5 else -1
    for along in (-12.0, 12.0):
        nearest = np.argmin(np.hypot(outline[:, 0] - 32 - along, outline[:, 1] - 32 - side * 19))
        outline = bump(outline, int(nearest), 4.0, 9.0)
    return outline


def _cable(rng: np.random.Generator) -> FloatArray:
    half = rng.uniform(14, 18)
    x = np.linspace(-6.0, 70.0, OUTLINE_POINTS // 2)
    wave = 32 + rng.uniform(1, 3) * np.sin(x / rng.uniform(9, 14) + rng.uniform(0, 2 * math.pi))
    outline = np.concatenate([np.stack([x, wave - half], 1), np.stack([x, wave + half], 1)[::-1]])
    return outline if rng.random() < 0.5 else outline[:, ::-1].copy()


def _teeth(count: int, depth: float, radius: float, sharpness: float) -> FloatArray:
    angle = np.linspace(0.0, 2 * math.pi, OUTLINE_POINTS * 2, endpoint=False)
    tooth = np.clip(sharpness * np.sin(count * angle), -1, 1)
    reach = radius + depth / 2 * tooth
    return np.stack([32 + reach * np.cos(angle), 32 + reach * np.sin(angle)], axis=1)


def _gear(rng: np.random.Generator) -> FloatArray:
    return _teeth(int(rng.integers(8, 13)), 4.0, rng.uniform(24, 26), 3.0)


def _bottle_cap(rng: np.random.Generator) -> FloatArray:
    return _teeth(int(rng.integers(18, 25)), 2.0, rng.uniform(24, 27), 1.0)


def _washer(rng: np.random.Generator) -> FloatArray:
    radius = rng.uniform(25, 28)
    return superellipse((32, 32), radius, radius, 2)


def _pad_grid(rng: np.random.Generator) -> FloatArray:
    return superellipse((32, 32), rng.uniform(26, 29), rng.uniform(26, 29), 14)


TRAIN_CATEGORIES = (
    Category("plate", _plate, ("circle",), (2, 4), Palette((38, 40, 46), (142, 146, 150), (28, 30, 34))),
    Category("capsule", _capsule, ("circle", "ring"), (2, 3), Palette((54, 50, 46), (150, 128, 132), (40, 34, 30))),
    Category("connector", _connector, ("slot",), (2, 4), Palette((34, 44, 58), (92, 128, 112), (22, 26, 30))),
    Category("cable", _cable, ("circle", "slot"), (2, 3), Palette((52, 54, 50), (112, 106, 158), (30, 28, 38))),
)
UNSEEN_CATEGORIES = (
    Category("gear", _gear, ("circle",), (2, 4), Palette((40, 42, 48), (150, 148, 138), (30, 30, 30))),
    Category("washer", _washer, ("ring", "circle"), (2, 3), Palette((48, 46, 50), (128, 140, 158), (34, 34, 38))),
    Category("pad grid", _pad_grid, ("slot", "circle"), (3, 5), Palette((36, 48, 42), (84, 132, 88), (28, 30, 26))),
    Category(
        "bottle cap", _bottle_cap, ("circle", "slot"), (2, 4), Palette((44, 44, 52), (150, 99, 130), (36, 30, 32))
    ),
)
