"""A revision as files: the adapter in peft's LoRA format, the replay, and a manifest that vouches for both.

| file | content |
|---|---|
| adapter_config.json, adapter_model.safetensors | what plain peft loads |
| state.safetensors | what learning goes on from: the replay's samples, grades and features, and the last iterate |
| taste.safetensors | how likely the user likes any sample (papa.taste.Head); missing while the labels do not say so |
| manifest.json | backbone hash, parent, consumed events, configuration, sha256 and size of every other file |

safetensors loads a bit-flipped tensor without a word, so nothing is used before its sha256 was compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from papa.adapter import Adapter
from papa.config import UpdateConfig
from papa.lora import AdapterLayout
from papa.regions import Regions
from papa.replay import Replay
from papa.taste import FOURIER, Head

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
STATE_FILE = "state.safetensors"
MANIFEST_FILE = "manifest.json"
HEAD_FILE = "taste.safetensors"
FORMAT = 1
HALF_PRECISION = 2**-7
"""Largest relative error of a number that was stored in bfloat16."""


class AdapterDamagedError(ValueError):
    """The files do not make a whole adapter of this backbone.

    `reason` is one of checksum, format, shape, finite, backbone, frozen.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Origin:
    """The origin of a revision, as recorded in its manifest.

    `events` are the ids of the consumed events, in order, with the user's sequence numbers `first_sequence` to
    `last_sequence`. `created_at` is in seconds since the epoch.
    """

    backbone_hash: str
    parent: str
    created_at: float
    events: tuple[str, ...] = ()
    first_sequence: int = 0
    last_sequence: int = 0
    seed: int = 0
    stats: Mapping[str, float] = field(default_factory=dict)


def pack(adapter: Adapter, layout: AdapterLayout, config: UpdateConfig, origin: Origin) -> dict[str, bytes]:
    """The files of a revision; the manifest's sha256 (see `digest`) vouches for all of them."""
    files = {
        CONFIG_FILE: json.dumps(_peft_config(layout), indent=1).encode(),
        WEIGHTS_FILE: save(_peft_tensors(adapter.weights, layout)),
        STATE_FILE: save(_state_tensors(adapter)),
    }
    if adapter.head is not None:
        files[HEAD_FILE] = save(_head_tensors(adapter.head))
    manifest = {
        "format": FORMAT,
        "backbone": origin.backbone_hash,
        **{name: value for name, value in asdict(origin).items() if name != "backbone_hash"},
        "lora": asdict(layout.config),
        "update": asdict(config),
        "files": {name: {"sha256": digest(data), "size": len(data)} for name, data in files.items()},
    }
    return {**files, MANIFEST_FILE: json.dumps(manifest, indent=1).encode()}


