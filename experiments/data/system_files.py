"""Files that lie among photos and are none: what systems and programs hide there or derive."""

from __future__ import annotations

# In lower case. NAS: Synology's "@" and "#" folders, QNAP's, snapshots; Windows and macOS: bins,
# volume data; photo programs: caches of thumbnails. Names with a leading dot are taken anyway.
_FOLDERS = frozenset(
    {
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "@__thumb",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@sharebin",
        "@sharesnap",
        "@tmp",
        "[originals]",
        "__macosx",
        "__pycache__",
        "_gsdata_",
        "_thumbnails",
        "_thumbs",
        "captureone",
        "ipod photo cache",
        "lost+found",
        "network trash folder",
        "recycled",
        "recycler",
        "system volume information",
        "temporary items",
        "thumb",
        "thumbnails",
        "thumbs",
        "~snapshot",
    }
)
# Packages of photo programs: Lightroom's previews, Apple's libraries with copies in all sizes.
_FOLDER_SUFFIXES = (
    ".lrdata",
    ".lrcat-data",
    ".photoslibrary",
    ".aplibrary",
    ".migratedphotolibrary",
)
_FILES = frozenset(
    {
        "albumartsmall.jpg",
        "desktop.ini",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "icon\r",
        "thumbs.db",
    }
)
_FILE_PREFIXES = ("synophoto_", "synoindex_", "~$")
# Backups, halves of downloads, and a camera's own thumbnails.
_FILE_SUFFIXES = ("~", "_original", ".bak", ".crdownload", ".old", ".orig", ".part", ".thm", ".tmp")


def is_system_folder(name: str) -> bool:
    """Return whether a folder is a system's or a program's own, by its name."""
    lowered = name.lower()
    return lowered.startswith(".") or lowered in _FOLDERS or lowered.endswith(_FOLDER_SUFFIXES)


def is_system_file(name: str) -> bool:
    """Return whether a file is hidden, a system's, a thumbnail or a backup, by its name."""
    lowered = name.lower()
    return (
        lowered.startswith((".", *_FILE_PREFIXES))
        or lowered in _FILES
        or lowered.endswith(_FILE_SUFFIXES)
    )
