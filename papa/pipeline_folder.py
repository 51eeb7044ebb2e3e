"""A backbone as files: where they lie, and whether they are a pipeline that can be served, told without torch.

Everything that JSON files and file names can tell is checked here; `papa.denoiser.load_denoiser` checks the weights
and runs the networks once. Every refusal is one line that says what is wrong, where, and what would work.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).parent / "backbone" / "weights"
"""The backbones that come with the package, each a standard diffusers folder."""

JUDGED_BY = {"fashion_mnist_text": "fashion_mnist", "fashion_mnist_flow": "fashion_mnist"}
"""Shipped backbones without a classifier of their own, and the one whose classifier knows their pictures."""

POOL_FILE = "pool.safetensors"
"""A backbone's own samples (papa.pool), in its folder where it has any."""

HASH_VERSION = "2-"
"""The prefix of a backbone's hash. Hashes of the former version have no such prefix: they cover the weights,
the noise schedule and the kind of prediction, and nothing else of the configuration."""

INDEX_FILE = "model_index.json"
PARTS = (
    "unet", "transformer", "vae", "scheduler", "text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer",
    "tokenizer_2", "tokenizer_3",
)  # fmt: skip
"""The components of a pipeline that are used; nothing else is downloaded."""


@dataclass(frozen=True)
class Layout:
    """The components that a pipeline needs, the denoising network first, each with the classes that can be used.

    `flow`: the network was trained by rectified flow instead of a DDPM. `optional` may be null in the index.
    """

    parts: Mapping[str, tuple[str, ...]]
    flow: bool = False
    optional: frozenset[str] = frozenset()


_CLIP = ("CLIPTokenizer", "CLIPTokenizerFast")
_T5 = ("T5Tokenizer", "T5TokenizerFast")
_GEMMA = ("GemmaTokenizer", "GemmaTokenizerFast")
_QWEN = ("Qwen2Tokenizer", "Qwen2TokenizerFast")
_PROJECTED = ("CLIPTextModelWithProjection",)
_VAE = {"scheduler": (), "vae": ("AutoencoderKL",)}
_PIXELS = Layout({"unet": ("UNet2DModel",), "scheduler": ()})
_STABLE = {
    "unet": ("UNet2DConditionModel",),
    **_VAE,
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": _CLIP,
}
_PIXART = Layout(
    {
        "transformer": ("PixArtTransformer2DModel", "Transformer2DModel"),
        **_VAE,
        "text_encoder": ("T5EncoderModel",),
        "tokenizer": _T5,
    }
)
PIPELINES: Mapping[str, Layout] = {
    "DDPMPipeline": _PIXELS,
    "DDIMPipeline": _PIXELS,
    "PNDMPipeline": _PIXELS,
    "StableDiffusionPipeline": Layout(_STABLE),
    "StableDiffusionXLPipeline": Layout({**_STABLE, "text_encoder_2": _PROJECTED, "tokenizer_2": _CLIP}),
    "DiTPipeline": Layout({"transformer": ("DiTTransformer2DModel", "Transformer2DModel"), **_VAE}),
    "PixArtAlphaPipeline": _PIXART,
    "PixArtSigmaPipeline": _PIXART,
    "StableDiffusion3Pipeline": Layout(
        {
            "transformer": ("SD3Transformer2DModel",),
            **_VAE,
            "text_encoder": _PROJECTED,
            "text_encoder_2": _PROJECTED,
            "text_encoder_3": ("T5EncoderModel",),
            "tokenizer": _CLIP,
            "tokenizer_2": _CLIP,
            "tokenizer_3": _T5,
        },
        flow=True,
        optional=frozenset(f"{part}{suffix}" for part in ("text_encoder", "tokenizer") for suffix in ("", "_2", "_3")),
    ),
    "FluxPipeline": Layout(
        {
            "transformer": ("FluxTransformer2DModel",),
            **_VAE,
            "text_encoder": ("CLIPTextModel",),
            "text_encoder_2": ("T5EncoderModel",),
            "tokenizer": _CLIP,
            "tokenizer_2": _T5,
        },
        flow=True,
    ),
    "SanaPipeline": Layout(
        {
            "transformer": ("SanaTransformer2DModel",),
            "scheduler": (),
            "vae": ("AutoencoderDC",),
            "text_encoder": ("Gemma2Model",),
            "tokenizer": _GEMMA,
        },
        flow=True,
    ),
    "ZImagePipeline": Layout(
        {
            "transformer": ("ZImageTransformer2DModel",),
            **_VAE,
            "text_encoder": ("Qwen3Model",),
            "tokenizer": _QWEN,
        },
        flow=True,
    ),
}
"""The pipelines that can be served."""

