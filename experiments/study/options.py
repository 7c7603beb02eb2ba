"""What `run_all.py` runs: a typed description of methods x data sets x seeds, with presets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro

from experiments.command_lines import changed_options, command_line, option
from experiments.data.augment import SMALL_PHOTOS
from experiments.data.cut_out import CutOut
from experiments.matching.detectors import DETECTORS
from experiments.methods import PAPER_BACKBONE, PAPER_DATASETS, PAPER_ROWS, Row
from experiments.training.device import BatchSize, Precision
from experiments.training.recipe import Recipe
from lca_fused.backbones import BackboneError, find_backbone

DEFAULT_ROWS = ("sift", "gap", "gap-fc", "lca", "lca-me")


def _default_data_root() -> Path | None:
    root = os.environ.get("LCA_DATA_ROOT")
    return Path(root) if root else None


@dataclass(frozen=True)
class Study:
    """Methods x data sets x seeds, and where their results go."""

    datasets: tuple[str, ...]
    """Data sets to run on, by name; see experiments/data/catalog.py."""
    backbone: str
    """Pretrained network: timm:NAME, torchvision:NAME, or a short name (lca_fused/backbones.py)."""
    methods: tuple[str, ...] = DEFAULT_ROWS
    """Rows of the table: METHOD, or METHOD@BACKBONE for a backbone of its own; see
    experiments/methods.py."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """A training run each; the table gives their mean and its 95 % interval."""
    data_root: Path | None = field(default_factory=_default_data_root)
    """Folder of the photos; default: the environment variable LCA_DATA_ROOT."""
    weights: tuple[str, ...] = ()
    """FILE of the backbone's pretrained weights, or NAME=FILE for each backbone and detector;
    default: fetched once, where they are public."""
    output: Path = Path("runs")
    """Folder of everything that is computed: finished cells, checkpoints, rendered photos."""
    report: Path | None = None
    """Where the table goes, as REPORT.md, REPORT.json and REPORT-ladder.png; default:
    OUTPUT/<preset>."""
    page: bool = True
    """Write OUTPUT/report.html too: charts, classes, confusions, explained photos."""
    stored_only: bool = False
    """Make the table from the cells that are stored; compute nothing."""
    paper_table: bool = False
    """Add the paper's Table I, and what it takes to run it."""
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
    """Processes that augment photos, for each job; default: a quarter of its cores where a CPU
    trains, half of them beside a GPU, 8 at most."""
    jobs: int | None = None
    """Cells computed side by side; default: one per GPU, or per core of a CPU as far as its memory
    reaches, 8 at most."""
    recipe: Recipe = field(default_factory=Recipe)
    """How each classifier is finetuned."""

    def __post_init__(self) -> None:
        if not self.seeds or min(self.seeds) < 0:
            given = " ".join(map(str, self.seeds)) or "empty"
            raise ValueError(f"--seeds is {given}; expected one or more, each 0 or above")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"--workers is {self.workers}; expected 0 or more")
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"--jobs is {self.jobs}; expected 1 or more")
        find_backbone(self.backbone)

    @property
    def image_size(self) -> int:
        """Side of the square that the study's own backbone sees, in pixels."""
        return self.recipe.for_backbone(self.backbone).image_size


PRESETS: dict[str, tuple[str, Study]] = {
    "embedded": (
        "Generated products, nothing to download (the default).",
        Study(
            datasets=("embedded/multi-packshot", "embedded/one-shot", "embedded/store"),
            backbone="embedded",
            methods=("sift", "gap", "gap-me", "gap-fc", "lca", "lca-me", "lca-gallery"),
            seeds=(0, 1),
            paper_table=True,
            recipe=Recipe(
                epochs=5,
                image_size=112,
                backbone_lr=0.01,
                head_lr=0.05,
                augmentation=SMALL_PHOTOS,
            ),
        ),
    ),
    "grocery-store": (
        "The Grocery Store Dataset's packaged goods; needs --data-root.",
        Study(
            datasets=("grocery-store/many-shot", "grocery-store/one-shot"),
            backbone="mobilenet-v2",
            methods=("sift", "gap", "gap-fc", "gem", "rmac", "lca", "lca-me"),
        ),
    ),
    "paper": (
        "The paper's Table I: its data sets and ResNeXt-101; needs --data-root.",
        Study(
            datasets=tuple(PAPER_DATASETS.values()),
            backbone=PAPER_BACKBONE,
            methods=PAPER_ROWS,
        ),
    ),
    "folder": (
        "Your own photos, a folder per product; needs --data-root.",
        Study(datasets=("folder",), backbone="mobilenet-v2"),
    ),
}


