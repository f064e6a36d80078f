"""What a licence, as `dataset.json` names it, says about passing images on."""

from __future__ import annotations

import re

# Whole licences only: an unknown word, and ND, which forbids the crops and conversions that sources make, mean no.
_FREE = re.compile(
    r"(CC0(-1\.0)?|CC-BY(-NC)?(-SA)?(-[1-4]\.0)?|APACHE-2\.0|MIT|BSD-[23]-CLAUSE|PDDL(-1\.0)?|ODC-BY(-1\.0)?|ODBL(-1\.0)?)"
    r"(?![A-Z0-9.-])"
)
_HUB_IDS = {"cc0-1.0", "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "pddl", "odc-by", "odbl"}
_HUB_IDS |= {f"cc-by{kind}-{version}" for kind in ("", "-nc", "-sa", "-nc-sa") for version in ("2.0", "3.0", "4.0")}

# Of sources that cannot know it.
NOT_STATED = "not stated: give it with --licence"
_NO_LICENCE = {"", "unknown", "none", "?", "n/a", "tbd", NOT_STATED}


def is_named(licence: str) -> bool:
    """Whether the text names a licence at all."""
    return licence.strip().lower() not in _NO_LICENCE


def may_redistribute(licence: str) -> bool:
    """Whether a licence is known to allow passing images on, at least for non-commercial use.

    Remarks in brackets are fine: `CC BY 4.0`, `Apache-2.0 (generated)`. Everything that is not known means no.
    """
    return _known(licence) is not None


def hub_licence(licence: str) -> str:
    """The hub's identifier, or `other`."""
    known = (_known(licence) or "").lower()
    known = {"cc0": "cc0-1.0"}.get(known, known)
    return known if known in _HUB_IDS else "other"


def _known(licence: str) -> str | None:
    match = _FREE.match(re.sub(r"[\s_]+", "-", licence.partition("(")[0].strip()).upper())
    return match.group(1) if match else None
