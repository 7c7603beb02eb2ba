"""The published poolings against what their papers say of them."""

import pytest
import torch
import torch.nn.functional as F

from lca_fused.heads import HEADS, RMAC, GeM

MAP = torch.rand(2, 5, 7, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1


def test_generalised_mean_lies_between_average_and_maximum():
    average, maximum = MAP.mean((2, 3)), MAP.amax((2, 3))
    torch.testing.assert_close(GeM(5, 1.0).double()(MAP), average)
    torch.testing.assert_close(GeM(5, 400.0).double()(MAP), maximum, rtol=0.02, atol=0)
    pooled = GeM(5, 3.0).double()(MAP)
    assert ((pooled > average) & (pooled < maximum)).all()


def test_generalised_mean_learns_its_exponent_and_survives_zeros():
    pool = GeM(3)
    pool(F.relu(torch.randn(2, 3, 4, 4))).sum().backward()
    assert pool.p.grad is not None
    assert torch.isfinite(pool.p.grad)
    assert pool.p.grad != 0


def test_generalised_mean_of_16_bits_is_taken_in_float32():
    tenths = torch.full((1, 1, 20, 20), 0.01, dtype=torch.float16)
    torch.testing.assert_close(GeM(1)(tenths), tenths[..., 0, 0].float())


def test_regional_maxima_are_those_of_every_region():
    expected = torch.zeros(2, 5, dtype=torch.float64)
    for side, stride in ((7, 4), (4, 2), (3, 2)):  # 2 * 7 / (level + 1), 60 % of it
        for top in range(0, 7 - side + 1, stride):
            for left in range(0, 9 - side + 1, stride):
                region = MAP[:, :, top : top + side, left : left + side].amax((2, 3))
                expected += region / region.norm(dim=1, keepdim=True)
    expected /= expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(RMAC(5, scale=1.0)(MAP), expected)


@pytest.mark.parametrize("size", [(1, 2), (2, 1), (3, 3), (13, 13)])
def test_regional_maxima_of_small_maps_have_the_length_asked_for(size):
    pooled = RMAC(6, scale=4.0)(torch.randn(2, 6, *size))
    torch.testing.assert_close(pooled.norm(dim=1), torch.full((2,), 4.0))
    assert repr(RMAC(6, scale=4.0)) == "RMAC(scale=4)"


def test_by_default_the_exponent_is_3_and_the_root_mean_square_of_maxima_1():
    assert torch.equal(GeM(5).double()(MAP), GeM(5, 3.0).double()(MAP))
    torch.testing.assert_close(RMAC(5)(MAP).square().mean(1), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("name", HEADS)
def test_every_head_says_how_many_features_it_returns(name):
    head = HEADS[name](5).double()
    assert head(MAP).shape == (2, head.out_features)


def test_the_control_is_average_pooling_and_lcas_layer():
    head = HEADS["gap-fc"](5).double()
    expected = F.relu(F.linear(MAP.mean((2, 3)), head.fc.weight, head.fc.bias))
    torch.testing.assert_close(head(MAP), expected)
    assert sum(p.numel() for p in head.parameters()) == sum(
        p.numel() for p in HEADS["lca"](5).parameters()
    )
    torch.testing.assert_close(HEADS["gap"](5)(MAP), MAP.mean((2, 3)))
