"""An adapter that was made elsewhere: checked as a stranger's, then as one of ours.

Unlike a revision of this deployment nothing vouches for it, so every shape, type and value is looked at: what passes
can be served, and trained on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from papa.adapter import Adapter
from papa.config import UpdateConfig
from papa.denoiser import Denoiser
from papa.replay import Replay
from papa.revision_files import (
    CONFIG_FILE,
    HEAD_FILE,
    MANIFEST_FILE,
    STATE_FILE,
    WEIGHTS_FILE,
    AdapterDamagedError,
    digest,
    flat_weights,
    read_head,
    read_replay,
    read_tensors,
)
from papa.taste import Head

FILES = (CONFIG_FILE, WEIGHTS_FILE, STATE_FILE, HEAD_FILE, MANIFEST_FILE)
MAX_PROMPT = 1_000
"""Characters; longer prompts are refused wherever they come from."""
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_HARMLESS = frozenset(
    {
        "peft_type", "r", "lora_alpha", "bias", "init_lora_weights", "task_type", "auto_mapping", "peft_version",
        "base_model_name_or_path", "revision", "inference_mode", "lora_dropout", "target_modules", "exclude_modules",
        "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size", "runtime_config",
        "ensure_weight_tying",
    }
)  # fmt: skip
"""peft's options that leave ΔW = s B A as it is, given which tensors there are."""
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Initialisations that leave the backbone's own weights as they are; PiSSA, OLoRA and others change them."""


@dataclass(frozen=True)
class Adoption:
    """The limits for adapters of a deployment. `max_norm`: norm of the weights ÷ that of a fresh adapter; `features`:
    number of features."""

    denoiser: Denoiser
    features: int
    config: UpdateConfig
    max_norm: float

    @classmethod
    def of(cls, denoiser: Denoiser, config: UpdateConfig, max_norm: float) -> Adoption:
        """Runs the backbone once: to be called before anybody else does."""
        return cls(denoiser, denoiser.feature_size, config, max_norm)

    def adopt(self, files: Mapping[str, bytes], backbone_hash: str) -> Adapter:
        """The adapter in these files, of the backbone with that hash; learning goes on from its weights, whatever
        iterate lies beside them. Raises AdapterDamagedError."""
        if backbone_hash == self.denoiser.weights_hash:
            raise AdapterDamagedError(
                "backbone",
                "the adapter names the backbone by a hash of an earlier version, which says nothing of its "
                f"configuration; where that is the same, name {self.denoiser.backbone_hash} in its place",
            )
        if backbone_hash != self.denoiser.backbone_hash:
            raise AdapterDamagedError("backbone", "the adapter was made for another backbone")
        if MANIFEST_FILE in files:
            self._check_manifest(files)
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            if name not in files:
                raise AdapterDamagedError("format", f"{name} is missing")
        rank, alpha = _rank_and_alpha(_object(files[CONFIG_FILE], CONFIG_FILE))
        weights = flat_weights(_floats(read_tensors(files[WEIGHTS_FILE])), self.denoiser.layout, rank, alpha)
        layout = self.denoiser.layout
        if layout.norm(weights) > self.max_norm * layout.fresh_norm:
            raise AdapterDamagedError("norm", f"its norm is above {self.max_norm:g} times that of a fresh adapter")
        return Adapter(weights, self._replay(files.get(STATE_FILE)), head=self._head(files.get(HEAD_FILE)))

    def _check_manifest(self, files: Mapping[str, bytes]) -> None:
        """It may be another deployment's: it need not name all files, but must not contradict any."""
        manifest = _object(files[MANIFEST_FILE], MANIFEST_FILE)
        # A manifest of before `papa store rehash` names the former kind of hash; whoever exports names the present one.
        if manifest.get("backbone") not in self.denoiser.hashes:
            raise AdapterDamagedError("backbone", f"{MANIFEST_FILE} names another backbone")
        named = manifest.get("files")
        for name, data in files.items():
            entry = named.get(name) if isinstance(named, dict) else None
            if isinstance(entry, dict) and entry.get("sha256") != digest(data):
                raise AdapterDamagedError("checksum", f"{name} is not the one that {MANIFEST_FILE} vouches for")

    def _head(self, data: bytes | None) -> Head | None:
        """A stranger's numbers, which may mislead nobody but the user who brings them."""
        if data is None:
            return None
        head = read_head(read_tensors(data))
        if len(head.mean) != self.features:
            raise AdapterDamagedError("shape", f"{HEAD_FILE} is of {len(head.mean)} features, not {self.features}")
        return head

    def _replay(self, data: bytes | None) -> Replay:
        shape = self.denoiser.sample_shape
        if data is None:
            empty = torch.zeros(0, self.features, dtype=torch.float16)
            return Replay(torch.zeros(0, *shape, dtype=self.denoiser.sample_dtype), torch.zeros(0), empty)
        tensors = read_tensors(data)
        try:
            # Another user's numbers, or an earlier life's: nobody can take these labels back by them.
            replay = replace(read_replay(tensors), sequences=())
        except KeyError as error:
            raise AdapterDamagedError("format", f"{STATE_FILE} lacks {error}") from error
        count = len(replay.samples) if replay.samples.ndim else 0
        most = self.config.replay_likes + self.config.replay_dislikes
        if count > most:
            raise AdapterDamagedError("shape", f"{STATE_FILE} remembers {count} labels; {most} are the most here")
        wanted = {
            "samples": (self.denoiser.sample_dtype, (count, *shape)),
            "grades": (torch.float32, (count,)),
            "features": (torch.float16, (count, self.features)),
        }
        if any(replay.prompts) and not self.denoiser.takes_prompt:
            raise AdapterDamagedError("shape", f"{STATE_FILE} has prompts, and the backbone takes none")
        if any(len(prompt) > MAX_PROMPT for prompt in replay.prompts):
            raise AdapterDamagedError("shape", f"{STATE_FILE} has a prompt of more than {MAX_PROMPT} characters")
        if replay.prompts and len(replay.prompts) != count:
            raise AdapterDamagedError("shape", f"{STATE_FILE} has a prompt for some of its samples only")
        for name, (dtype, size) in wanted.items():
            tensor: Tensor = getattr(replay, name)
            if tensor.dtype != dtype or tuple(tensor.shape) != size:
                raise AdapterDamagedError("shape", f"{STATE_FILE}: {name} is {tensor.dtype} {tuple(tensor.shape)}")
        if not bool(torch.isfinite(replay.features).all()) or not bool(
            ((replay.grades.abs() <= 1) & (replay.grades != 0)).all()
        ):
            raise AdapterDamagedError("finite", f"{STATE_FILE} holds grades or features out of range")
        return replay


