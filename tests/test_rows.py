import pytest

from experiments.methods import (
    METHODS,
    PAPER_BACKBONE,
    PAPER_ROWS,
    PAPER_TABLE,
    Method,
    counterpart,
    parse_rows,
)


def beside(names, backbone):
    """The paper's row beside each row of a table."""
    rows = parse_rows(names, backbone)
    papers = [counterpart(row, rows) for row in rows]
    return [paper.title if paper else None for paper in papers]


def test_a_row_is_a_method_on_the_studys_backbone_or_its_own():
    sift, gap, lca = parse_rows(["sift", "gap@resnet50", "lca"], "mobilenet-v2")
    assert (sift.backbone, gap.backbone, lca.backbone) == (None, "resnet50", "mobilenet-v2")
    assert (gap.method_name, gap.name) == ("gap", "gap@resnet50")


def test_titles_name_the_backbones_where_there_are_several():
    one = parse_rows(["gap", "lca"], "resnet50")
    two = parse_rows(["sift", "gap@mobilenet-v2", "gap"], "resnet50")
    assert [row.title for row in one] == ["global average pooling", "LCA"]
    assert [row.title for row in two] == [
        "keypoint matching (SIFT)",
        "global average pooling, mobilenet-v2",
        "global average pooling, resnet50",
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nonsense"], "nonsense.*lca-me"),
        (["lca@nonsense"], "'nonsense'.*resnet50"),
        (["sift@resnet50"], "drop @resnet50"),
        (["lca", "lca@resnet50"], "same row twice: lca, lca@resnet50"),
    ],
)
def test_rows_that_cannot_be_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        parse_rows(names, "resnet50")


def test_a_method_is_a_network_or_keypoint_matching():
    with pytest.raises(ValueError, match="a head or a detector"):
        Method("both", head="gap", detector="sift")


def test_every_method_is_measured_against_methods_there_are():
    for method in METHODS.values():
        assert set(method.against) <= set(METHODS)
        assert bool(method.trick) == bool(method.against)


def test_every_row_of_the_paper_is_a_row_of_its_preset():
    rows = {(row.method_name, row.backbone) for row in parse_rows(PAPER_ROWS, PAPER_BACKBONE)}
    for paper in PAPER_TABLE:
        assert (paper.method, paper.backbone) in rows


def test_the_papers_own_rows_stand_beside_its_figures():
    assert beside(PAPER_ROWS, PAPER_BACKBONE) == [
        "SuperPoint matching",
        None,
        "ResNeXt-INet",
        "ResNeXt-WSL",
        None,
        "ResNeXt-WSL + LCA",
        "ResNeXt-WSL + LCA + ME",
    ]


def test_on_another_backbone_methods_play_the_papers_rows():
    assert beside(["sift", "gap", "gap-fc", "gem", "lca", "lca-me"], "embedded") == [
        "SuperPoint matching",
        "ResNeXt-INet",
        None,
        None,
        "ResNeXt-WSL + LCA",
        "ResNeXt-WSL + LCA + ME",
    ]


def test_nobody_plays_a_row_that_is_there_itself():
    assert beside(["sift", "superpoint"], "embedded") == [None, "SuperPoint matching"]
