"""Under what a model was measured, as the keys of `metrics.json` say it."""

from __future__ import annotations

from typing import NamedTuple

from sage_trl.evaluation.predictions import read_results_key


class Condition(NamedTuple):
    """Setting, split and control."""

    setting: str
    split: str
    control: str | None

    @classmethod
    def of_key(cls, key: str) -> Condition:
        """Read a key of `metrics.json`: `one_shot`, `one_shot@unseen`, `one_shot+blank_image`."""
        return cls(*read_results_key(key))

    @property
    def input_name(self) -> str:
        """What the model was shown, without the split: `one-shot`, `one-shot, blank image`."""
        return input_name(self.setting, self.control)


def setting_name(setting: str) -> str:
    """A setting in words: `one-shot`, `one-shot conversation`."""
    return setting.replace("_conversation", " conversation").replace("_", "-")


def input_name(setting: str, control: str | None) -> str:
    """Setting and control in words."""
    return ", ".join(filter(None, [setting_name(setting), (control or "").replace("_", " ")]))
