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
    """K: timesteps below it stay the backbone's, in training and in sampling (0 is PAPA, more is EPAPA). It
    names a noise level by a DDPM's timestep; on rectified flow it is the timestep of the same log signal-to-noise ratio
    (`papa.schedule.NoiseSchedule.level`), so that the same levels stay the backbone's. Experiment "k-sweep": 100 to 400
    learn equally well, 0 and 600 or more far less. A larger K makes sampling cheaper."""
    use_likes: bool = True
    """Whether L^p is used. Experiment "ablations": dislikes alone destroy the model."""
    enhancer: float = 1.0
    """Weight of the bounded L^PAE on the disliked samples; 0 switches it off. Experiments "ablations": without it
    success stays low; "update-size": 2 succeeds more often, at a lower coverage."""
    enhancer_beta: float = 500.0
    """β of the bounded L^PAE: how early its gradient fades, in units of 1 / (mean squared error).
    Experiment "update-size"."""
    like_beta: float = 500.0
    """β of the bounded L^p: how early its gradient fades; 0 is L^p as published. Experiments "ablations" (the unbounded
    loss narrows the model) and "update-size"."""
    eta: float = 0.0
    """η: weight of L^QPDE; 0 switches it off. The bounded terms already hold the model near the backbone. Experiment
    "ablations": η = 1 lowers success and does not raise coverage."""
    steps: int = 6
    """Adam steps of one update. Experiment "update-size": 10 succeed more often, cost more and lower the coverage."""
    like_rows: int = 24
    """Rows of one step drawn from the liked samples, each with a timestep of its own. Experiment
    "update-size"."""
    dislike_rows: int = 8
    """Rows of one step drawn from the disliked samples. Experiment "update-size": 16 of each do as well."""
    learning_rate: float = 2e-2
    """Learning rate of Adam. Experiments "update-size" and "lora"."""
    weight_decay: float = 0.003
    """Share by which every learnt weight shrinks per Adam step, towards the backbone. It bounds the norm of an adapter
    that is updated for years. No experiment varies it."""
    max_grad_norm: float = 1.0
    """Norm to which a step's gradient is clipped. A safeguard; no experiment varies it."""
    averaging: float = 0.5
    """Share of the former average in what is served after an update; the rest is the new iterate. 0 serves the iterate
    itself. Experiment "keeping"."""
    replay_likes: int = 256
    """Number of liked samples in the replay: nearly all that the longest runs see. No experiment varies it."""
    replay_dislikes: int = 256
    """Number of disliked samples in the replay. No experiment varies it."""
    pool_share: float = 0.3
    """Share of the rows that is drawn from the backbone's pool (papa.pool) instead of the replay, where the backbone
    has one and likes and dislikes are known. Experiment "keeping"."""
    trust: float = 8.0
    """How strongly the replay prefers labels that the user's other labels agree with; 0 trusts all labels equally.
    Experiment "noise": at 20 % flipped labels it brings 0.2 of success."""
    trust_ridge: float = 0.3
    """λ of the kernel ridge regression in papa.taste. Chosen by trials only."""
    stable_from: int = 1000
    """Timestep from which rows learn a target that is averaged over the backbone's pool (papa.targets) instead of the
    bounded terms. T or more switches it off; so does a backbone without a pool. No experiment varies it yet."""
    sharpness: float = 1.5
    """s of these targets: 1 is the backbone restricted to the likes, more goes beyond it as guidance does. No
    experiment varies it yet."""
    steepness: float = 8.0
    """Factor of the predicted grade in the probability of a like, from which these targets are made. No experiment
    varies it yet."""
    neighbours: int = 10
    """Number of nearest neighbours in the density ratio that weights liked samples, for a backbone with a pool. 0
    weights all equally. Experiment "keeping": without it coverage falls further."""
    change_window: int = 10
    """Number of newest labels that are tested for a change of taste. Experiment "drift": changes are found."""
    change_share: float = 0.9
    """Share of them that must contradict all older labels before these are forgotten and the adapter starts afresh; 0
    never forgets. Experiment "drift": with 0 the adapter does not recover."""


DEFAULT_LORA = LoraConfig()
ATTENTION_LORA = LoraConfig(targets=("to_q", "to_k", "to_v", "to_out.0"))
"""For latent backbones and transformers, which attend at several resolutions. Diffusers' pipelines can load it."""
DEFAULT_UPDATE = UpdateConfig()
LATENT_UPDATE = UpdateConfig(like_beta=100.0, enhancer_beta=100.0)
"""For backbones of latents. A β is in units of 1 / (mean squared error), and on t ≥ K the error of a latent backbone is
about seven times that of a pixel one. With the β for pixels, both gradients would fade before anything is learnt.
Experiment "latent"."""


def update_config(pixels: bool) -> UpdateConfig:
    """The default for a pixel backbone, or for a latent one."""
    return DEFAULT_UPDATE if pixels else LATENT_UPDATE
