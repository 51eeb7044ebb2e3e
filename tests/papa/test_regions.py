"""Regions of the backbone's samples: how they are found, and what is typical of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from papa.regions import Regions, typical_chances

CORNERS = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]).double()


def blobs(per_corner: int) -> Tensor:
    noise = torch.randn(3 * per_corner, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return CORNERS.repeat_interleave(per_corner, 0) + 0.1 * noise


def three() -> Regions:
    """One region for each corner."""
    return Regions(CORNERS)


def test_the_regions_of_a_pool_are_its_kinds_of_samples_and_the_same_each_time() -> None:
    z = blobs(20)
    found = Regions.of(z, 8)
    assert torch.equal(found.centres, Regions.of(z, 8).centres)
    of_corner = [set(found.find(z[20 * corner : 20 * corner + 20]).tolist()) for corner in range(3)]
    assert not (of_corner[0] & of_corner[1] or of_corner[1] & of_corner[2] or of_corner[0] & of_corner[2])
    for corner, z_corner in zip(of_corner, z.split(20), strict=True):
        for region in corner:
            mine = z_corner[found.find(z_corner) == region]
            torch.testing.assert_close(found.centres[region], mine.mean(0))


def test_a_small_pool_has_as_many_regions_as_samples() -> None:
    z = blobs(1)
    found = Regions.of(z)
    assert found.find(z).unique().numel() == len(found.centres) == 3


def test_what_is_typical_lies_between_the_region_and_all() -> None:
    """A region of certain likes, one of doubtful ones, and one that is disliked."""
    chance = torch.tensor([0.8] * 10 + [0.4] * 10 + [0.05] * 10)
    found = typical_chances(three(), blobs(10), chance)
    overall = (0.8**2 + 0.4**2 + 0.05**2) / (0.8 + 0.4 + 0.05)
    raised = 0.75 / (0.8 * overall) ** 0.5
    assert found.tolist() == pytest.approx([raised * (own * overall) ** 0.5 for own in (0.8, 0.4, 0.05)], abs=1e-6)
    assert found[0] < 0.8 and 0.4 / found[1] > 0.7 and 0.05 / found[2] < 0.3, "dislikes stay below their bar"


def test_a_region_without_samples_has_what_is_typical_of_all() -> None:
    regions = Regions(torch.cat([CORNERS, torch.tensor([[99.0, 99.0]]).double()]))
    found = typical_chances(regions, blobs(4), torch.full((12,), 0.8))
    assert found.tolist() == pytest.approx([0.8] * 4)


@pytest.mark.parametrize(("chance", "bar"), [(0.9, 0.9), (0.7, 0.75), (0.5, 0.7)])
def test_a_head_that_is_unsure_of_everything_is_selected_from_more_strictly(chance: float, bar: float) -> None:
    assert typical_chances(three(), blobs(4), torch.full((12,), chance)).tolist() == pytest.approx([bar] * 3)
