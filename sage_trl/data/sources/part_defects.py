"""The five defects of the generated parts: each changes a blueprint, or paints on the drawn part."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sage_trl.data.sources.part_shapes import SIDE, Blueprint, Colour, Feature, FloatArray, Point, bump

DEFECT_TYPES = ("scratch", "stain", "missing feature", "deformation", "misplacement")
FEATURE_GAP = 2.0
# A scratch lays bright metal bare, a stain is brown: no part has these colours.
BARE_METAL: Colour = (238, 238, 236)
OIL: Colour = (130, 75, 0)

Paint = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Damage:
    """A damaged part: the changed blueprint and what is painted over the drawing."""

    blueprint: Blueprint
    paint: Paint | None = None


def inside(outline: FloatArray, point: Point, margin: float = 0.0) -> bool:
    """Whether a point lies inside the closed outline, at least `margin` from each of its points."""
    return bool(_inside(outline, np.array([point]))[0]) and float(np.hypot(*(outline - point).T).min()) >= margin


def _inside(outline: FloatArray, points: FloatArray) -> NDArray[np.bool_]:
    """Whether each of the points `[N, 2]` lies inside the closed outline `[P, 2]`: the even-odd rule."""
    x, y = points[:, 0:1], points[:, 1:2]
    x1, y1 = outline.T
    x2, y2 = outline[_successors(len(outline))].T
    between = (y1 > y) != (y2 > y)
    height = np.where(between, y2 - y1, 1.0)
    crossings = between & (x < (x2 - x1) * (y - y1) / height + x1)
    return np.asarray(crossings.sum(axis=1) % 2 == 1)


@cache
def _successors(count: int) -> NDArray[np.intp]:
    """Of each point of a closed line the index of the next."""
    return np.roll(np.arange(count), -1)


def fits(blueprint: Blueprint, feature: Feature) -> bool:
    """Whether a feature lies on the part, in the picture, and clear of the other features."""
    left, top, right, bottom = feature.box(FEATURE_GAP)
    if min(left, top) < 2 or max(right, bottom) > SIDE - 2:
        return False
    if not _inside(blueprint.outline, np.array([(x, y) for x in (left, right) for y in (top, bottom)])).all():
        return False
    boxes = (other.box() for other in blueprint.features)
    return all(right <= box[0] or box[2] <= left or bottom <= box[1] or box[3] <= top for box in boxes)


def damage(blueprint: Blueprint, defect: str, rng: np.random.Generator) -> Damage | None:
    """Apply a defect by chance; None if this draw did not find room, and the caller draws anew."""
    makers: dict[str, Callable[[Blueprint, np.random.Generator], Damage | None]] = {
        "scratch": _scratch,
        "stain": _stain,
        "missing feature": _missing_feature,
        "deformation": _deformation,
        "misplacement": _misplacement,
    }
    return makers[defect](blueprint, rng)


def _spot(blueprint: Blueprint, rng: np.random.Generator, margin: float) -> Point | None:
    for _ in range(40):
        point = (float(rng.uniform(6, SIDE - 6)), float(rng.uniform(6, SIDE - 6)))
        if inside(blueprint.outline, point, margin):
            return point
    return None


def _scratch(blueprint: Blueprint, rng: np.random.Generator) -> Damage | None:
    middle = _spot(blueprint, rng, 5.0)
    if middle is None:
        return None
    angle, length = rng.uniform(0, math.pi), rng.uniform(15, 20)
    step = np.linspace(-0.5, 0.5, 5) * length
    bend = rng.uniform(-1.5, 1.5, 5)
    line = [
        (middle[0] + s * math.cos(angle) - b * math.sin(angle), middle[1] + s * math.sin(angle) + b * math.cos(angle))
        for s, b in zip(step, bend, strict=True)
    ]
    if not all(inside(blueprint.outline, point, 1.0) for point in line):
        return None

    def paint(picture: Image.Image) -> Image.Image:
        scale = picture.width / SIDE
        pen = ImageDraw.Draw(picture)
        pen.line([(x * scale, y * scale) for x, y in line], fill=BARE_METAL, width=round(3.0 * scale), joint="curve")
        return picture

    return Damage(blueprint, paint)


def _stain(blueprint: Blueprint, rng: np.random.Generator) -> Damage | None:
    middle = _spot(blueprint, rng, 7.0)
    if middle is None:
        return None
    angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    phases = rng.uniform(0, 2 * math.pi, 3)
    radius = rng.uniform(6.5, 8.5) * (1 + sum(0.12 * np.sin(k * angles + phases[k - 2]) for k in (2, 3, 4)))
    blob = [(middle[0] + r * math.cos(a), middle[1] + r * math.sin(a)) for r, a in zip(radius, angles, strict=True)]

    def paint(picture: Image.Image) -> Image.Image:
        scale = picture.width / SIDE
        cover = Image.new("L", picture.size, 0)
        ImageDraw.Draw(cover).polygon([(x * scale, y * scale) for x, y in blob], fill=205)
        return Image.composite(Image.new("RGB", picture.size, OIL), picture, cover)

    return Damage(blueprint, paint)


def _missing_feature(blueprint: Blueprint, rng: np.random.Generator) -> Damage | None:
    lost = int(rng.integers(len(blueprint.features)))
    kept = tuple(feature for index, feature in enumerate(blueprint.features) if index != lost)
    return Damage(replace(blueprint, features=kept))


def _deformation(blueprint: Blueprint, rng: np.random.Generator) -> Damage | None:
    position = int(rng.integers(len(blueprint.outline)))
    x, y = blueprint.outline[position]
    if not (4 < x < SIDE - 4 and 4 < y < SIDE - 4):
        return None
    depth = -rng.uniform(8, 10) if rng.random() < 0.5 else rng.uniform(6, 9)
    return Damage(replace(blueprint, outline=bump(blueprint.outline, position, depth, rng.uniform(11, 14))))


def _misplacement(blueprint: Blueprint, rng: np.random.Generator) -> Damage | None:
    moved = int(rng.integers(len(blueprint.features)))
    feature = blueprint.features[moved]
    others = replace(blueprint, features=tuple(f for i, f in enumerate(blueprint.features) if i != moved))
    for _ in range(30):
        angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(8, 11)
        x, y = feature.centre
        shifted = feature.moved_to((x + distance * math.cos(angle), y + distance * math.sin(angle)))
        if fits(others, shifted):
            return Damage(replace(blueprint, features=(*others.features, shifted)))
    return None
