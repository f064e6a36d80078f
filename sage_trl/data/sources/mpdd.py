"""MPDD: painted and unpainted metal parts, in the layout of `mvtec_layout`.

    ROOT/bracket_black/test/scratches/003.png
    ROOT/bracket_black/ground_truth/scratches/003_mask.png

The paper tests on it, so all of it is in the split `test` unless `--split-shares` says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator

from sage_trl.data.faults import FaultList
from sage_trl.data.sources.base import PHOTO_OPTIONS, Part, SourceOptions, root_of
from sage_trl.data.sources.mvtec_layout import read_mvtec_layout
from sage_trl.data.sources.photo_parts import photo_parts


class MpddSource:
    """Reads a root of MPDD."""

    name = "mpdd"
    licence = "CC BY-NC-SA 4.0 (MPDD)"
    uses = PHOTO_OPTIONS - {"defective_share"}

    def parts(self, options: SourceOptions) -> Iterator[Part]:
        faults = FaultList()
        photos = read_mvtec_layout(root_of(options, self.name), faults)
        yield from photo_parts(self.name, photos, options, faults, shares={"test": 1.0})
