"""Every knob of learning, in one frozen dataclass.

Each field names the experiment of `papa bench alignment` that decides on it; docs/results/alignment.md says how far
each experiment has been run. A field whose experiment has no runs there still stands as its prototype left it.
"""

from __future__ import annotations

from dataclasses import dataclass

from papa.lora import LoraConfig


@dataclass(frozen=True)
class UpdateConfig:
    """One interaction step's update. γ = 1 throughout: with Adam only the ratios to it matter."""

    adapt_from: int = 400
    """K: timesteps below it stay the backbone's, in training and in sampling (0 is PAPA, more is EPAPA). Experiment
    "k-sweep": 100 to 400 learn alike, 0 and from 600 on far less; the more, the cheaper sampling with adapters."""
    use_likes: bool = True
    """L^p on or off. Experiment "ablations": dislikes alone destroy the model."""
    enhancer: float = 1.0
    """Weight of the bounded L^PAE on the disliked samples; 0 switches it off. Experiments "ablations": without it
    success stays low; "update-size": 2 succeeds more often, at a lower coverage."""
    enhancer_beta: float = 500.0
    """β of the bounded L^PAE: how soon forgetting is enough, in units of 1 / (mean squared error).
    Experiment "update-size"."""
    like_beta: float = 500.0
    """β of the bounded L^p: how soon liking is enough; 0 is L^p as published. Experiments "ablations": unbounded it
    narrows; "update-size"."""
    eta: float = 0.0
    """η: weight of L^QPDE; 0 switches it off: the bounded terms already hold the model near the backbone. Experiment
    "ablations": 1 costs success and keeps no more coverage."""
    steps: int = 6
    """Adam steps of one update. Experiment "update-size": 10 succeed more often, cost more and lower the coverage."""
    like_rows: int = 24
    """Rows of one step drawn from the liked samples, each with a timestep of its own. Experiment
    "update-size"."""
    dislike_rows: int = 8
    """Rows of one step drawn from the disliked samples. Experiment "update-size": 16 of each do as well."""
    learning_rate: float = 2e-2
    """Experiments "update-size" and, with what of LoRA learns, "lora"."""
    weight_decay: float = 0.003
    """Share by which every learnt weight shrinks per Adam step, towards the backbone: what bounds the norm of an
    adapter that is updated for years. No experiment varies it."""
    max_grad_norm: float = 1.0
    """Norm to which a step's gradient is cut. A safeguard; no experiment varies it."""
    averaging: float = 0.5
    """Share of the former average in what is served after an update; the rest is the new iterate. 0 serves the iterate
    itself. Experiment "keeping"."""
    replay_likes: int = 256
    """Liked samples that are remembered: about all that the longest runs see. No experiment varies it."""
    replay_dislikes: int = 256
    """Disliked samples that are remembered, as above."""
    pool_share: float = 0.3
    """Share of the rows that is drawn from the backbone's pool (papa.pool) instead of the replay, where the backbone
    has one and likes and dislikes are known. Experiment "keeping"."""
    trust: float = 8.0
    """How strongly replay prefers labels that the user's other labels agree with; 0 takes all labels at their word.
    Experiment "noise": at 20 % flipped labels it brings 0.2 of success."""
    trust_ridge: float = 0.3
    """λ of the kernel ridge regression that says so, and what the pool's grades would be. Chosen by trials only."""
    neighbours: int = 10
    """Nearest samples that tell how well a liked one stands for the backbone's own, where the backbone has a pool; 0
    weighs all alike. Experiment "keeping": without it coverage falls further."""
    change_window: int = 10
    """The newest labels in which a change of taste may show. Experiment "drift" shows that it is found."""
    change_share: float = 0.9
    """Share of them that must contradict all older labels: then the older ones are forgotten and the adapter starts
    afresh; 0 never does. Experiment "drift": with 0 the adapter never comes back."""


DEFAULT_LORA = LoraConfig()
ATTENTION_LORA = LoraConfig(targets=("to_q", "to_k", "to_v", "to_out.0"))
"""For backbones that attend at several resolutions, latent ones and transformers; what diffusers' pipelines load."""
DEFAULT_UPDATE = UpdateConfig()
LATENT_UPDATE = UpdateConfig(like_beta=100.0, enhancer_beta=100.0)
"""For backbones of latents. A β is in units of 1 / (mean squared error), and on t ≥ K the error of a latent backbone is
about seven times that of a pixel one: with the pixels' β both terms are done before anything is learnt. Experiment
"latent"."""


def update_config(pixels: bool) -> UpdateConfig:
    """What suits a backbone of pixels, or of latents."""
    return DEFAULT_UPDATE if pixels else LATENT_UPDATE