_TOKENIZERS: Mapping[tuple[str, ...], tuple[str, str, tuple[str, ...]]] = {
    _CLIP: ("CLIP's byte-pair one", "BPE", ("vocab.json", "merges.txt")),
    _T5: ("T5's unigram one", "Unigram", ("spiece.model",)),
    _GEMMA: ("Gemma's byte-pair one", "BPE", ("tokenizer.model",)),
    _QWEN: ("Qwen's byte-pair one", "BPE", ("vocab.json", "merges.txt")),
}
"""By its classes: what a tokenizer is called, its kind in tokenizer.json, and the older files that may stand for it."""

DEFAULT_SIZE = 128
"""Height and width of latents where a transformer's configuration has no sample_size: pictures of 1024 × 1024."""

_SCHEDULERS = frozenset(
    f"{name}Scheduler"
    for name in (
        "DDPM", "DDPMParallel", "DDIM", "DDIMParallel", "PNDM", "LMSDiscrete", "EulerDiscrete",
        "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete", "DPMSolverMultistep",
        "DPMSolverSinglestep", "DPMSolverSDE", "DEISMultistep", "UniPCMultistep", "SASolver",
    )
)  # fmt: skip
"""Schedulers of the DDPM noise schedule. Which of them it is does not matter: the samplers are ours."""

_FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
"""Schedulers of rectified flow, beside those of _SCHEDULERS that have `use_flow_sigmas`."""

PREDICTIONS = ("epsilon", "v_prediction", "sample")
FLOW_PREDICTION = "flow_prediction"


class BackboneRefused(ValueError):
    """The backbone cannot be served. The message is one line: what is wrong, where, and what would work."""


@dataclass(frozen=True)
class Weights:
    """The weight files of a component that are used. `variant` is diffusers' ("fp16"), None for the plain files."""

    files: tuple[str, ...]
    safetensors: bool
    variant: str | None


@dataclass(frozen=True)
class PipelineFolder:
    """A folder that passed every check that its JSON files and file names allow. `pipeline` is the class's name."""

    path: Path
    pipeline: str
    index: Mapping[str, Any]

    @property
    def parts(self) -> tuple[str, ...]:
        """The components that the pipeline has and that are used."""
        layout = self.layout
        absent = {part for part in layout.optional if self.index.get(part) in (None, [None, None])}
        return tuple(part for part in layout.parts if part not in absent)

    def path_of(self, part: str) -> Path:
        """The folder of a component: its own, or the root, as in the first DDPM repositories."""
        folder = self.path / part
        return self.path if "vae" not in self.parts and not folder.is_dir() else folder

    def config(self, part: str) -> Mapping[str, Any]:
        """A component's configuration as published."""
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        return read_json(self.path_of(part) / name)

    @cached_property
    def network(self) -> str:
        """The component that denoises."""
        return next(iter(self.layout.parts))

    @property
    def layout(self) -> Layout:
        """The layout that its pipeline needs."""
        return PIPELINES[self.pipeline]

    @property
    def flow(self) -> bool:
        """Whether the network was trained by rectified flow: by its class, or a U-Net by its scheduler."""
        return self.layout.flow or self.solves_flow

    @property
    def solves_flow(self) -> bool:
        """Whether the scheduler is a solver of diffusion that is set to rectified flow."""
        config = self.config("scheduler")
        flow = bool(config.get("use_flow_sigmas")) and config.get("prediction_type") == FLOW_PREDICTION
        return flow and config.get("_class_name") in _SCHEDULERS

    def weights(self, part: str) -> Weights:
        """Raises BackboneRefused when a component has none, or git-lfs pointers instead."""
        folder = self.path_of(part)
        stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
        found = choose_weights((path.name for path in folder.iterdir()), stem)
        if found is None:
            raise BackboneRefused(f"{folder} holds no weights; {stem}.safetensors is wanted")
        for name in found.files:
            with (folder / name).open("rb") as file:
                if file.read(42).startswith(b"version https://git-lfs"):
                    raise BackboneRefused(f"{folder / name} is a git-lfs pointer, not weights; fetch it: git lfs pull")
        return found


