"""Add products to a gallery, without training: photos of theirs are all that is needed.

    python experiments/enroll.py GALLERY PHOTOS --model runs/cells/.../lca-seed0-*.model
    python experiments/enroll.py GALLERY PHOTOS --backbone mobilenet-v2
    python experiments/enroll.py GALLERY MORE_PHOTOS
    python experiments/enroll.py GALLERY --list
    python experiments/enroll.py GALLERY --remove Cola "Green tea"

PHOTOS holds a folder of photos per product. GALLERY is a folder, a classifier like any other:
predict.py and export.py take it as MODEL. The first time its network is taken from a stored model
or a pretrained backbone; of a model's own classes nothing is kept, so enroll their photos too. A
product that is enrolled again has its vectors replaced. Whenever it is killed, the gallery is as it
was before or as asked for. Exit status: 0 when all was done, 1 when some photos could not be
enrolled, 2 when the command line, the photos or the gallery cannot be used, 130 when interrupted.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

if not __package__:  # run as a file, from whatever folder: the packages are beside its own
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.command_lines import command_line
from experiments.console import set_up_console
from experiments.data.cut_out import CutOut
from experiments.data.names import composed
from experiments.data.own_output import mark_output
from experiments.data.product_folders import find_products
from experiments.deploy.enrolling import (
    GROUNDS,
    Embedded,
    Embedder,
    add_to_gallery,
    lookalikes_of,
)
from experiments.deploy.gallery_folder import changing, sweep
from experiments.deploy.inference import (
    MEGAPIXEL,
    Batch,
    PhotoReader,
    check_megapixels,
    find_photos,
)
from experiments.networks.backbones import load_network
from experiments.networks.model import new_classifier
from experiments.training.device import resolve_compute, share_cores
from experiments.training.memory import killed_workers_explained
from experiments.training.shared_memory import workers_that_fit
from lca_fused import LCA, load_classifier
from lca_fused.backbones import find_backbone
from lca_fused.classifier import Classifier
from lca_fused.description import described
from lca_fused.gallery import SCALE, Gallery
from lca_fused.pretrained import CONFIG_FILE, gallery_of, save_description

logger = logging.getLogger(__name__)

_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
_LISTED = 10  # photos like another product's


class EnrollError(ValueError):
    """What is asked for cannot be done; the message says what to change."""


@dataclass(frozen=True)
class Options:
    """Which gallery, and what becomes of it."""

    gallery: tyro.conf.Positional[Path]
    """Folder of the gallery; made if needed."""
    photos: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTOS")] = None
    """A folder of photos per product to enroll; its name is the product's."""
    listed: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Print the products and the number of vectors of each."""
    remove: tuple[str, ...] = ()
    """Products to remove."""
    model: str | None = None
    """The first time: folder of a stored classifier whose network embeds; or hf-hub:OWNER/NAME."""
    backbone: str | None = None
    """The first time, instead of --model: a pretrained network, timm:NAME, torchvision:NAME, or a
    short name (lca_fused/backbones.py)."""
    weights: Path | None = None
    """File of --backbone's weights; default: fetched once, where they are public."""
    head: Literal["rmac", "gap", "gem", "lca"] = "rmac"
    """What pools the map of --backbone. lca whitens regions, and can be explained."""
    whiten: Path | None = None
    """Photos, without labels, whose regions lca whitens; default: PHOTOS. A hundred from the store
    serve far better than packshots."""
    out_features: int = 128
    """Numbers in a vector of lca; even."""
    image_size: int | None = None
    """Side of the square that --backbone sees, in pixels; default: its own."""
    scale: float | None = None
    """The first time: of the cosines before the softmax; larger is more certain; default: 30."""
    per_product: Literal["all", "mean"] = "all"
    """all: a vector for each photo, the most alike counts; mean: one vector, the photos' mean."""
    cut_out: CutOut = "auto"
    """Packshots to cut out and embed on fresh grounds: those with transparency, a mask beside them
    or a plain ground (auto), all, or none."""
    batch_size: int = 32
    """Photos that go through the network at once."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    workers: int | None = None
    """Processes that decode photos; default: half the cores, 8 at most; 0: none."""
    max_megapixels: float = 100.0
    """Larger photos are refused; a worker needs 12 to 19 MB of memory a megapixel. At most 178."""

    def __post_init__(self) -> None:
        asked = [self.photos is not None, self.listed, bool(self.remove)]
        if sum(asked) != 1:
            raise EnrollError(
                "expected GALLERY and either PHOTOS (a folder of photos per product), --list, or "
                "--remove NAME..."
            )
        if self.model is not None and self.backbone is not None:
            raise EnrollError("both --model and --backbone are given; leave one of them out")
        if self.backbone is None and (without := self._of_use_to_backbone):
            raise EnrollError(
                f"{without}: of use to a --backbone, which is not given; add it, or leave that out"
            )
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise EnrollError(f"--scale is {self.scale:g}; expected a number above 0")
        if self.batch_size < 1:
            raise EnrollError(f"--batch-size is {self.batch_size}; expected at least 1")
        if self.workers is not None and self.workers < 0:
            raise EnrollError(f"--workers is {self.workers}; expected 0 or more")
        check_megapixels(self.max_megapixels)

    @property
    def _of_use_to_backbone(self) -> str:
        settings = ("weights", "head", "whiten", "out_features", "image_size")
        changed = [name for name in settings if getattr(self, name) != getattr(Options, name)]
        return ", ".join(f"--{name.replace('_', '-')}" for name in changed)

    @property
    def max_pixels(self) -> int:
        """Largest photo that is read, in pixels."""
        return round(self.max_megapixels * MEGAPIXEL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what `arguments` (default: the command line) ask for; return the exit status."""
    set_up_console()
    try:
        options = tyro.cli(Options, args=arguments, prog="enroll.py")
        if options.listed:
            return _list(options.gallery)
        with changing(options.gallery), killed_workers_explained():
            if options.remove:
                return _remove(options.gallery, tuple(map(composed, options.remove)))
            assert options.photos is not None
            return _enroll(options, options.photos)
    except (ValueError, OSError) as error:
        logger.error("error: %s", error)
        return 2
    except KeyboardInterrupt:
        logger.error("interrupted; the gallery is as it was before")
        return _INTERRUPTED


