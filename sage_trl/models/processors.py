"""Processors for images and text: a class of ours, or whichever a checkpoint names, with and without torchvision."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import AutoProcessor, AutoTokenizer
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available

from sage_trl.errors import DataError
from sage_trl.models.adapters import Source
from sage_trl.models.molmo2_images import Molmo2ImageProcessorWithoutTorchvision

COMPONENTS = {"image_processor", "tokenizer"}
# Image processors of model types for which transformers has none without torchvision.
IMAGE_PROCESSORS: dict[str, Any] = {"molmo2": Molmo2ImageProcessorWithoutTorchvision}
FAULTS = (OSError, ValueError, TypeError, AttributeError, ImportError)


def load_processor(source: Source, processor_class: Any, image_processor_class: Any = AutoImageProcessor) -> Any:
    """Load image processor and tokenizer, and put them together without a part for videos.

    Args:
        source: where the checkpoint lies.
        processor_class: the class that takes both.
        image_processor_class: the class of the first; by default torchvision's where that is installed, else PIL's.

    Raises:
        DataError: something of it is missing.
    """
    options = {"revision": source.revision, "trust_remote_code": source.trust_remote_code}
    try:
        image_processor = image_processor_class.from_pretrained(source.name, **options)
        tokenizer = AutoTokenizer.from_pretrained(source.name, **options)
    except (OSError, ValueError) as error:
        problem = f"no processor can be loaded: {error}"
        raise DataError.at(source.name, None, problem, "save the processor beside the model") from None
    settings, _ = processor_class.get_processor_dict(source.name, revision=source.revision)
    settings["chat_template"] = settings.get("chat_template") or tokenizer.chat_template
    accepted = settings.keys() & inspect.signature(processor_class).parameters.keys()
    processor = processor_class(
        image_processor=image_processor,
        tokenizer=tokenizer,
        **{name: settings[name] for name in accepted - COMPONENTS},
    )
    if getattr(processor, "patch_size", 0) is None:
        problem = "the processor's configuration has no patch_size"
        raise DataError.at(source.name, None, problem, "use a newer revision of the model")
    return processor


def load_named_processor(source: Source, config: Any) -> Any:
    """Load the processor that transformers has for a checkpoint; where torchvision is missing, without its video part.

    Args:
        source: where the checkpoint lies.
        config: the model's configuration.

    Raises:
        DataError: it cannot be built, or does not make a prompt of a chat with images.
    """
    processor_class = PROCESSOR_MAPPING.get(type(config), None)
    try:
        if processor_class is None or is_torchvision_available():
            processor = AutoProcessor.from_pretrained(source.name, revision=source.revision, trust_remote_code=False)
        else:
            image_processor = IMAGE_PROCESSORS.get(config.model_type, AutoImageProcessor)
            processor = load_processor(source, _for_images_alone(processor_class), image_processor)
    except FAULTS as error:
        raise _unusable(source, f"no processor can be built: {error}") from None
    if not all(hasattr(processor, component) for component in COMPONENTS):
        raise _unusable(source, f"{type(processor).__name__} does not take images and text")
    if not (getattr(processor, "chat_template", None) or processor.tokenizer.chat_template):
        raise DataError.at(
            source.name, None, "it has no chat template", "evaluate a version of it that was tuned to answer questions"
        )
    return processor


def _for_images_alone(processor_class: Any) -> Any:
    """The class, allowed to have no video processor: transformers' need torchvision."""

    class ForImagesAlone(processor_class):  # type: ignore[misc]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name == "video_processor" and argument is None:
                return None
            return super().check_argument_for_proper_class(argument_name, argument)

    return ForImagesAlone


def _unusable(source: Source, problem: str) -> DataError:
    remedy = "see that the checkpoint has a processor of this version of transformers"
    if not is_torchvision_available():
        remedy += ", or install torchvision, which some processors need"
    return DataError.at(source.name, None, problem, remedy)