def resolve_backbone(backbone: str, weights: bool = True) -> Path:
    """The local folder of a shipped name, a folder or a hub id ("owner/name" or "owner/name@revision"), which is
    downloaded, its JSON files alone without `weights`. Raises FileNotFoundError with what was tried."""
    folder = local_folder(backbone)
    return download(backbone, weights) if folder is None else folder


def local_folder(backbone: str) -> Path | None:
    """The folder of a shipped name or of a pipeline on this machine, None for a hub id. Raises FileNotFoundError when
    it is none of them."""
    if backbone in shipped_names():
        return SHIPPED / backbone
    folder = _expanded(backbone)
    signs = (INDEX_FILE, "unet/config.json", "transformer/config.json")
    if backbone and any(_exists(folder / name) for name in signs):
        return folder
    if backbone and _exists(folder):
        raise FileNotFoundError(f"no backbone {backbone!r}: no diffusers folder, which holds a {INDEX_FILE}")
    if not _HUB_ID.fullmatch(backbone):
        shipped = ", ".join(shipped_names())
        raise FileNotFoundError(f"no backbone {backbone!r}: neither a shipped name ({shipped}) nor a diffusers folder "
                                "nor a hub id (owner/name or owner/name@revision)")  # fmt: skip
    return None


def shipped_names() -> list[str]:
    """The names of the backbones that come with the package."""
    return sorted(path.name for path in SHIPPED.iterdir() if path.is_dir()) if SHIPPED.is_dir() else []


