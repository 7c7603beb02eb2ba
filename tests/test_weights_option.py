from pathlib import Path

import pytest

from experiments.methods import parse_rows
from experiments.study.options import parse_weights

ONE = parse_rows(["superpoint", "gap", "lca"], "resnet50")
TWO = parse_rows(["superpoint", "gap@resnext101-32x8d", "lca"], "resnext101-32x8d-wsl")


def test_a_file_alone_is_for_the_one_backbone():
    assert parse_weights(["net.pt"], ONE) == {"resnet50": Path("net.pt")}


def test_a_file_alone_is_refused_where_there_are_two():
    with pytest.raises(ValueError, match=r"resnext101-32x8d-wsl=net\.pt"):
        parse_weights(["net.pt"], TWO)


def test_named_files_go_to_their_networks():
    given = ["resnext101-32x8d=a.pt", "resnext101-32x8d-wsl=b.pt", "superpoint=c.pth"]
    assert parse_weights(given, TWO) == {
        "resnext101-32x8d": Path("a.pt"),
        "resnext101-32x8d-wsl": Path("b.pt"),
        "superpoint": Path("c.pth"),
    }


def test_a_file_may_have_an_equals_sign_in_its_name(tmp_path):
    file = tmp_path / "epoch=3.pt"
    file.touch()
    assert parse_weights([str(file)], ONE) == {"resnet50": file}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["resnet=a.pt"], "no network 'resnet'.*resnet50.*superpoint"),
        (["resnet50=a.pt", "b.pt"], "two files for resnet50"),
        (["mobilenet-v2=a.pt"], "no row.*made with mobilenet-v2.*superpoint, resnet50"),
        (["sift=a.pt"], "no row.*made with sift"),
    ],
)
def test_names_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        parse_weights(given, ONE)


def test_keypoint_matching_alone_has_no_backbone_for_a_file():
    rows = parse_rows(["superpoint"], "resnet50")
    with pytest.raises(ValueError, match=r"holds net\.pt.*no row of this study has a backbone"):
        parse_weights(["net.pt"], rows)
    assert parse_weights(["superpoint=net.pt"], rows) == {"superpoint": Path("net.pt")}