def _list(folder: Path) -> int:
    counts = _gallery(load_classifier(folder), folder).counts()
    for name, count in counts.items():
        print(f"{name}\t{count}")
    return 0


def _remove(folder: Path, names: Sequence[str]) -> int:
    classifier = load_classifier(folder)
    left = _gallery(classifier, folder).without(names)
    classifier.set_gallery(left)
    save_description(classifier, folder)
    sweep(folder, left)
    logger.info("%d products removed, %s", len(set(names)), _size(left))
    _tell_of_threshold(classifier, folder)
    return 0


def _enroll(options: Options, root: Path) -> int:
    product_of = find_products(root)
    new = not (options.gallery / CONFIG_FILE).exists()
    classifier = _new(options, root) if new else _stored(options, root)
    if new:
        mark_output(options.gallery)
    products, failed = _embed(options, classifier, product_of)
    if not products:
        raise EnrollError(f"no photo of {root} could be enrolled, as listed above")
    gallery = add_to_gallery(
        classifier,
        options.gallery,
        products,
        mean=options.per_product == "mean",
        scale=SCALE if options.scale is None else options.scale,
    )
    _warn(gallery, products)
    without = sorted(set(product_of.values()) - set(products))
    if without:
        logger.error("not enrolled, as no photo could be: %s", ", ".join(without))
    photos = sum(len(embedded.paths) for embedded in products.values())
    logger.info("%d products enrolled from %d photos, %s", len(products), photos, _size(gallery))
    _tell_of_threshold(classifier, options.gallery)
    logger.info("go on with:\n  %s PHOTO", command_line("predict.py", options.gallery))
    return 1 if failed else 0


def _tell_of_threshold(classifier: Classifier, folder: Path) -> None:
    if described(classifier).decision.threshold is not None:
        logger.warning(
            "its threshold was set on other products, and what it proved there does not hold for "
            "these: set it anew with\n  %s PHOTOS --store",
            command_line("evaluate.py", folder),
        )


def _stored(options: Options, root: Path) -> Classifier:
    """Return the classifier of a gallery that is there.

    Raises:
        EnrollError: its network is another than the one asked for, or its scale is.
    """
    classifier = load_classifier(options.gallery)
    gallery = _gallery(classifier, options.gallery)
    if options.scale is not None and options.scale != gallery.scale:
        raise EnrollError(
            f"--scale is {options.scale:g}, and that of {options.gallery} {gallery.scale:g}; leave "
            "it out, or name a new folder"
        )
    asked = options.model is not None or options.backbone is not None
    if asked and not _same_network(_new(options, root), classifier):
        raise EnrollError(
            f"{options.gallery} is a gallery of another model: vectors of different networks "
            "cannot be compared; leave out --model and --backbone to use its own, or name a new "
            "folder"
        )
    return classifier