def download(hub_id: str, weights: bool = True) -> Path:
    """The snapshot of a hub id, with one set of weights per component; the cached one where the hub is not reached.

    Its JSON files come first and are checked, so that a pipeline which cannot be served costs no gigabytes. Without
    `weights` nothing else is fetched. Raises FileNotFoundError with the hub's answer, and BackboneRefused.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # which it keeps for other libraries

    name, _, named = hub_id.partition("@")
    revision, unreached = named or None, "the hub is not asked (HF_HUB_OFFLINE)"
    try:
        files: list[str] = []
        if not constants.HF_HUB_OFFLINE:
            try:
                info = HfApi().model_info(name, revision=revision)
                files = wanted_files([file.rfilename for file in info.siblings or []])
            except httpx.TransportError as error:
                unreached = f"the hub is not reached ({error})"
        if not files:
            return Path(snapshot_download(name, revision=revision, local_files_only=True))
        small = [file for file in files if file.endswith((".json", ".txt"))]
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=small))
        inspect_folder(folder)
        return Path(snapshot_download(name, revision=revision, allow_patterns=files)) if weights else folder
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(f"no backbone {hub_id!r}: not a folder, {unreached}, and it is not cached") from error
    except (httpx.HTTPError, OSError) as error:
        reason = " ".join(str(error).split())
        raise FileNotFoundError(f"no backbone {hub_id!r}: not a folder, and the hub says: {reason}") from error


def wanted_files(names: Iterable[str]) -> list[str]:
    """The files of a repository to download: all small ones of the used components, and one set of weights each."""
    by_folder: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder in ("", *PARTS):
            by_folder.setdefault(folder, []).append(file)
    wanted = []
    for folder, files in by_folder.items():
        stem = "model" if folder.startswith("text_encoder") else "diffusion_pytorch_model"
        # At the root lie single-file copies of whole pipelines as well; where a network lies there, no folder has one.
        weights = choose_weights(files, stem) if folder or not {"unet", "transformer"} & set(by_folder) else None
        small = [
            file for file in files if file.endswith((".json", ".txt", ".jinja")) or file in (POOL_FILE, "spiece.model")
        ]
        chosen = [*small, *(weights.files if weights else ())]
        wanted += [f"{folder}/{file}" if folder else file for file in dict.fromkeys(chosen)]
    return wanted


def choose_weights(names: Iterable[str], stem: str) -> Weights | None:
    """The plain safetensors, else the plain .bin, else those of a variant such as fp16; shards count as one."""
    present = sorted(names)
    choices: dict[tuple[bool, bool, bool, str], list[str]] = {}
    for suffix, name in (("safetensors", stem), ("bin", "pytorch_model" if stem == "model" else stem)):
        whole = re.compile(rf"{name}(?:\.(?P<variant>\w+))?\.{suffix}(?P<index>\.index(?:\.(?P<other>\w+))?\.json)?")
        for file in present:
            if match := whole.fullmatch(file):
                variant = match["variant"] or match["other"] or ""
                # Training weights (non_ema) come last of all.
                key = ("non_ema" in variant, variant != "", suffix == "bin", variant)
                shard = re.compile(rf"{name}(?:\.{variant})?-\d+-of-\d+(?:\.{variant})?\.{suffix}")
                shards = [each for each in present if shard.fullmatch(each)] if match["index"] else []
                choices.setdefault(key, []).extend([file, *shards])
    if not choices:
        return None
    key = min(choices)
    return Weights(tuple(choices[key]), not key[2], key[3] or None)


def inspect_folder(path: Path) -> PipelineFolder:
    """Checks the pipeline's class, its components and their configurations. Raises BackboneRefused."""
    index = read_json(path / INDEX_FILE) if (path / INDEX_FILE).is_file() else {}
    pipeline = str(index.get("_class_name") or _inferred(path))
    if pipeline not in PIPELINES:
        raise BackboneRefused(f"{path} is a {pipeline}, which cannot be served; supported are: {', '.join(PIPELINES)}")
    folder = PipelineFolder(path, pipeline, index)
    for part in folder.parts:
        _check_component(folder, part)
    _check_network(folder)
    _check_scheduler(folder)
    if pipeline == "StableDiffusionXLPipeline" and index.get("requires_aesthetics_score"):
        raise BackboneRefused(f"{path} is an XL refiner, which needs a picture to refine; use the base pipeline")
    return folder


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object. Raises BackboneRefused."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise BackboneRefused(f"{path} is missing; save the whole pipeline with save_pretrained") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BackboneRefused(f"{path} is not JSON; copy the pipeline again") from error
    if not isinstance(content, dict):
        raise BackboneRefused(f"{path} is not a JSON object; copy the pipeline again")
    return content


def sample_size(folder: PipelineFolder) -> tuple[int, int]:
    """Height and width of x. Raises BackboneRefused."""
    size = folder.config(folder.network).get("sample_size", DEFAULT_SIZE if folder.layout.flow else None)
    pair = [size, size] if isinstance(size, int) else size
    if not isinstance(pair, list) or len(pair) != 2 or not all(type(each) is int and each > 0 for each in pair):
        where = folder.path_of(folder.network) / "config.json"
        raise BackboneRefused(f"{where}: sample_size is {size!r}; write the size of the samples that it was trained on")
    return pair[0], pair[1]


_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}(?:@[\w./-]{1,200})?", re.ASCII)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long a name, or a null byte
        return False


def _expanded(backbone: str) -> Path:
    """The path with "~" replaced by the home folder, if there is one."""
    try:
        return Path(backbone).expanduser()
    except RuntimeError:
        return Path(backbone)


def _inferred(path: Path) -> str:
    """The pipeline of a folder without an index, by the class of its network."""
    if (path / "vqvae").is_dir():
        return "LDMPipeline"
    part = "transformer" if (path / "transformer").is_dir() else "unet"
    config = read_json(path / part / "config.json")
    kind = config.get("_class_name", "UNet2DModel")
    if kind == "UNet2DModel" and not (path / "vae").is_dir():
        return "DDPMPipeline"
    if kind == "UNet2DConditionModel":
        return "StableDiffusionXLPipeline" if config.get("addition_embed_type") else "StableDiffusionPipeline"
    dit = PIPELINES["DiTPipeline"].parts["transformer"]
    return "DiTPipeline" if part == "transformer" and kind in dit else f"pipeline of a {kind}"


