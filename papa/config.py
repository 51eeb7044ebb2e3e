"""Every knob of learning, in one frozen dataclass; docs/results/demo.md says what its defaults reach."""

from __future__ import annotations

from dataclasses import dataclass

from papa.lora import LoraConfig


@dataclass(frozen=True)
class UpdateConfig:
    """One interaction step's update. γ = 1 throughout: with Adam only the ratios to it matter."""

    adapt_from: int = 400
    """K: timesteps below it stay the backbone's, in training and in sampling (0 is PAPA, more is EPAPA)."""
    use_likes: bool = True
    """L^p on or off."""
    enhancer: float = 1.0
    """Weight of the bounded L^PAE on the disliked samples; 0 switches it off."""
    enhancer_beta: float = 500.0
    """β of the bounded L^PAE: how soon forgetting is enough, in units of 1 / (mean squared error)."""
    like_beta: float = 500.0
    """β of the bounded L^p: how soon liking is enough; 0 is L^p as published."""
    eta: float = 0.0
    """η: weight of L^QPDE; 0 switches it off: the bounded terms already hold the model near the backbone."""
    steps: int = 6
    """Adam steps of one update."""
    like_rows: int = 24
    """Rows of one step drawn from the liked samples, each with a timestep of its own."""
    dislike_rows: int = 8
    """Rows of one step drawn from the disliked samples."""
    learning_rate: float = 2e-2
    weight_decay: float = 0.003
    """Share by which every learnt weight shrinks per Adam step, towards the backbone: what bounds the norm of an
    adapter that is updated for years."""
    max_grad_norm: float = 1.0
    replay_likes: int = 256
    """Liked samples that are remembered."""
    replay_dislikes: int = 256
    """Disliked samples that are remembered."""
    balance: float = 0.0
    """Exponent of the inverse density, among the liked samples, by which replay weighs them; 0 is uniform."""
    bandwidth: float = 0.5
    """Kernel width of that density, in units of the median distance."""


DEFAULT_LORA = LoraConfig()
ATTENTION_LORA = LoraConfig(targets=("to_q", "to_k", "to_v", "to_out.0"))
"""For backbones that attend at several resolutions, latent ones and transformers; what diffusers' pipelines load."""
DEFAULT_UPDATE = UpdateConfig()
