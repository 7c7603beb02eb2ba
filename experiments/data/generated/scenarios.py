"""The experiments the products are photographed for, and their photos on disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.pool import ThreadPool
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from tqdm import tqdm

from experiments.data.dataset import DataError, ProductDataset
from experiments.data.folder import load_folder
from experiments.data.generated.catalogue import PRETRAINING, Design, catalogue
from experiments.data.generated.pack import Pixels
from experiments.data.generated.photos import packshot, store_photo
from experiments.data.images import default_workers
from experiments.data.source import CatalogEntry, DataOptions, Source
from experiments.storage import save_json

GENERATOR_VERSION = 4  # goes up with every change to any photo, so that old ones are replaced
SPLITS = ("train", "validation", "test")

_MANIFEST = "manifest.json"
_ABANDONED_AFTER_S = 3600.0  # rendering takes about a minute; nobody still writes there after this


@dataclass(frozen=True)
class Scenario:
    """How many photos of which kind each product gets.

    Attributes:
        assortment: name of the products that are photographed, see `catalogue`.
        packshots: training packshots per product.
        store_photos: training store photos per product.
        validation: validation store photos per product.
        test: test store photos per product.
        train_repeats: how often each training photo is drawn in an epoch.
        role: the paper's data set whose role it plays, or None.
    """

    assortment: str
    packshots: int
    store_photos: int
    validation: int
    test: int
    train_repeats: int = 1
    role: str | None = None

    def images_per_class(self) -> dict[str, int]:
        """Return the number of photos of one product in each split."""
        train = self.packshots + self.store_photos
        return {"train": train, "validation": self.validation, "test": self.test}


SCENARIOS = {
    "multi-packshot": Scenario("multi-packshot", 5, 0, 2, 10, 3, role="GroZi-120"),
    "one-shot": Scenario("one-shot", 1, 0, 2, 10, 12, role="CAPG-GP"),
    "store": Scenario("store", 0, 2, 3, 20, 12, role="DM4VM"),
    "pretraining": Scenario(PRETRAINING, 10, 30, 4, 4),
}


def load_scenario(scenario: str, root: Path, *, image_size: int = 112) -> ProductDataset:
    """Return the photos of a scenario as the data set "embedded/<scenario>".

    They are rendered first where they are missing; arguments and errors are `write_scenario`'s.
    """
    folder = write_scenario(scenario, root, image_size=image_size)
    dataset = load_folder(folder, train_repeats=SCENARIOS[scenario].train_repeats, quiet=True)
    return replace(dataset, name=f"embedded/{scenario}", notes=())


def write_scenario(
    scenario: str, root: Path, *, image_size: int = 112, workers: int | None = None
) -> Path:
    """Render a scenario to `root`/<scenario>/<split>/<class>/<index>.png.

    What is there already is kept where generator version, image size and counts are the same, and
    replaced where they are not. The folder appears under its name only when it is complete.
    Processes are started afresh, so a script that calls this with more than one worker needs its
    ``if __name__ == "__main__":``.

    Args:
        scenario: a key of `SCENARIOS`.
        root: folder that holds a folder for each scenario; made where it is missing.
        image_size: side of the square photos in pixels.
        workers: number of processes that render; by default one per core, 8 at most.

    Returns:
        The folder of the scenario.

    Raises:
        DataError: there is no such scenario, `image_size` or `workers` is too small, the folder
            holds something else, or a font is missing.
    """
    manifest = _manifest(scenario, image_size)
    workers = default_workers() if workers is None else workers
    if image_size < 16 or workers < 1:
        raise DataError(f"image_size {image_size} must be >= 16 and workers {workers} >= 1")
    folder = root / scenario
    if _is_complete(folder, manifest):
        return folder
    if folder.exists() and not (folder / _MANIFEST).is_file():  # was not written here
        raise DataError(f"{folder} holds something else: move it away or choose another root")
    root.mkdir(parents=True, exist_ok=True)
    with _partial(root, scenario) as unfinished:
        photos = unfinished / scenario
        _render_all(scenario, photos, image_size, workers)
        save_json(manifest, photos / _MANIFEST)
        _move_into_place(photos, folder, manifest)
    return folder


def render_image(scenario: Scenario, design: Design, split: str, index: int, size: int) -> Pixels:
    """Return the photo of a number among those of a product and split, uint8 [size, size, C].

    It depends on the arguments and the version alone. The first training photos are packshots,
    with their opacity (C = 4); all others are RGB.
    """
    key = (GENERATOR_VERSION, SPLITS.index(split), index, *design.slug.encode())
    is_packshot = split == "train" and index < scenario.packshots
    return (packshot if is_packshot else store_photo)(design, np.random.default_rng(key), size)


def _manifest(scenario: str, image_size: int) -> dict[str, object]:
    if scenario not in SCENARIOS:
        raise DataError(f"unknown scenario {scenario!r}; there are: {', '.join(SCENARIOS)}")
    chosen = SCENARIOS[scenario]
    return {
        "generator_version": GENERATOR_VERSION,
        "scenario": scenario,
        "image_size": image_size,
        "images_per_class": chosen.images_per_class(),
        "classes": sorted(design.slug for design in catalogue(chosen.assortment)),
    }


def _is_complete(folder: Path, manifest: dict[str, object]) -> bool:
    try:
        return bool(json.loads((folder / _MANIFEST).read_text(encoding="utf-8")) == manifest)
    except (OSError, ValueError):
        return False


@contextmanager
def _partial(root: Path, scenario: str) -> Iterator[Path]:
    """Make a folder that is gone afterwards, and remove those that killed runs left behind."""
    prefix, suffix = f".{scenario}-", ".partial"
    for left in root.glob(f"{prefix}*{suffix}"):
        if time.time() - left.stat().st_mtime > _ABANDONED_AFTER_S:
            shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(suffix, prefix, root, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _move_into_place(photos: Path, folder: Path, manifest: dict[str, object]) -> None:
    if folder.exists() and not _is_complete(folder, manifest):
        os.replace(folder, photos.with_name("outdated"))
    try:
        os.replace(photos, folder)
    except OSError:
        if not _is_complete(folder, manifest):  # else another process was faster
            raise


def _render_all(name: str, folder: Path, size: int, workers: int) -> None:
    scenario = SCENARIOS[name]
    designs = catalogue(scenario.assortment)
    total = len(designs) * sum(scenario.images_per_class().values())
    # A fork would inherit the locks of other threads, and wait for them forever.
    processes = get_context("spawn").Pool
    with (
        tqdm(total=total, desc=name, unit="photo") as bar,
        processes(workers, _start_worker) if workers > 1 else ThreadPool(1) as pool,
    ):
        for count in pool.imap_unordered(partial(_render_class, scenario, folder, size), designs):
            bar.update(count)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    cv2.setNumThreads(1)


def _render_class(scenario: Scenario, folder: Path, size: int, design: Design) -> int:
    """Render all photos of a product and return how many they are."""
    counts = scenario.images_per_class()
    for split, count in counts.items():
        place = folder / split / design.slug
        place.mkdir(parents=True)
        for index in range(count):
            image = render_image(scenario, design, split, index, size)
            order = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
            _, stream = cv2.imencode(".png", cv2.cvtColor(image, order))
            (place / f"{index:03d}.png").write_bytes(stream.tobytes())
    return sum(counts.values())


def _load(scenario: str, options: DataOptions) -> ProductDataset:
    return load_scenario(scenario, options.cache, image_size=options.image_size)


EMBEDDED = Source(
    name="embedded",
    datasets={
        f"embedded/{name}": CatalogEntry(partial(_load, name), scenario.role)
        for name, scenario in SCENARIOS.items()
        if scenario.role
    },
    home="nowhere: these photos are generated when they are needed",
    check=lambda _root: [],
)
"""The scenarios that methods are compared on, as the catalog knows them."""