def _object(data: bytes, name: str) -> dict[str, Any]:
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AdapterDamagedError("format", f"{name} is not JSON") from error
    if not isinstance(parsed, dict):
        raise AdapterDamagedError("format", f"{name} is not a JSON object")
    return parsed


def _rank_and_alpha(config: Mapping[str, Any]) -> tuple[int, float]:
    if config.get("peft_type") != "LORA" or config.get("bias") not in (None, "none"):
        raise AdapterDamagedError("format", f"{CONFIG_FILE} is not of a plain LoRA adapter")
    if used := [name for name, value in config.items() if value and name not in _HARMLESS]:
        raise AdapterDamagedError("format", f"{CONFIG_FILE} uses {', '.join(used)}, which is not supported")
    if (start := config.get("init_lora_weights", True)) not in _PLAIN_STARTS:
        raise AdapterDamagedError("format", f"{CONFIG_FILE}: {start!r} changes the backbone's weights as well")
    rank: Any = config.get("r")
    alpha: Any = config.get("lora_alpha")
    try:
        scale = float(alpha) if type(alpha) in (int, float) else math.nan
    except OverflowError:  # JSON's whole numbers have no largest one
        scale = math.inf
    if type(rank) is not int or not 0 < scale < math.inf:
        raise AdapterDamagedError("format", f"{CONFIG_FILE}: r must be a whole number and lora_alpha one above 0")
    return rank, scale


def _floats(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    odd = [name for name, tensor in tensors.items() if tensor.dtype not in _DTYPES]
    if odd:
        raise AdapterDamagedError("shape", f"{odd[0]} must hold float64, float32, float16 or bfloat16")
    return tensors