def digest(data: bytes) -> str:
    """sha256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def unpack_weights(files: Mapping[str, bytes], layout: AdapterLayout, hashes: tuple[str, ...], sha256: str) -> Tensor:
    """The weights [P] alone, checked: all a generator needs. `files` holds manifest and weights; `sha256` is the
    manifest's; `hashes` are those by which it may name the backbone (`Denoiser.hashes`).

    Raises AdapterDamagedError.
    """
    manifest = _verified_manifest(files, sha256)
    if manifest["backbone"] not in hashes:
        raise AdapterDamagedError("backbone", "the adapter was made for another backbone")
    tensors = read_tensors(_verified(files, manifest, WEIGHTS_FILE))
    lora = manifest["lora"]
    return flat_weights(tensors, layout, int(lora["rank"]), float(lora["alpha"]))


def unpack(files: Mapping[str, bytes], layout: AdapterLayout, hashes: tuple[str, ...], sha256: str) -> Adapter:
    """Weights and state, checked: what the next update builds on. Raises AdapterDamagedError."""
    weights = unpack_weights(files, layout, hashes, sha256)
    manifest = _verified_manifest(files, sha256)
    tensors = read_tensors(_verified(files, manifest, STATE_FILE))
    iterate = _read_iterate(tensors, layout, layout.at_rank(int(manifest["lora"]["rank"]), manifest["lora"]["alpha"]))
    replay = _read_replay(tensors)
    head = unpack_head(files, sha256) if HEAD_FILE in files else None
    return Adapter(weights, replay, iterate, head)


def unpack_replay(files: Mapping[str, bytes], sha256: str) -> Replay:
    """The replay of a revision alone, checked. `files` holds manifest and state. Raises AdapterDamagedError."""
    return _read_replay(read_tensors(_verified(files, _verified_manifest(files, sha256), STATE_FILE)))


def _read_replay(tensors: Mapping[str, Tensor]) -> Replay:
    """Raises AdapterDamagedError."""
    try:
        return read_replay(tensors)
    except KeyError as error:
        raise AdapterDamagedError("format", f"the replay lacks {error}") from error


def _read_iterate(tensors: Mapping[str, Tensor], layout: AdapterLayout, former: AdapterLayout) -> Tensor | None:
    """The iterate, padded as the weights are where it was made at a lower rank. Raises AdapterDamagedError."""
    iterate = tensors.get(_ITERATE)
    if iterate is None:
        return None
    if iterate.shape != (former.size,):
        raise AdapterDamagedError("shape", f"the iterate is {tuple(iterate.shape)}, not {(former.size,)}")
    if not bool(torch.isfinite(iterate).all()):
        raise AdapterDamagedError("finite", "the iterate holds values that are not finite")
    return iterate if former.config == layout.config else layout.padded(iterate, former)


def has_head(manifest: bytes) -> bool:
    """Whether the revision with this manifest, which was checked before, has a taste head."""
    return HEAD_FILE in json.loads(manifest)["files"]


def unpack_head(files: Mapping[str, bytes], sha256: str) -> Head:
    """The taste head of a revision that has one, checked. Raises AdapterDamagedError."""
    return read_head(read_tensors(_verified(files, _verified_manifest(files, sha256), HEAD_FILE)))


def read_head(tensors: Mapping[str, Tensor]) -> Head:
    """Raises AdapterDamagedError for anything that is no head."""
    if missing := {*_HEAD_FIELDS, _CALIBRATION} - set(tensors):
        raise AdapterDamagedError("format", f"{HEAD_FILE} lacks {', '.join(sorted(missing))}")
    width, calibration = (tensors["mean"].numel(),), tensors[_CALIBRATION]
    shapes = {"mean": width, "deviation": width, "coefficients": (FOURIER,), _CALIBRATION: (3,)}
    for name, shape in shapes.items():
        tensor, dtype = tensors[name], torch.float64 if name == _CALIBRATION else torch.float32
        if tensor.dtype != dtype or tuple(tensor.shape) != shape or not tensor.numel():
            raise AdapterDamagedError("shape", f"{HEAD_FILE}: {name} is {tensor.dtype} {tuple(tensor.shape)}")
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterDamagedError("finite", f"{HEAD_FILE}: {name} holds values that are not finite")
    distance, slope, intercept = calibration.tolist()
    if distance <= 0 or slope < 0 or not bool((tensors["deviation"] >= _LEAST_DEVIATION).all()):
        raise AdapterDamagedError("finite", f"{HEAD_FILE}: a distance, a deviation or the slope is out of range")
    mean, deviation, coefficients = (tensors[name] for name in _HEAD_FIELDS)
    head = Head(mean, deviation, coefficients, distance, calibration=(slope, intercept))
    return _with_pool_fields(head, tensors) if _LABELS in tensors else head


def _with_pool_fields(head: Head, tensors: Mapping[str, Tensor]) -> Head:
    """Adds what heads have since they know regions and questions. Raises AdapterDamagedError."""
    none = torch.zeros(0)
    labels, centres, typical, questions = (tensors.get(name, none) for name in (_LABELS, *_POOL_FIELDS))
    regions = len(centres) if centres.ndim == 2 else 0
    whole = (
        (labels.dtype, labels.shape) == (torch.int64, (1,))
        and int(labels) > 0
        and (typical.dtype, typical.shape) == (torch.float32, (regions,))
        and (not regions or (centres.dtype, centres.shape[1]) == (torch.float16, head.mean.numel()))
        and bool(centres.isfinite().all())
        and bool(((typical > 0) & (typical <= 1)).all())
        and (not questions.numel() or (questions.dtype, questions.ndim) == (torch.int64, 1))
        and bool((questions >= 0).all())
    )
    if not whole:
        raise AdapterDamagedError("shape", f"{HEAD_FILE}: its labels, regions or questions are malformed")
    asked = tuple(int(seed) for seed in questions)
    if not regions:
        return replace(head, labels=int(labels), questions=asked)
    return replace(head, labels=int(labels), questions=asked, regions=Regions(centres.float()), typical_chances=typical)


_REPLAY_FIELDS = ("samples", "grades", "features")
_PROMPTS = "prompts"
_SEQUENCES = "sequences"
_ITERATE = "iterate"
_HEAD_FIELDS = ("mean", "deviation", "coefficients")
_LABELS = "labels"
_POOL_FIELDS = ("centres", "typical", "questions")
_CALIBRATION = "calibration"
"""The kernel's distance, then the slope and the intercept."""
_LEAST_DEVIATION = 0.99e-6
"""papa.taste adds 1e-6 to each deviation; rounded to float32 that is a little less."""


def _head_tensors(head: Head) -> dict[str, Tensor]:
    tensors = {name: getattr(head, name).contiguous() for name in _HEAD_FIELDS}
    tensors[_CALIBRATION] = torch.tensor([head.distance, *head.calibration], dtype=torch.float64)
    if head.labels:
        tensors[_LABELS] = torch.tensor([head.labels])
    if head.regions is not None and head.typical_chances is not None:
        tensors |= {"centres": head.regions.centres.half(), "typical": head.typical_chances}
    if head.questions:
        tensors["questions"] = torch.tensor(head.questions)
    return tensors


