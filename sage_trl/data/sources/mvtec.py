"""MVTec AD: 15 kinds of objects and textures with pixel masks.

The layout is that of `mvtec_layout`; one photo with its mask:

    ROOT/screw/test/scratch_head/007.png
    ROOT/screw/ground_truth/scratch_head/007_mask.png

becomes a group on the category `screw` with a defect of the type `head scratch`. Photos in `train/good` are references
only; those in `test` are divided among our splits.
"""

from __future__ import annotations

from collections.abc import Iterator

from sage_trl.data.faults import FaultList
from sage_trl.data.sources.base import PHOTO_OPTIONS, Part, SourceOptions, root_of
from sage_trl.data.sources.mvtec_layout import read_mvtec_layout
from sage_trl.data.sources.photo_parts import photo_parts


class MvtecSource:
    """Reads a root in the layout of MVTec AD."""

    name = "mvtec"
    licence = "CC BY-NC-SA 4.0 (MVTec AD)"
    uses = PHOTO_OPTIONS - {"defective_share"}

    def parts(self, options: SourceOptions) -> Iterator[Part]:
        faults = FaultList()
        photos = read_mvtec_layout(root_of(options, self.name), faults)
        yield from photo_parts(self.name, photos, options, faults)
