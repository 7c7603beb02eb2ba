"""What `finetune.py` is asked for: its options, typed, with their defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.command_lines import changed_options, command_line
from experiments.data.cut_out import CutOut
from experiments.methods import METHODS
from experiments.study.options import PRESETS
from experiments.training.device import BatchSize, Precision
from experiments.training.recipe import Recipe
from lca_fused.backbones import find_backbone

_PATIENCE = 5  # epochs
_UNEVEN = 4.0  # times the photos of the smallest class

_TRAINED = tuple(name for name, method in METHODS.items() if method.head is not None)


@dataclass(frozen=True)
class Finetuning:
    """Finetune a classifier on your own photos, and write a report on it."""

    photos: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTOS")] = None
    """A folder of photos per product, or train/ and test/ (and validation/) with such folders."""
    embedded: bool = False
    """Take generated products instead of PHOTOS: to see it work, with nothing to download."""
    output: Path = Path("runs/mine")
    """Folder of everything that is computed: result, model, checkpoint, report.html."""
    backbone: str = "mobilenet-v2"
    """Pretrained network: timm:NAME, torchvision:NAME, or a short name (lca_fused/backbones.py)."""
    weights: Path | None = None
    """File of its pretrained weights; default: fetched once, where they are public."""
    method: str = "lca"
    """How photos are recognised: lca, lca-me, gap...; see experiments/methods.py."""
    seed: int = 0
    """Of the new layers' first weights, the order of photos and their augmentation."""
    split_seed: int = 0
    """Of the draw of test and validation photos, where these have no folders."""
    test_fraction: float = 0.2
    """Share of the photos of each product held out for the test, where there is no test/."""
    validation_fraction: float = 0.1
    """Share of the training photos held out to choose the epoch on, where there is no
    validation/."""
    balance: Literal["auto", "on", "off"] = "auto"
    """Draw photos so that every product comes equally often; auto: when one has more than 4 times
    the photos of another."""
    cut_out: CutOut = "auto"
    """Cut training photos out and lay them on fresh grounds; auto: those with transparency, a mask
    beside them (NAME.mask.png) or a plain ground."""
    skip_bad_images: bool = False
    """List unreadable photos and go on without them instead of stopping."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: Precision = "auto"
    """Of matrix products; auto: bfloat16 or float16 where the device has it in hardware."""
    batch_size: BatchSize = "auto"
    """Photos that are computed at a time; auto: all of a step's (--recipe.batch-size), and half as
    many for as long as memory runs out. Steps and results are those of the recipe either way."""
    tensorboard: bool = False
    """Write losses, accuracy, rates and some training photos for TensorBoard as well, under
    OUTPUT/tensorboard."""
    workers: int | None = None
    """Processes that augment photos, 8 at most; default: a quarter of the cores where a CPU trains,
    half of them beside a GPU."""
    recipe: Recipe = field(default_factory=lambda: Recipe(patience=_PATIENCE))
    """How the classifier is finetuned."""

    def __post_init__(self) -> None:
        if self.embedded and self.photos is not None:
            raise ValueError("both PHOTOS and --embedded are given; leave one of them out")
        if self.method not in _TRAINED:
            raise ValueError(
                f"--method is {self.method!r}; expected one that is trained: {', '.join(_TRAINED)}"
            )
        find_backbone(self.backbone)
        if self.seed < 0 or self.split_seed < 0:
            raise ValueError(
                f"--seed is {self.seed} and --split-seed {self.split_seed}; expected 0 or more"
            )
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"--workers is {self.workers}; expected 0 or more")

    def balanced(self, imbalance: float) -> bool:
        """Return whether classes are drawn equally often.

        Args:
            imbalance: ratio of the photos of the largest class to those of the smallest.
        """
        if self.balance == "auto":
            return self.recipe.balanced or imbalance > _UNEVEN
        return self.balance == "on"

    @property
    def image_size(self) -> int:
        """Side of the square that the network sees, in pixels."""
        return self.recipe.for_backbone(self.backbone).image_size

    @property
    def command(self) -> str:
        """The command line that asks for the same, from any folder."""
        default = EMBEDDED if self.embedded else Finetuning()
        first: list[str | Path] = ["--embedded"] if self.photos is None else [self.photos]
        rest = replace(self, photos=default.photos, embedded=default.embedded)
        given = changed_options(replace(rest, output=default.output), default)
        return command_line("finetune.py", *first, "--output", self.output, *given)


EMBEDDED = Finetuning(
    embedded=True,
    output=Path("runs/embedded"),
    backbone="embedded",
    recipe=PRESETS["embedded"][1].recipe,
)
"""Defaults with `--embedded`: a small network, pretrained on other generated products."""


def parse_finetuning(arguments: Sequence[str]) -> Finetuning:
    """Return the options that command-line arguments give.

    Raises:
        ValueError: an option is out of its range, or there are no photos.
        SystemExit: the arguments are not of the command line's form, or ask for help.
    """
    embedded = "--embedded" in arguments
    default = EMBEDDED if embedded else Finetuning()
    options = tyro.cli(Finetuning, args=list(arguments), default=default, prog="finetune.py")
    if options.photos is None and not options.embedded:
        raise ValueError(
            "no photos: expected finetune.py PHOTOS, a folder with a folder of photos per product, "
            "or --embedded to see it work on generated products"
        )
    return options
