"""LCA that is of use before any training: its projection whitens the regions of maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lca_fused import LCA
from lca_fused.whitening import whitened_projection


def maps(count=40, channels=6, height=5, width=4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(count, channels, height, width, generator=generator)
    mixing = torch.randn(channels, channels, generator=generator)
    return torch.einsum("dc,nchw->ndhw", mixing, mixed) + torch.arange(channels)[:, None, None]


@pytest.mark.parametrize(("region", "out_features"), [((3, 3), 12), ((1, 2), 8), ((9, 9), 6)])
def test_regions_come_out_uncorrelated_with_variance_one(region, out_features):
    x = maps()
    weight, bias = whitened_projection(x, out_features, region)
    size = min(region[0], 5), min(region[1], 4)
    regions = F.avg_pool2d(x.double(), size, stride=1).movedim(1, -1).flatten(0, -2)
    projected = (regions @ weight.T + bias)[:, : out_features // 2]
    torch.testing.assert_close(projected.mean(0), torch.zeros_like(projected[0]))
    covariance = projected.T @ projected / len(projected)
    torch.testing.assert_close(covariance, torch.eye(out_features // 2, dtype=torch.float64))
    assert torch.equal(weight, torch.cat([w := weight[: out_features // 2], -w]))
    assert torch.equal(bias, torch.cat([b := bias[: out_features // 2], -b]))


def test_the_directions_are_those_of_the_largest_variance():
    x = maps() * torch.tensor([1.0, 1, 100, 1, 1, 1])[:, None, None]
    weight, _ = whitened_projection(x, 2)
    regions = F.avg_pool2d(x.double(), 3, stride=1)
    found = torch.einsum("nchw,c->nhw", regions, weight[0])
    pair = torch.stack([found.flatten(), regions[:, 2].flatten()])
    assert torch.corrcoef(pair)[0, 1].abs() > 0.99


def test_a_layer_is_made_of_batches_as_of_all_maps_and_takes_its_options():
    x = maps()
    whole = LCA.from_features(x, 8, kernel_sizes=[(2, 2)], dtype=torch.float64)
    batches = LCA.from_features(iter(x.split(7)), 8, kernel_sizes=[(2, 2)], dtype=torch.float64)
    assert (whole.kernel_sizes, whole.weight.dtype, whole.in_features) == (
        ((2, 2),),
        torch.float64,
        6,
    )
    torch.testing.assert_close(whole(x.double()), batches(x.double()))
    assert LCA.from_features(x).out_features == 6
    assert LCA.from_features(maps(channels=5)).out_features == 4


def test_a_channel_without_variance_does_no_harm():
    x = maps()
    x[:, 0] = 0
    layer = LCA.from_features(x, 12)
    assert layer(x).isfinite().all()
    assert layer(x).abs().max() < 100


@pytest.mark.parametrize(
    ("given", "out_features", "said"),
    [
        (maps(), 5, "expected an even number from 2 to twice the 6 channels"),
        (maps(), 14, "expected an even number from 2 to twice the 6 channels"),
        (maps(1)[:, :, :3, :3], 4, "have 1 regions; 2 directions .* need more than that"),
        (maps()[0], 4, r"maps have shape \(6, 5, 4\); expected \(N, C, H, W\)"),
        ([], 4, "there are no maps"),
        ([maps(), maps(channels=7)], 4, "7 channels after others with 6"),
        (maps() * float("inf"), 4, "not finite"),
    ],
)
def test_what_cannot_be_whitened_is_named(given, out_features, said):
    with pytest.raises(ValueError, match=said):
        LCA.from_features(given, out_features)
