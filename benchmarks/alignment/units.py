"""The unit of β: a backbone's own squared error on its own samples, by timestep.

    python -m benchmarks.alignment.units

The bounded terms compare ‖ε − ε_θ‖² with ‖ε − ε_θ*‖² in units of 1/β (papa.objective).
"""

from __future__ import annotations

import torch

from benchmarks.alignment.world import PROMPTS
from papa.config import update_config
from papa.denoiser import Denoiser, load_denoiser
from papa.noise import Domain, Noise
from papa.objective import squared_error
from papa.sampler import sample

BACKBONES = ("fashion_mnist", *PROMPTS)
TIMESTEPS = (100, 250, 400, 500, 600, 700, 800, 900)
SAMPLES = 64


@torch.no_grad()
def errors(denoiser: Denoiser, prompt: str, count: int = SAMPLES) -> list[float]:
    """Mean squared error of ε at the noise level of each of TIMESTEPS."""
    conditions = denoiser.conditions([prompt] * count)
    x0 = sample(denoiser, list(range(count)), None, "dpmpp_2m", 12, conditions=conditions)
    noise, found = Noise(0, Domain.UPDATE), []
    for timestep in TIMESTEPS:
        t, eps = torch.full((count,), denoiser.schedule.level(timestep)), noise.normal(x0.shape)
        predicted = denoiser.epsilon(denoiser.schedule.add_noise(x0, eps, t), t, None, conditions)
        found.append(float(squared_error(eps, predicted).mean()))
    return found


def main() -> None:
    torch.set_num_threads(1)
    print("| t | " + " | ".join(map(str, TIMESTEPS)) + " | β |\n" + "|---" * (len(TIMESTEPS) + 2) + "|")
    for name in BACKBONES:
        denoiser = load_denoiser(name)
        row = " | ".join(f"{error:.4f}" for error in errors(denoiser, PROMPTS.get(name, "")))
        print(f"| {name} | {row} | {update_config(denoiser.clips).like_beta:g} |")


if __name__ == "__main__":
    main()
