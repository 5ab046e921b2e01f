"""Adapters on disk: small ones that engines take, and some that they must not be shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["make_adapter", "safetensors"]


def safetensors(values: int = 4) -> bytes:
    """Return a whole file with one tensor of so many floats."""
    header = json.dumps(
        {"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}
    ).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4 * values)


def make_adapter(folder: Path, *, rank: int = 8, weights: str = "adapter_model.safetensors", **config: Any) -> Path:
    """Write an adapter in PEFT's form; `config` changes its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"peft_type": "LORA", "r": rank, "target_modules": ["q_proj"], "base_model_name_or_path": "demo"} | config
    (folder / "adapter_config.json").write_text(json.dumps(whole))
    (folder / weights).write_bytes(safetensors())
    return folder