def _state_tensors(adapter: Adapter) -> dict[str, Tensor]:
    """Prompts are stored as the bytes of a JSON list, and only if there are any."""
    replay = adapter.replay
    tensors = {name: getattr(replay, name).contiguous() for name in _REPLAY_FIELDS}
    if replay.prompts:
        tensors[_PROMPTS] = torch.tensor(list(json.dumps(replay.prompts).encode()), dtype=torch.uint8)
    if replay.sequences:
        tensors[_SEQUENCES] = torch.tensor(replay.sequences, dtype=torch.int64)
    if adapter.iterate is not None:
        tensors[_ITERATE] = adapter.iterate.contiguous()
    return tensors


def read_replay(tensors: Mapping[str, Tensor]) -> Replay:
    """Reads the replay. Raises KeyError for a missing part, AdapterDamagedError for malformed prompts."""
    replay = Replay(tensors["samples"], tensors["grades"], tensors["features"])
    if _SEQUENCES in tensors and tensors[_SEQUENCES].shape == replay.grades.shape:
        replay = replace(replay, sequences=tuple(int(number) for number in tensors[_SEQUENCES]))
    if _PROMPTS not in tensors:
        return replay
    try:
        prompts = json.loads(bytes(tensors[_PROMPTS].flatten().tolist()))
    except (ValueError, TypeError, RecursionError) as error:
        raise AdapterDamagedError("format", "the replay's prompts are not JSON") from error
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise AdapterDamagedError("format", "the replay's prompts are not a list of texts")
    return replace(replay, prompts=tuple(prompts))


def _peft_config(layout: AdapterLayout) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": layout.config.rank,
        "lora_alpha": layout.config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [layer.name for layer in layout.layers],
    }


def _peft_tensors(weights: Tensor, layout: AdapterLayout) -> dict[str, Tensor]:
    tensors = {}
    for layer in layout.layers:
        a, b = layer.a(weights[None])[0], layer.b(weights[None])[0]
        tensors[_key(layer.name, "A")] = a.contiguous()
        tensors[_key(layer.name, "B")] = (b[..., None, None] if layer.kind == "conv" else b).contiguous()
    return tensors


def flat_weights(tensors: Mapping[str, Tensor], layout: AdapterLayout, rank: int, alpha: float) -> Tensor:
    """The flat vector [P] of peft's tensors. A lower rank is padded with zeros and another scale goes into B, which
    leaves s B A as it is. Raises AdapterDamagedError."""
    if not 1 <= rank <= layout.config.rank:
        raise AdapterDamagedError("shape", f"rank {rank} does not fit the deployment's rank {layout.config.rank}")
    if set(tensors) != {_key(layer.name, part) for layer in layout.layers for part in "AB"}:
        raise AdapterDamagedError("shape", "the adapted layers are not the deployment's")
    flat, scale = torch.zeros(1, layout.size), alpha / rank / layout.config.scale
    for layer in layout.layers:
        a, b = tensors[_key(layer.name, "A")].float(), tensors[_key(layer.name, "B")].float()
        b = b.flatten(1) if b.ndim > 1 else b
        if a.shape != (rank, *layer.a_shape[1:]) or b.shape != (layer.b_shape[0], rank):
            raise AdapterDamagedError("shape", f"{layer.name}: shapes {tuple(a.shape)}, {tuple(b.shape)}")
        if not bool(torch.isfinite(a).all()):
            raise AdapterDamagedError("finite", f"{layer.name}: A holds values that are not finite")
        if not layer.frozen:
            layer.a(flat)[0, :rank] = a
        elif not torch.allclose(a, layer.frozen_a()[:rank], rtol=HALF_PRECISION, atol=HALF_PRECISION**2):
            raise AdapterDamagedError(
                "frozen", f"{layer.name}: its A is not the one that all adapters of this deployment share"
            )
        layer.b(flat)[0, :, :rank] = b * scale
    if not bool(torch.isfinite(flat).all()):
        raise AdapterDamagedError("finite", "the adapter holds values that are not finite")
    return flat[0]


def _key(layer: str, part: str) -> str:
    return f"base_model.model.{layer}.lora_{part}.weight"


def _verified_manifest(files: Mapping[str, bytes], sha256: str) -> dict[str, Any]:
    data = files.get(MANIFEST_FILE, b"")
    if digest(data) != sha256:
        raise AdapterDamagedError("checksum", "the manifest is not the one that was committed")
    manifest: dict[str, Any] = json.loads(data)
    if manifest["format"] != FORMAT:
        raise AdapterDamagedError("format", f"format {manifest['format']} is not {FORMAT}")
    return manifest


def _verified(files: Mapping[str, bytes], manifest: Mapping[str, Any], name: str) -> bytes:
    data = files.get(name, b"")
    if digest(data) != manifest["files"][name]["sha256"]:
        raise AdapterDamagedError("checksum", f"{name} is not the one that was committed")
    return data


def read_tensors(data: bytes) -> dict[str, Tensor]:
    """A safetensors file. Raises AdapterDamagedError."""
    try:
        return load(data)
    except SafetensorError as error:
        raise AdapterDamagedError("format", f"not a safetensors file: {error}") from error
