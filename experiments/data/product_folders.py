"""Photos of products in a folder for each: whose name is the product's."""

from __future__ import annotations

import logging
from pathlib import Path

from experiments.data.class_folders import read_class_folders
from experiments.data.dataset import DataError
from experiments.data.left_out import describe
from experiments.data.split_folders import find_split_folders

logger = logging.getLogger(__name__)

_LISTED = 10


def find_products(root: Path) -> dict[Path, str]:
    """Return the name of its product for every photo of a folder with a folder per product.

    What else is there and left out is logged.

    Raises:
        DataError: there are no such folders, or one has no photos.
    """
    if not root.is_dir():
        raise DataError(
            f"PHOTOS {root} is {'a file' if root.exists() else 'not there'}; expected a folder "
            "with a folder of photos per product"
        )
    splits = find_split_folders(root)
    if splits:
        raise DataError(
            f"PHOTOS {root} is a data set with the folders "
            f"{', '.join(folder.name for folder in splits.values())}; name one of them"
        )
    found = read_class_folders(root)
    for line in describe(found.left_out, root):
        logger.info("%s: %s", root, line)
    if found.empty:
        raise DataError(
            f"PHOTOS {root} has folders without photos: {', '.join(found.empty[:_LISTED])}; put "
            "photos into them, or remove them"
        )
    if not found.photos:
        loose = f" ({len(found.loose)} photos lie in it)" if found.loose else ""
        raise DataError(
            f"PHOTOS {root} has no folders of photos{loose}; expected a folder per product"
        )
    if found.loose:
        logger.warning("%s: %d photos beside the folders are left out", root, len(found.loose))
    return {path: name for name, paths in found.photos.items() for path in paths}
