"""A stroke alphabet, so that labels carry words without depending on any font.

Letters are drawn as round-ended strokes; weight, slant, width and bend make each brand's own look.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from experiments.data.embedded.pen import Colour, Pen, Points, shifted

# Strokes of each character, separated by "|", on a grid whose capitals are 6 units high. A stroke
# goes through points "x,y" and arcs "@centre x,centre y,radius x,radius y,from degree,to degree".
_CAP_HEIGHT = 6.0
_STROKES = {
    "A": "0,6 2.1,0 4.2,6 | .8,4 3.4,4",
    "B": "0,3 0,0 1.8,0 @1.8,1.45,1.5,1.45,-90,90 0,2.9 0,6 2,6 @2,4.45,1.7,1.55,90,-90",
    "C": "@2.1,3,2.1,3,-48,-312",
    "D": "0,0 0,6 1.5,6 @1.5,3,2.5,3,90,-90 0,0",
    "E": "3.2,0 0,0 0,6 3.2,6 | 0,3 2.6,3",
    "F": "3.2,0 0,0 0,6 | 0,3 2.6,3",
    "G": "@2.1,3,2.1,3,-48,-360 2.5,3",
    "H": "0,0 0,6 | 3.8,0 3.8,6 | 0,3 3.8,3",
    "I": "0,0 0,6",
    "J": "2.8,0 2.8,4.4 @1.4,4.4,1.4,1.6,0,160",
    "K": "0,0 0,6 | 3.6,0 0,3.6 | 1.2,2.5 3.8,6",
    "L": "0,0 0,6 3.1,6",
    "M": "0,6 0,0 2.4,4.2 4.8,0 4.8,6",
    "N": "0,6 0,0 3.9,6 3.9,0",
    "O": "@2.3,3,2.3,3,0,360",
    "P": "0,6 0,0 1.9,0 @1.9,1.65,1.7,1.65,-90,90 0,3.3",
    "Q": "@2.3,3,2.3,3,0,360 | 2.9,4.3 4.5,6.2",
    "R": "0,6 0,0 1.9,0 @1.9,1.6,1.7,1.6,-90,90 0,3.2 | 1.7,3.2 3.7,6",
    "S": "@1.8,1.5,1.6,1.5,-30,-270 @1.8,4.5,1.8,1.5,-90,150",
    "T": "0,0 4,0 | 2,0 2,6",
    "U": "0,0 0,4 @1.9,4,1.9,2,180,0 3.8,0",
    "V": "0,0 2.1,6 4.2,0",
    "W": "0,0 1.4,6 2.9,1 4.4,6 5.8,0",
    "X": "0,0 3.9,6 | 3.9,0 0,6",
    "Y": "0,0 2,3.1 4,0 | 2,3.1 2,6",
    "Z": "0,0 3.7,0 0,6 3.7,6",
    "0": "@1.9,3,1.9,3,0,360",
    "1": "0,1.3 1.5,0 1.5,6",
    "2": "@1.8,1.8,1.8,1.8,-170,35 0,6 3.7,6",
    "3": "@1.7,1.45,1.6,1.45,-150,90 @1.7,4.45,1.8,1.55,-90,150",
    "4": "2.9,6 2.9,0 0,4.2 3.9,4.2",
    "5": "3.3,0 .5,0 .2,2.8 @1.7,4.1,1.8,1.9,-130,140",
    "6": "3,0 @4.4,4,4.4,4,-115,-170 | @1.8,4.1,1.8,1.9,0,360",
    "7": "0,0 3.6,0 1.2,6",
    "8": "@1.8,1.45,1.5,1.45,0,360 | @1.8,4.45,1.8,1.55,0,360",
    "9": "@1.8,1.9,1.8,1.9,0,360 | 3.5,2.6 1.4,6",
    "%": "3.8,0 .6,6 | @.8,1.2,.8,1.2,0,360 | @3.6,4.8,.8,1.2,0,360",
    ".": "0,5.8 0,6",
    "-": "0,3.2 1.8,3.2",
    "&": "4,6 .8,1.8 @1.7,1.2,1,1.2,-210,40 .6,3.4 @1.6,4.4,1.6,1.6,-130,-320",
    " ": "0,9 2,9",  # below any bend: it only takes up room
}


def line_of(text: str, spacing: float) -> tuple[list[Points], float]:
    """The strokes of a line of text and its width, both in cap heights; the top left is (0, 0).

    `spacing` lies between the middles of two letters' neighbouring strokes, in cap heights.
    """
    strokes: list[Points] = []
    right = 0.0
    for char in text.upper():
        letter = _letter(char)
        strokes.extend(shifted(stroke, right, 0.0) for stroke in letter if char != " ")
        right += max(float(stroke[:, 0].max()) for stroke in letter) + spacing
    return strokes, right - spacing


def write(
    pen: Pen,
    text: str,
    x: float,
    y: float,
    height: float,
    colour: Colour,
    *,
    weight: float = 0.16,
    slant: float = 0.0,
    bend: float = 0.0,
    spacing: float = 0.2,
    max_width: float = np.inf,
) -> float:
    """Writes a line of text centred on (x, y) and returns its width in units.

    Args:
        pen: what it is drawn with.
        text: letters, digits, space and ``.-%&``.
        x: centre of the line.
        y: centre of the line.
        height: height of the capitals in units.
        colour: of the strokes.
        weight: thickness of the strokes in cap heights.
        slant: how far the top leans right, in cap heights.
        bend: how far the ends hang below the middle, in cap heights.
        spacing: clear room between letters, in cap heights.
        max_width: the line is narrowed, and at last made smaller, until it fits.
    """
    strokes, width = line_of(text, spacing + weight)
    narrow = min(1.0, max(0.72, max_width / (width * height)))
    height = min(height, max_width / (width * narrow))
    for stroke in strokes:
        across = stroke[:, 0] - width / 2
        hang = bend * (2 * across / width) ** 2 - bend / 2
        leaning = narrow * across + slant * (0.5 - stroke[:, 1])
        points = np.stack([x + height * leaning, y + height * (stroke[:, 1] - 0.5 + hang)], axis=1)
        pen.stroke(points, weight * height, colour)
    return width * narrow * height


@cache
def _letter(char: str) -> tuple[Points, ...]:
    return tuple(_stroke(path) for path in _STROKES[char].split("|"))


def _stroke(path: str) -> Points:
    pieces = [
        _arc(item[1:]) if item.startswith("@") else np.array([_numbers(item)])
        for item in path.split()
    ]
    return np.vstack(pieces) / _CAP_HEIGHT


def _arc(item: str) -> Points:
    x, y, rx, ry, start, end = _numbers(item)
    turn = np.radians(np.linspace(start, end, 20))
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], axis=1)


def _numbers(item: str) -> list[float]:
    return [float(number) for number in item.split(",")]
