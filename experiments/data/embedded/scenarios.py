"""The experiments the products are photographed for, and their photos on disk."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from experiments.data.dataset import DataError, ProductDataset, Sample
from experiments.data.embedded.catalogue import catalogue
from experiments.data.embedded.design import Design
from experiments.data.embedded.pen import Image
from experiments.data.embedded.photos import packshot, store_photo

GENERATOR_VERSION = 1  # goes up with every change to any photo, so that old ones are replaced
SPLITS = ("train", "validation", "test")

_MANIFEST = "manifest.json"
_ABANDONED_AFTER_S = 3600.0  # rendering takes about a minute; nobody still writes there after this


@dataclass(frozen=True)
class Scenario:
    """How many photos of which kind each product gets.

    Attributes:
        name: of the scenario and of its folder.
        assortment: whose products are photographed, see `catalogue`.
        packshots: training packshots per product.
        store_photos: training store photos per product.
        validation: validation store photos per product.
        test: test store photos per product.
        train_repeats: how often each training photo is drawn in an epoch.
    """

    name: str
    assortment: str
    packshots: int
    store_photos: int
    validation: int
    test: int
    train_repeats: int = 1

    def images_per_class(self) -> dict[str, int]:
        """Number of photos of one product in each split."""
        train = self.packshots + self.store_photos
        return {"train": train, "validation": self.validation, "test": self.test}


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("multi-packshot", "multi-packshot", 5, 0, 5, 15, train_repeats=5),
        Scenario("one-shot", "one-shot", 1, 0, 5, 15, train_repeats=16),
        Scenario("store", "store", 0, 64, 5, 20),
        Scenario("pretraining", "pretraining", 10, 30, 4, 4),
    )
}


def load_scenario(
    scenario: str,
    root: Path,
    *,
    image_size: int = 112,
    workers: int | None = None,
    progress: bool = True,
) -> ProductDataset:
    """The photos of a scenario as a data set; they are rendered first where they are missing.

    Args:
        scenario: a key of `SCENARIOS`.
        root: folder that holds a folder for each scenario.
        image_size: side of the square photos in pixels.
        workers: processes that render; by default one for each processor this one may use.
        progress: whether rendering shows a progress bar.

    Returns:
        The data set "embedded/<scenario>", its classes in alphabetical order.

    Raises:
        DataError: see `write_scenario`.
    """
    folder = write_scenario(
        scenario, root, image_size=image_size, workers=workers, progress=progress
    )
    chosen = SCENARIOS[scenario]
    classes = _classes(chosen)
    train, validation, test = (
        tuple(
            Sample(folder / split / name / _file(index), label)
            for label, name in enumerate(classes)
            for index in range(chosen.images_per_class()[split])
        )
        for split in SPLITS
    )
    return ProductDataset(
        name=f"embedded/{scenario}",
        classes=classes,
        train=train,
        validation=validation,
        test=test,
        train_repeats=chosen.train_repeats,
    )


def write_scenario(
    scenario: str,
    root: Path,
    *,
    image_size: int = 112,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Renders a scenario to `root`/<scenario>/<split>/<class>/<index>.png, RGB.

    What is there already is kept where generator version, image size and counts are the same, and
    replaced where they are not. The folder appears under its name only when it is complete.
    Processes are started afresh, so a script that calls this with more than one worker needs its
    ``if __name__ == "__main__":``.

    Args:
        scenario: a key of `SCENARIOS`.
        root: folder that holds a folder for each scenario; made where it is missing.
        image_size: side of the square photos in pixels.
        workers: processes that render; by default one for each processor this one may use.
        progress: whether to show a progress bar.

    Returns:
        The folder of the scenario.

    Raises:
        DataError: there is no such scenario, `image_size` or `workers` is too small, the folder
            holds something else, or no worker could be started.
    """
    chosen = _scenario(scenario)
    workers = _usable_processors() if workers is None else workers
    if image_size < 16 or workers < 1:
        raise DataError(f"image_size {image_size} must be >= 16 and workers {workers} >= 1")
    folder = root / scenario
    manifest = _manifest(chosen, image_size)
    if _is_complete(folder, manifest):
        return folder
    _refuse_foreign(folder)
    root.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(root, scenario)
    partial = root / f".{scenario}-{uuid.uuid4().hex}.partial"
    try:
        partial.mkdir()
        _render_all(chosen, partial, image_size, workers, progress)
        (partial / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        _move_into_place(partial, folder, manifest)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def is_rendered(scenario: str, root: Path, *, image_size: int = 112) -> bool:
    """Whether `root` holds the photos that `write_scenario` would write."""
    return _is_complete(root / scenario, _manifest(_scenario(scenario), image_size))


def render_image(scenario: Scenario, design: Design, split: str, index: int, size: int) -> Image:
    """One photo of a scenario, which depends on nothing but the arguments and the version.

    Args:
        scenario: decides which training photos are packshots, namely the first ones.
        design: the product.
        split: one of `SPLITS`.
        index: number of the photo among those of this product and split.
        size: side of the photo in pixels.

    Returns:
        RGB uint8 [size, size, 3].
    """
    key = (GENERATOR_VERSION, design.key, SPLITS.index(split), index)
    rng = np.random.default_rng(np.random.SeedSequence(key))
    is_packshot = split == "train" and index < scenario.packshots
    return (packshot if is_packshot else store_photo)(design, rng, size)


def _scenario(name: str) -> Scenario:
    if name not in SCENARIOS:
        raise DataError(f"unknown scenario {name!r}; there are: {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


def _usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _classes(scenario: Scenario) -> tuple[str, ...]:
    return tuple(sorted(design.slug for design in catalogue(scenario.assortment)))


def _file(index: int) -> str:
    return f"{index:03d}.png"


def _manifest(scenario: Scenario, image_size: int) -> dict[str, object]:
    return {
        "generator_version": GENERATOR_VERSION,
        "scenario": scenario.name,
        "image_size": image_size,
        "images_per_class": scenario.images_per_class(),
        "classes": list(_classes(scenario)),
    }


def _is_complete(folder: Path, manifest: dict[str, object]) -> bool:
    try:
        return bool(json.loads((folder / _MANIFEST).read_text(encoding="utf-8")) == manifest)
    except (OSError, ValueError):
        return False


def _refuse_foreign(folder: Path) -> None:
    """A folder without a manifest was not written here and must not be replaced."""
    if folder.exists() and not (folder / _MANIFEST).is_file():
        raise DataError(f"{folder} holds something else: move it away or choose another root")


def _remove_abandoned(root: Path, scenario: str) -> None:
    """Removes what killed runs left behind."""
    for partial in root.glob(f".{scenario}-*.partial"):
        with contextlib.suppress(FileNotFoundError):  # its process may be done just now
            if time.time() - partial.stat().st_mtime > _ABANDONED_AFTER_S:
                shutil.rmtree(partial, ignore_errors=True)


def _move_into_place(partial: Path, folder: Path, manifest: dict[str, object]) -> None:
    outdated = partial.with_name(f".{folder.name}-{uuid.uuid4().hex}.partial")
    if folder.exists() and not _is_complete(folder, manifest):
        os.replace(folder, outdated)
    try:
        os.replace(partial, folder)
    except OSError:
        if not _is_complete(folder, manifest):  # else another process was faster
            raise
    shutil.rmtree(outdated, ignore_errors=True)


def _render_all(scenario: Scenario, folder: Path, size: int, workers: int, progress: bool) -> None:
    designs = catalogue(scenario.assortment)
    total = len(designs) * sum(scenario.images_per_class().values())
    with tqdm(total=total, desc=scenario.name, unit="photo", disable=not progress) as bar:
        for count in _rendered(scenario, designs, folder, size, min(workers, len(designs))):
            bar.update(count)


def _rendered(
    scenario: Scenario, designs: tuple[Design, ...], folder: Path, size: int, workers: int
) -> Iterator[int]:
    """Renders one product after the other and yields how many photos each of them has."""
    if workers == 1:
        for design in designs:
            yield _render_class(scenario, design, folder, size)
        return
    fresh = multiprocessing.get_context("spawn")  # a fork would inherit locks of other threads
    try:
        with ProcessPoolExecutor(workers, fresh, _start_worker) as pool:
            jobs = [
                pool.submit(_render_class, scenario, design, folder, size) for design in designs
            ]
            try:
                for job in as_completed(jobs):
                    yield job.result()
            finally:
                pool.shutdown(cancel_futures=True)
    except BrokenProcessPool as error:
        raise DataError(
            "a rendering process died: if the script that renders is not guarded by "
            "'if __name__ == \"__main__\":', guard it; else try workers=1"
        ) from error


def _start_worker() -> None:
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends a worker whose parent was killed, which would otherwise wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _render_class(scenario: Scenario, design: Design, folder: Path, size: int) -> int:
    counts = scenario.images_per_class()
    for split, count in counts.items():
        place = folder / split / design.slug
        place.mkdir(parents=True)
        for index in range(count):
            image = render_image(scenario, design, split, index, size)
            _, stream = cv2.imencode(".png", image[..., ::-1])
            (place / _file(index)).write_bytes(stream.tobytes())
    return sum(counts.values())
