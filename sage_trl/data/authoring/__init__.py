"""Writes questions and four ranked answers: by rule from ground truth, or with a language model."""

from sage_trl.data.authoring.author import Author, author_by_rule, author_inspections
from sage_trl.data.authoring.scenes import Scene

__all__ = ["Author", "Scene", "author_by_rule", "author_inspections"]