def command(preset: str, study: Study) -> str:
    """Return the command line that asks for a study, from any folder."""
    folders = {"output": study.output, "data_root": study.data_root}
    given = [word for name, path in folders.items() if path for word in option(name, path)]
    default = PRESETS[preset][1]
    weights = tuple(map(_absolute_file, study.weights))
    rest = replace(study, output=default.output, data_root=default.data_root, weights=weights)
    return command_line("run_all.py", preset, *given, *changed_options(rest, default))


def _absolute_file(text: str) -> str:
    """Return FILE or NAME=FILE with the path of the file that is there, if one is."""
    name, separator, file = text.partition("=")
    if Path(text).exists() or not separator:
        return str(Path(text).absolute())
    return f"{name}={Path(file).absolute()}" if Path(file).exists() else text


def parse_study(arguments: Sequence[str]) -> tuple[str, Study]:
    """Return (preset name, study) for command-line arguments; no preset means "embedded"."""
    if not arguments or (arguments[0] not in PRESETS and arguments[0] not in ("-h", "--help")):
        arguments = ["embedded", *arguments]
    study = tyro.extras.overridable_config_cli(PRESETS, args=list(arguments), prog="run_all.py")
    return arguments[0], study


def parse_weights(given: Sequence[str], rows: Sequence[Row]) -> dict[str, Path]:
    """Return the weights files by the backbone or detector they are for.

    Args:
        given: the weights that were given, each FILE or NAME=FILE.
        rows: rows of the study; a FILE without a name is for their one backbone.

    Raises:
        ValueError: a name that is unknown, given twice or of no row, or a FILE without a name
            where the study has several backbones, or none.
    """
    files: dict[str, Path] = {}
    for text in given:
        name, file = _split(text)
        name = name or _only_backbone(text, rows)
        if name in files:
            raise ValueError(f"--weights holds two files for {name}; keep one of them")
        _check_used(name, text, rows)
        files[name] = Path(file)
    return files


def _split(text: str) -> tuple[str, str]:
    """Return (name, file); the name is empty where there is none."""
    name, separator, file = text.partition("=")
    if not separator or Path(text).exists():
        return "", text
    if name not in DETECTORS:
        try:
            find_backbone(name)
        except BackboneError as error:
            raise ValueError(
                f"--weights holds {text}: there is no file of this name, and no network {name!r}: "
                f"{error}; or a detector, {', '.join(DETECTORS)}"
            ) from error
    return name, file


def _only_backbone(text: str, rows: Sequence[Row]) -> str:
    names = sorted({row.backbone for row in rows if row.backbone})
    if not names:
        raise ValueError(
            f"--weights holds {text}, but no row of this study has a backbone; leave the file "
            "out, or say which detector it is for: NAME=FILE"
        )
    if len(names) > 1:
        raise ValueError(
            f"--weights holds {text}, but this study has the backbones {', '.join(names)}; "
            "say which one the file is for: " + " or ".join(f"{name}={text}" for name in names)
        )
    return names[0]


def _check_used(name: str, text: str, rows: Sequence[Row]) -> None:
    used = dict.fromkeys(row.backbone or row.method.detector for row in rows)
    if name not in used:
        raise ValueError(
            f"--weights holds {text}, but no row of this study is made with {name}; its rows are "
            f"made with {', '.join(map(str, used))}"
        )
