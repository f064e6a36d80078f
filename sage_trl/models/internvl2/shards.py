"""Which tensors a checkpoint's safetensors files hold, read from their headers alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from sage_trl.errors import DataError
from sage_trl.storage import read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Header:
    """One safetensors file and the shape of every tensor in it."""

    path: Path
    shapes: dict[str, tuple[int, ...]]


def read_headers(directory: Path) -> list[Header]:
    """The headers of all shards of a checkpoint, in the order of their names.

    Raises:
        DataError: no safetensors weights, an index that disagrees with the files, a tensor stored twice or not as
            floating point, or a file that cannot be read.
    """
    index = directory / INDEX
    if not index.is_file():
        if not (directory / SINGLE).is_file():
            raise _no_weights(directory)
        return [_read_header(directory / SINGLE)]
    weight_map = _weight_map(index)
    headers = [_read_header(directory / name) for name in sorted(set(weight_map.values()))]
    seen: dict[str, str] = {}
    for header in headers:
        for name in header.shapes:
            if name in seen:
                problem = f"tensor {name} is in {seen[name]} as well"
                raise DataError.at(header.path, None, problem, "fetch the checkpoint anew")
            seen[name] = header.path.name
    for name, file in weight_map.items():
        if seen.get(name) != file:
            problem = f"tensor {name} is not in {file}, where the index has it"
            raise DataError.at(index, None, problem, "fetch the checkpoint anew")
    return headers


def native_shard_name(number: int, count: int) -> str:
    """File name of native shard `number`, from 1, of `count`."""
    return SINGLE if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def _weight_map(index: Path) -> dict[str, str]:
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise DataError.at(index, None, "no weight_map", "fetch the file anew")
    for file in set(weight_map.values()):
        if not isinstance(file, str) or Path(file).name != file:
            raise DataError.at(index, None, f"weight_map names {file!r}, no file beside it", "fetch the file anew")
    return weight_map


def _read_header(path: Path) -> Header:
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        with safe_open(path, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118 - a handle, no mapping
                piece = shard.get_slice(name)
                if piece.get_dtype() not in FLOATS:
                    problem = f"tensor {name} is {piece.get_dtype()}"
                    raise DataError.at(path, None, problem, "quantised checkpoints are not converted; use the original")
                shapes[name] = tuple(piece.get_shape())
    except FileNotFoundError:
        raise DataError.at(path, None, "no such shard", "fetch the whole checkpoint") from None
    except (OSError, SafetensorError) as error:
        raise DataError.at(path, None, f"the shard cannot be read: {error}", "fetch it anew") from None
    return Header(path, shapes)


def _no_weights(directory: Path) -> DataError:
    pickles = sorted(path.name for path in directory.glob("*.bin"))
    if pickles:
        problem = f"the weights are PyTorch pickles ({pickles[0]}), which can run code when they are read"
        return DataError.at(directory, None, problem, "use the release with safetensors")
    return DataError.at(directory, None, f"no {SINGLE} and no {INDEX}", "fetch the whole checkpoint")
