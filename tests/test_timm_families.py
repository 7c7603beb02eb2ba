"""Every family of networks that timm has: a map of its features, or a reason why not."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models import model_entrypoint

from lca_fused import LCA, attach_lca, explain, feature_map
from lca_fused.feature_map import TokenMap
from reference.lca import lca_reference

pytestmark = pytest.mark.slow  # some of them are large

# One small network of each of timm's modules.
WITH_A_MAP = """
    beitv2_base_patch16_224 caformer_s18 cait_xxs24_224 convit_tiny convmixer_768_32
    convnext_atto cpubone_nano csatv2 cspnext_tiny darknet17 davit_tiny deepseek_vit_412m
    deit_tiny_patch16_224 densenet121 dla34 dpn48b edgenext_xx_small efficientformer_l1
    efficientformerv2_s0 efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224 fasternet_t0
    fastvit_t8 focalnet_tiny_srf gcvit_xxtiny ghostnet_050 gmlp_ti16_224 halonet_h1
    hardcorenas_b hgnetv2_b0 hiera_tiny_224 hrnet_w18_small iformer_t inception_next_atto
    inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small legacy_seresnet18
    legacy_xception levit_128 lowformer_b0 maxvit_rmlp_pico_rw_256 mobilenetv3_small_050
    mobilenetv4_conv_small_050 mobilenetv5_base mobilevit_xxs mvitv2_tiny
    naflexvit_base_patch16_gap nasnetalarge nest_tiny
    nextvit_small pnasnet5large pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnetx_002 repghostnet_050
    repvit_m1 res2next50 resnest14d resnet18 resnetv2_18 rexnet_100 sam2_hiera_tiny
    samvit_base_patch16_224 selecsls42 shvit_s1 skresnet18 starnet_s050 swiftformer_xs
    swin_tiny_patch4_window7_224 swinv2_cr_tiny_224 swinv2_tiny_window8_256 test_byobnet
    test_mambaout test_nfnet test_vit test_vit_relpos tf_efficientnet_lite0 tiny_vit_5m_224
    tnt_s_legacy_patch16_224 tresnet_m twins_svt_small vgg11 visformer_tiny
    vit_tiny_r_s16_p8_224 vitamin_small_224 volo_d1_224 vovnet39a xception41p
    xcit_nano_12_p8_224
""".split()  # noqa: SIM905 - a literal of so many would be a page
# Their forward_features gives several scales at once, or the class token alone.
WITHOUT_A_MAP = {
    "coat_tiny": "list",
    "crossvit_tiny_240": "list",
    "efficientvim_m1": "list",
    "pit_ti_224": r"tokens that are no feature map",
}
# Forward passes that take half a minute, or fail, without numbers to compute with.
NOT_TRIED = {"sequencer", "gemma4_vit"}
TRANSFORMERS = {
    "test_vit": {},
    "test_vit2": {},  # averages its tokens, and normalises the average
    "vit_tiny_patch16_224": {"img_size": 64},
    "vit_small_patch14_reg4_dinov2": {"img_size": 56},  # register tokens
    "vit_base_patch16_siglip_224": {"img_size": 64},
    "eva02_tiny_patch14_224": {"img_size": 56},
    "swin_tiny_patch4_window7_224": {},
}


def module_of(name):
    return model_entrypoint(name).__module__.rpartition(".")[2]


@pytest.mark.parametrize("name", WITH_A_MAP)
def test_a_family_with_a_map(name):
    with torch.device("meta"):  # shapes alone: most of a network's time is its initial weights
        model = timm.create_model(name)
    images = torch.empty(2, *model.pretrained_cfg["input_size"], device="meta")
    n, channels, height, width = feature_map(model)(images).shape
    assert n == 2
    assert channels >= 32
    assert min(height, width) >= 2


@pytest.mark.parametrize("name", WITHOUT_A_MAP)
def test_a_family_without_a_map_is_refused_with_the_reason(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(TypeError, match=WITHOUT_A_MAP[name]):
        feature_map(model)


def test_no_family_is_forgotten():
    tried = {module_of(name) for name in [*WITH_A_MAP, *WITHOUT_A_MAP, *TRANSFORMERS]} | NOT_TRIED
    # timm grows; what it gained since is served or refused like the others, and listed here later.
    known = {module_of(name) for name in timm.list_models()}
    assert len(known - tried) <= 5, sorted(known - tried)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_map_of_a_transformer_is_its_patches_in_rows_and_columns(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **TRANSFORMERS[name]).eval()
    side = TRANSFORMERS[name].get("img_size", model.pretrained_cfg["input_size"][-1])
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        features = model.forward_features(images)
        found = feature_map(model)(images)
    if features.dim() == 4:
        torch.testing.assert_close(found, features.permute(0, 3, 1, 2))
        return
    # A norm of the average of all tokens acts on each of them here.
    tokens = model.fc_norm(features[:, model.num_prefix_tokens :])
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), tokens)


@pytest.mark.parametrize("side", [(48, 80), (64, 64)])
def test_a_transformer_of_any_image_size_gives_maps_that_are_not_square(side):
    model = timm.create_model("test_vit", dynamic_img_size=True).eval()
    backbone = feature_map(model)
    assert isinstance(backbone, TokenMap)
    assert backbone(torch.randn(1, 3, *side)).shape == (1, 64, side[0] // 16, side[1] // 16)


def test_lca_over_tokens_is_the_papers_layer_on_the_reshaped_map():
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=96).double()
    classifier = attach_lca(model, 5).eval()
    images = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    tokens = model.forward_features(images)[:, model.num_prefix_tokens :]
    height, width = model.patch_embed.grid_size
    grid = tokens.transpose(1, 2).unflatten(2, (height, width))
    lca = classifier.pool
    assert isinstance(lca, LCA)
    expected = classifier.classifier(lca_reference(grid, lca.weight, lca.bias))
    torch.testing.assert_close(classifier(images), expected, rtol=1e-10, atol=1e-12)


def test_an_explanation_over_tokens_adds_up_to_the_logit():
    torch.manual_seed(0)
    classifier = attach_lca(timm.create_model("test_vit2", img_size=96), 5).eval()
    images = torch.randn(2, 3, 96, 96)
    explanation = explain(classifier, images)
    summed = explanation.positions.sum(dim=(1, 2)) + explanation.bias
    torch.testing.assert_close(summed, classifier(images).max(dim=1).values, rtol=1e-4, atol=1e-5)


def test_a_transformer_exports_for_any_number_of_photos():
    torch.manual_seed(0)
    classifier = attach_lca(timm.create_model("test_vit", img_size=96), 5).eval()
    program = torch.export.export(
        classifier,
        (torch.zeros(2, 3, 96, 96),),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    images = torch.randn(5, 3, 96, 96)
    torch.testing.assert_close(program.module()(images), classifier(images), rtol=1e-4, atol=1e-5)


def test_a_transformer_is_one_onnx_file_of_standard_operators(tmp_path):
    export = pytest.importorskip("experiments.deploy.onnx_export")
    torch.manual_seed(0)
    classifier = attach_lca(timm.create_model("test_vit", img_size=96), 5).eval()
    export.export_onnx(classifier, 96, tmp_path / "model.onnx")
    exported = export.OnnxClassifier(tmp_path / "model.onnx")
    for n in (1, 3):
        images = torch.randn(n, 3, 96, 96)
        torch.testing.assert_close(
            exported(images), classifier(images).detach(), rtol=1e-4, atol=1e-5
        )
