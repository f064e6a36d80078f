"""Writes questions and four ranked answers from ground truth, by rule."""

from sage_trl.data.authoring.author import author_inspections
from sage_trl.data.authoring.scenes import Scene

__all__ = ["Scene", "author_inspections"]