def _new(options: Options, root: Path) -> Classifier:
    """Return a classifier whose network is to embed photos such as those below `root`."""
    if options.model is not None:
        return load_classifier(options.model)
    if options.backbone is None:
        raise EnrollError(
            f"there is no gallery {options.gallery} yet; say which network is to embed its photos: "
            "--model FOLDER, or --backbone NAME"
        )
    backbone = find_backbone(options.backbone).at(options.image_size)
    network = load_network(options.backbone, options.weights, options.image_size)
    size = backbone.preprocessing.image_size
    # Average pooling stands for LCA until there are maps to make it of.
    first = "gap" if options.head == "lca" else options.head
    classifier = new_classifier(network, first, 1, size).eval()
    if options.head == "lca":
        reader = PhotoReader(
            find_photos([options.whiten or root]), backbone.preprocessing, options.max_pixels
        )
        classifier = whitened(
            classifier, reader.batches(options.batch_size, 0), options.out_features
        )
    classifier.describe(["none yet"], backbone=backbone)
    return classifier


def whitened(classifier: Classifier, batches: Iterable[Batch], out_features: int) -> Classifier:
    """Return a classifier of the same backbone with an LCA that whitens the regions of photos.

    Raises:
        ValueError: there are no photos that can be read, or too few for so many features.
    """

    def maps() -> Iterator[Tensor]:
        with torch.inference_mode():
            for batch in batches:
                if len(batch.images):
                    yield classifier.forward_features(batch.images)

    lca = LCA.from_features(maps(), out_features)
    return Classifier(classifier.backbone, lca.to(torch.float32), 1).eval()


def _same_network(one: Classifier, other: Classifier) -> bool:
    """Return whether two classifiers give a photo the same embedding."""
    for part in ("preprocessing", "head"):
        if getattr(described(one), part) != getattr(described(other), part):
            return False
    states = [
        {name: t for name, t in model.state_dict().items() if not name.startswith("classifier.")}
        for model in (one, other)
    ]
    return states[0].keys() == states[1].keys() and all(
        torch.equal(tensor, states[1][name]) for name, tensor in states[0].items()
    )


def _gallery(classifier: Classifier, folder: Path) -> Gallery:
    gallery = gallery_of(classifier)
    if gallery is None:
        raise EnrollError(
            f"{folder} holds a trained classifier and no gallery; name a new folder, and give this "
            f"one as --model {folder}"
        )
    return gallery


def _embed(
    options: Options, classifier: Classifier, product_of: Mapping[Path, str]
) -> tuple[dict[str, Embedded], int]:
    """Return what could be embedded, by product, and the number of photos that could not."""
    compute = resolve_compute(options.device, "float32")
    # Starting processes takes longer than a batch of photos.
    few = len(product_of) <= options.batch_size and options.workers is None
    workers = workers_that_fit(
        share_cores(compute, 0 if few else options.workers),
        options.workers,
        photos=options.batch_size,
        image_size=described(classifier).preprocessing.image_size,
    )
    embedder = Embedder(classifier, compute, options.gallery, product_of)
    failed, start = 0, time.perf_counter()
    with tqdm(total=len(product_of), unit="img", desc="embedding") as bar:
        for photos, problems in embedder.batches(options.max_pixels, options.batch_size, workers):
            failed += _list_problems(problems)
            bar.update(photos)
    rate = len(product_of) / (time.perf_counter() - start)
    packshots, problems = embedder.lay_on_grounds(options.cut_out, options.batch_size)
    failed += _list_problems(problems)
    logger.info("%d photos, %d of them left out, %.1f img/s", len(product_of), failed, rate)
    if packshots:
        logger.info(
            "%d packshots are cut out and embedded on %d grounds each; --cut-out never takes them "
            "as they are",
            packshots,
            GROUNDS,
        )
    return embedder.products, failed


def _list_problems(problems: Mapping[Path, str]) -> int:
    """Log which photos could not be embedded; return how many."""
    for path, problem in problems.items():
        tqdm.write(f"{path}: {problem}", file=sys.stderr)
    return len(problems)


def _warn(gallery: Gallery, products: Mapping[str, Embedded]) -> None:
    """Log which photos are nearly as like another product as like their own."""
    found = lookalikes_of(gallery, products)
    for path, name, one in found[:_LISTED]:
        logger.warning(
            "%s: nearly as like %s (cosine %.3f) as like %s (%.3f)",
            path, one.other, one.cosine, name, one.own,
        )  # fmt: skip
    if found:
        logger.warning(
            "%d of %d photos are nearly as like another product: see that they lie in the right "
            "folder, or enroll photos that show what differs",
            len(found),
            sum(len(embedded.paths) for embedded in products.values()),
        )


def _size(gallery: Gallery) -> str:
    return f"the gallery has {gallery.out_features} products and {len(gallery)} vectors"


if __name__ == "__main__":
    sys.exit(main())
