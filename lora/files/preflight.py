"""Checks an adapter's files before the engine sees them: bad files crash some engines, pickled weights can run code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lora import codes
from lora.adapter import Facts
from lora.errors import InvalidAdapterError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["inspect"]

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
PICKLED: Final = ("adapter_model.bin", "adapter_model.pt")

# Bytes of a file that are read at most: the file may be anything that fits on a volume.
_MAX_CONFIG: Final = 1 << 20
_MAX_HEADER: Final = 32 << 20
_LENGTH_BYTES: Final = 8


class _Tensor(msgspec.Struct, gc=False):
    data_offsets: tuple[int, int] | None = None


_HEADER: Final = msgspec.json.Decoder(dict[str, _Tensor])


def inspect(folder: Path, *, allow_pickle: bool = False) -> Facts:
    """Check an adapter's files, and return what they say.

    The weights are not read: the header of a safetensors file tells how long the file must be.

    Raises:
        InvalidAdapterError: A file is missing, truncated, invalid, or (without `allow_pickle`) pickled.
    """
    config = _read_config(folder / CONFIG)
    rank, modules = config.get("r"), config.get("target_modules")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise _invalid(f"{CONFIG} has no rank: 'r' must be a number above 0")
    if not modules or not isinstance(modules, (str, list)):
        raise _invalid(f"{CONFIG} names no target_modules")
    base = config.get("base_model_name_or_path")
    return Facts(rank, base if isinstance(base, str) else "", _weights(folder, allow_pickle=allow_pickle))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():  # reading a pipe would never end
            raise _invalid(f"there is no {CONFIG} in {path.parent}: the directory must hold one adapter")
        with path.open("rb") as file:
            config = json.loads(file.read(_MAX_CONFIG))
    except OSError as error:
        raise _invalid(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise _invalid(f"{path} is not JSON") from None
    if not isinstance(config, dict):
        raise _invalid(f"{path} is not a JSON object")
    return config


def _weights(folder: Path, *, allow_pickle: bool) -> int:
    path = folder / WEIGHTS
    if path.is_file():
        return _check_safetensors(path)
    pickled = next((folder / name for name in PICKLED if (folder / name).is_file()), None)
    if pickled is None:
        raise _invalid(f"there is no {WEIGHTS} in {folder}")
    if not allow_pickle:
        raise InvalidAdapterError(
            codes.PICKLED_ADAPTER,
            f"{pickled.name} may run code when it is read: convert it to {WEIGHTS}, or allow it with allow_pickle",
        )
    return pickled.stat().st_size


def _check_safetensors(path: Path) -> int:
    """Compare the header of a safetensors file with its size, and return the size.

    The format: 8 bytes of little-endian header length, the header as JSON, then the tensors without gaps.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if length > size:
                raise _truncated(path)
            if length > _MAX_HEADER:
                raise _invalid(f"{path} has a header of more than {_MAX_HEADER} bytes")
            header = _HEADER.decode(file.read(length))
    except OSError as error:
        raise _invalid(f"{path} cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _invalid(f"{path} is no safetensors file") from None
    header.pop("__metadata__", None)
    if not header:
        raise _invalid(f"{path} has no tensors")
    ends = [tensor.data_offsets[1] for tensor in header.values() if tensor.data_offsets]
    if len(ends) < len(header):
        raise _invalid(f"{path} is no safetensors file")
    if _LENGTH_BYTES + length + max(ends) != size:
        raise _truncated(path)
    return size


def _truncated(path: Path) -> InvalidAdapterError:
    return _invalid(f"{path} is not whole: its header and its size do not agree")


def _invalid(message: str) -> InvalidAdapterError:
    return InvalidAdapterError(codes.INVALID_ADAPTER, message)
