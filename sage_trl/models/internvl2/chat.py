"""The released conversation templates as chat templates.

The released `conversation.py` writes ChatML without a line break after `<|im_end|>`, and a system message of its own
unless the caller has one.
"""

from __future__ import annotations

import json

from sage_trl.models.internvl2.config import SourceConfig

END_OF_TURN = "<|im_end|>"
# What the released checkpoints were tuned with: "You are a multimodal model by the Shanghai AI Laboratory together with
# SenseTime, called InternVL in English, a useful and harmless assistant."
_SYSTEM_MESSAGE = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
# The two differ in training only, where `internlm2-chat` begins with the begin-of-sequence token.
SYSTEM_MESSAGES = {"internlm2-chat": _SYSTEM_MESSAGE, "Hermes-2": _SYSTEM_MESSAGE}


_TEMPLATE = (
    "{{ BEGIN }}{% if messages[0]['role'] != 'system' %}{{ SYSTEM }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif part['type'] == 'video' %}{{ '<video>\n' }}"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def chat_template(source: SourceConfig, bos_token: str | None) -> str:
    """The chat template of a checkpoint; an image becomes `<IMG_CONTEXT>`, which the processor expands.

    Args:
        source: its template and, where set, its own system message.
        bos_token: token that the source's tokenizer puts before every text, or None. It belongs to the template,
            because rendered prompts are encoded without special tokens.

    Raises:
        DataError: an unknown template.
    """
    if source.template not in SYSTEM_MESSAGES:
        known = ", ".join(SYSTEM_MESSAGES)
        raise source.refuse("template", f"unknown conversation template {source.template!r}", f"one of {known}")
    system = SYSTEM_MESSAGES[source.template] if source.system_message is None else source.system_message
    opening = f"<|im_start|>system\n{system}{END_OF_TURN}"
    return _TEMPLATE.replace("BEGIN", _quoted(bos_token or "")).replace("SYSTEM", _quoted(opening))


def _quoted(text: str) -> str:
    """A Jinja string literal; it knows JSON's escapes."""
    return json.dumps(text, ensure_ascii=False)