def _check_component(folder: PipelineFolder, part: str) -> None:
    """Its entry in the index, its presence, and the class that its own configuration names."""
    wanted = folder.layout.parts[part]
    entry = folder.index.get(part)
    if folder.index.get("_class_name") and part not in folder.index:
        raise BackboneRefused(f"{folder.path / INDEX_FILE} names no {part}, which a {folder.pipeline} needs")
    library, named = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
    if entry is not None and (library not in ("diffusers", "transformers") or (wanted and named not in wanted)):
        supported = " or ".join(wanted) or "one of diffusers"
        raise BackboneRefused(f"{folder.path / INDEX_FILE}: the {part} of a {folder.pipeline} is {library}.{named}; "
                              f"supported is {supported}")  # fmt: skip
    if part.startswith("tokenizer"):
        _check_tokenizer(folder.path / part, wanted)
        return
    config = folder.config(part)
    if part == "scheduler":
        return
    own = config.get("_class_name") or next(iter(config.get("architectures") or []), None)
    if own is not None and own not in wanted:
        where = folder.path_of(part) / "config.json"
        raise BackboneRefused(f"{where}: the {part} is a {own}; supported is {' or '.join(wanted)}")


def _check_tokenizer(folder: Path, classes: tuple[str, ...]) -> None:
    """The vocabulary must be there: without it a tokenizer comes up empty and every prompt is the same."""
    name, wanted, older = _TOKENIZERS[classes]
    if (folder / "tokenizer.json").is_file():
        model = read_json(folder / "tokenizer.json").get("model")
        model = model if isinstance(model, dict) else {}
        kind = model.get("type")
        if kind != wanted or not model.get("vocab"):
            raise BackboneRefused(f"{folder / 'tokenizer.json'} is a {kind} tokenizer; {name} is wanted")
    elif missing := [file for file in older if not (folder / file).is_file()]:
        whole = f"tokenizer.json, or {' and '.join(older)}"
        lacking = " and ".join(missing)
        raise BackboneRefused(f"{folder} lacks {lacking}; copy the whole tokenizer of the text encoder ({whole})")
    if not (folder / "tokenizer_config.json").is_file():
        return
    kind = read_json(folder / "tokenizer_config.json").get("tokenizer_class")
    if kind not in (None, *classes, "PreTrainedTokenizerFast", "TokenizersBackend"):
        raise BackboneRefused(f"{folder} is a {kind}; supported is {' or '.join(classes)}")


