"""Whether a user likes what is said to be likely, on the shipped backbone with its oracle for the user."""

from __future__ import annotations

import torch

from papa.alignment import calibration_error, success_rate
from papa.config import DEFAULT_UPDATE
from papa.denoiser import load_denoiser
from papa.noise import Domain, Noise
from papa.oracle import load_oracle
from papa.taste import Taste

TASTES = ((0, 4, 6), (2, 3, 8), (1, 6, 8), (5, 7, 9), (4, 8))
LABELS = 100


def test_what_is_said_to_be_likely_is_liked_as_often() -> None:
    """A hundred labels of samples of the backbone's own, judged on all the others: over the tastes the error is within
    0.06, and what is said to be likely is liked more often than the backbone's average sample."""
    pool = load_denoiser("fashion_mnist").pool
    assert pool is not None
    classes = load_oracle("fashion_mnist").classify(pool.x0)
    said, liked = [], []
    for seed, taste in enumerate(TASTES):
        order = Noise(seed, Domain.USER).permutation(len(classes))
        known, other = order[:LABELS], order[LABELS:]
        hidden = torch.isin(classes, torch.tensor(taste))
        grades = torch.where(hidden[known], 1.0, -1.0)
        fit = (DEFAULT_UPDATE.trust_ridge, DEFAULT_UPDATE.neighbours)
        head = Taste(pool.features[known], grades, pool.unrated, *fit).head()
        assert head is not None
        chances = head.probability(pool.features[other])
        assert success_rate(classes[other][chances > 0.8], taste) > 0.75, taste
        said.append(chances)
        liked.append(hidden[other])
    assert calibration_error(torch.cat(said), torch.cat(liked)) < 0.06
