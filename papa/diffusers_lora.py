"""An adapter as diffusers' pipelines load it: `pipe.load_lora_weights(folder)`.

A revision holds peft's format, whose keys begin with "base_model.model."; diffusers wants "unet." instead, in one file.
The scale s = alpha / r goes into B, since not every reader looks for alpha beside the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from safetensors.torch import save

from papa.revision_files import CONFIG_FILE, WEIGHTS_FILE, AdapterDamagedError, read_tensors

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
_PEFT = "base_model.model."


def diffusers_lora(files: Mapping[str, bytes], network: str = "unet") -> bytes:
    """The content of DIFFUSERS_FILE, from a revision's files; `network` is the pipeline's adapted part.

    Raises AdapterDamagedError when `files` hold no adapter in peft's format.
    """
    try:
        config, weights = json.loads(files[CONFIG_FILE]), files[WEIGHTS_FILE]
        scale = float(config["lora_alpha"]) / int(config["r"])
    except (KeyError, ValueError, TypeError) as error:
        raise AdapterDamagedError("format", f"no adapter in peft's format: {error!r}") from error
    return save(
        {
            f"{network}.{name.removeprefix(_PEFT)}": tensor * scale if ".lora_B." in name else tensor
            for name, tensor in read_tensors(weights).items()
        },
        metadata={"format": "pt"},
    )