def _check_network(folder: PipelineFolder) -> None:
    """What the network takes beside x, t and a prompt, and the shapes that go in and out."""
    config, part = folder.config(folder.network), folder.network
    where = folder.path_of(part) / "config.json"
    odd = [name for name in _UNSUPPORTED if config.get(name)]
    kind = config.get("addition_embed_type")
    if kind not in (None, "text_time") or (kind is None) is (folder.pipeline == "StableDiffusionXLPipeline"):
        odd.append(f"addition_embed_type {kind!r}")
    if config.get("time_embedding_type") == "fourier":
        odd.append("time_embedding_type 'fourier'")
    if part == "unet" and odd:
        raise BackboneRefused(f"{where}: {', '.join(odd)} not supported; a unet may take x, t and a prompt alone")
    _check_transformer(folder, config, where)
    height, width = sample_size(folder)
    channels = config.get("in_channels", 4 if "vae" in folder.parts else 3)
    out = config.get("out_channels", 4 if "vae" in folder.parts else 3)
    if "vae" in folder.parts:
        _check_vae(folder, channels // 4 if folder.pipeline == "FluxPipeline" else channels)
    variance = str(folder.config("scheduler").get("variance_type") or "").startswith("learned")
    if part == "unet" and out != channels and not (variance and channels and out == 2 * channels):
        raise BackboneRefused(
            f"{where}: {channels} channels go in and {out} come out; as many, or twice as many with a learned variance"
        )
    if "vae" in folder.parts:
        return
    if channels not in (1, 3):
        raise BackboneRefused(f"{where}: pictures of {channels} channels are not supported; 1 (grey) or 3 (RGB) are")
    if any(side % (step := 2 ** (len(config.get("block_out_channels", [0])) - 1)) for side in (height, width)):
        raise BackboneRefused(f"{where}: a sample_size of {height}×{width} cannot be halved as often as the unet has "
                              f"levels; multiples of {step} can")  # fmt: skip


def _check_transformer(folder: PipelineFolder, config: Mapping[str, Any], where: Path) -> None:
    """DiT and PixArt were both published as Transformer2DModel; SANA may take a guidance that requests do not have."""
    wanted = {"DiTPipeline": "ada_norm_zero", "PixArtAlphaPipeline": "ada_norm_single"}
    wanted["PixArtSigmaPipeline"] = wanted["PixArtAlphaPipeline"]
    norm = wanted.get(folder.pipeline)
    if norm and config.get("norm_type", norm) != norm:
        raise BackboneRefused(f"{where}: norm_type {config['norm_type']!r} is not that of a {folder.pipeline}, which "
                              f"is {norm} (DiT and PixArt share a class name)")  # fmt: skip
    if folder.pipeline == "SanaPipeline" and config.get("guidance_embeds"):
        raise BackboneRefused(f"{where}: guidance_embeds (SANA-Sprint) is not supported; plain SANA is")


_UNSUPPORTED = ("num_class_embeds", "class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim")


def _check_vae(folder: PipelineFolder, channels: object) -> None:
    where, config = folder.path_of("vae") / "config.json", folder.config("vae")
    if config.get("latents_mean") is not None:
        raise BackboneRefused(f"{where}: latents_mean is not supported; a plain AutoencoderKL with scaling_factor is")
    latents = config.get("latent_channels", 4)
    if latents != channels:
        raise BackboneRefused(f"{where}: latents of {latents} channels, but the {folder.network} takes {channels}; "
                              "models that edit a picture (inpainting, instructions) are not supported")  # fmt: skip
    ins = config.get("in_channels", 3)
    outs = config.get("out_channels", ins)
    if ins != outs or outs not in (1, 3):
        raise BackboneRefused(f"{where}: pictures of {ins} to {outs} channels; 1 (grey) or 3 (RGB) on both sides work")


def _check_scheduler(folder: PipelineFolder) -> None:
    where, config = folder.path / "scheduler", folder.config("scheduler")
    kind = config.get("_class_name")
    if folder.solves_flow and (folder.layout.flow or folder.pipeline == "StableDiffusionPipeline"):
        return
    if folder.layout.flow:
        if kind not in _FLOW_SCHEDULERS:
            raise BackboneRefused(f"{where}: a {kind} has no noise schedule of flow matching, with which a "
                                  f"{folder.pipeline} was trained; a {_FLOW_SCHEDULERS[0]} has")  # fmt: skip
        return
    if kind is not None and kind not in _SCHEDULERS:
        raise BackboneRefused(f"{where}: a {kind} has no noise schedule of the DDPM kind; a DDPM or DDIM scheduler has")
    if "beta_schedule" not in config or config.get("use_flow_sigmas"):
        raise BackboneRefused(f"{where}: the {kind} has no noise schedule of the DDPM class; "
                              "a beta_schedule without use_flow_sigmas is wanted")  # fmt: skip
    prediction_type(config, where)


def prediction_type(config: Mapping[str, Any], where: Path) -> str:
    """The network's kind of prediction, by default epsilon. Raises BackboneRefused for anything unknown."""
    old = "epsilon" if config.get("predict_epsilon", True) else "sample"
    kind = config.get("prediction_type", old)
    if kind not in PREDICTIONS:
        raise BackboneRefused(f"{where}: prediction_type is {kind!r}; supported are {', '.join(PREDICTIONS)}")
    return str(kind)
