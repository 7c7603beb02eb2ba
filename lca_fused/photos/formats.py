"""Which files are photos by their name or first bytes, and which of them can be read here."""

from __future__ import annotations

import importlib
from contextlib import suppress
from functools import cache
from pathlib import Path

from PIL import Image

# What Pillow opens and is no photo: documents, drawings, icons, and containers that it only names.
_NO_PHOTOS = "BUFR CUR EPS GRIB HDF5 ICNS ICO IPTC MPEG PDF WMF"
_HEIF = ".heic .heics .heif .heifs .hif"
_AVIF = ".avif .avifs"
_RAW = """
    .3fr .arw .bay .cap .cr2 .cr3 .crw .dcr .dcs .dng .drf .eip .erf .fff .gpr .iiq .k25 .kdc .mdc
    .mef .mos .mrw .nef .nrw .orf .pef .ptx .pxn .raf .raw .rw2 .rwl .rwz .sr2 .srf .srw .x3f
"""
_OTHERS = """
    .ai .bpg .cdr .cur .emf .eps .exr .flif .hdp .hdr .icns .ico .jls .jng .jxl .jxr .psb .svg .svgz
    .wdp .wmf .xcf
"""

# First bytes of what phones, browsers and programs save photos in, and the suffix for them.
_SIGNATURES = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"GIF87a": ".gif",
    b"GIF89a": ".gif",
    b"\x00\x00\x00\x0cjP  ": ".jp2",
}
_BRANDS = {b"avif": ".avif", b"avis": ".avif"} | dict.fromkeys(
    (b"heic", b"heim", b"heis", b"heix", b"hevc", b"hevx", b"mif1", b"msf1"), ".heic"
)
_HEAD = 16  # bytes


@cache
def readable_suffixes() -> frozenset[str]:
    """Return the suffixes, in lower case, of the photo formats that this Pillow decodes."""
    _register_heif()
    Image.init()
    return frozenset(
        suffix
        for suffix, name in Image.registered_extensions().items()
        if name in Image.OPEN and name not in _NO_PHOTOS.split()
    )


def why_not_read(suffix: str) -> str | None:
    """Return what to do to have photos read whose format is not.

    Args:
        suffix: the suffix of their names, in lower case.

    Returns:
        A clause, or None for any other suffix.
    """
    if suffix in readable_suffixes():
        return None
    for suffixes, advice in (
        (_HEIF, "to read it: pip install pi-heif, or save as JPEG"),
        (_AVIF, "to read it: pip install 'pillow>=11.3', or save as JPEG"),
        (_RAW, "camera raw is not read: save as JPEG or TIFF"),
        (_OTHERS, "save as JPEG or PNG"),
    ):
        if suffix in suffixes.split():
            return advice
    return None


def content_suffix(path: Path) -> str | None:
    """Return the suffix that a regular file should have by its first bytes.

    Returns:
        A photo's suffix, or None if the file starts as no photo does or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for start, suffix in _SIGNATURES.items() if head.startswith(start)), None)


def _register_heif() -> None:
    """Let Pillow read HEIC and HEIF where a package for it is installed."""
    for name in ("pillow_heif", "pi_heif"):
        with suppress(ImportError):
            importlib.import_module(name).register_heif_opener()
            return


_register_heif()  # when imported: a process that only decodes never asks for a suffix
