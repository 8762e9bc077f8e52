"""Drawing for the procedural tasks: colours, digits and boxes on a 64-unit canvas that scales to any size.

Coordinates are in *units*, 1/64 of the side; at 64 px a unit is a pixel, and every line is at least two units wide so
that a picture survives the smallest editor.
"""

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

UNITS = 64
WHITE, BLACK, INK = (255, 255, 255), (0, 0, 0), (24, 24, 32)
BLUE, MAGENTA = (40, 80, 240), (230, 40, 200)
PAPER = (240, 240, 236)

COLOURS = {
    "blue": (50, 90, 230),
    "green": (30, 165, 70),
    "yellow": (245, 205, 40),
    "purple": (140, 60, 190),
    "orange": (245, 135, 30),
    "teal": (40, 190, 200),
}

# 3x5 bitmaps of the digits, rows from top to bottom.
DIGITS = {
    "0": "111101101101111",
    "1": "010110010010111",
    "2": "111001111100111",
    "3": "111001111001111",
    "4": "101101111001001",
    "5": "111100111001111",
    "6": "111100111101111",
    "7": "111001010010010",
    "8": "111101111101111",
    "9": "111101111001111",
}


class Canvas:
    """A square RGB image drawn in units."""

    def __init__(self, size: int, background: Colour | Image.Image = PAPER) -> None:
        if size < UNITS:
            raise ValueError(f"size={size} is too small; procedural pictures need at least {UNITS} px")
        self.size = size
        if isinstance(background, Image.Image):
            self.image = background.copy()
        else:
            self.image = Image.new("RGB", (size, size), background)
        self._draw = ImageDraw.Draw(self.image)

    def _px(self, *units: float) -> list[int]:
        return [round(unit * self.size / UNITS) for unit in units]

    def rect(self, x: float, y: float, width: float, height: float, fill: Colour) -> None:
        """A filled rectangle; `x + width` and `y + height` are exclusive."""
        left, top, right, bottom = self._px(x, y, x + width, y + height)
        self._draw.rectangle((left, top, right - 1, bottom - 1), fill=fill)

    def frame(self, x: float, y: float, width: float, height: float, fill: Colour, line: float = 2) -> None:
        """A frame of thickness `line` just inside the rectangle."""
        self.rect(x, y, width, line, fill)
        self.rect(x, y + height - line, width, line, fill)
        self.rect(x, y, line, height, fill)
        self.rect(x + width - line, y, line, height, fill)

    def polygon(self, points: list[tuple[float, float]], fill: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon([(px[0], px[1]) for px in (self._px(*point) for point in points)], fill=fill)

    def disc(self, x: float, y: float, radius: float, fill: Colour) -> None:
        """A filled disc round (x, y)."""
        left, top, right, bottom = self._px(x - radius, y - radius, x + radius, y + radius)
        self._draw.ellipse((left, top, right - 1, bottom - 1), fill=fill)

    def line(self, points: list[tuple[float, float]], fill: Colour, width: float = 2) -> None:
        """A polyline."""
        self._draw.line([(px[0], px[1]) for px in (self._px(*p) for p in points)], fill=fill, width=self._px(width)[0])

    def digit(self, text: str, x: float, y: float, fill: Colour = INK, grain: float = 2) -> None:
        """One digit, 3 x 5 grains, with its upper left corner at (x, y)."""
        for index, bit in enumerate(DIGITS[text]):
            if bit == "1":
                self.rect(x + index % 3 * grain, y + index // 3 * grain, grain, grain, fill)

    def shape(self, name: str, x: float, y: float, radius: float, fill: Colour) -> None:
        """A named flat shape centred at (x, y)."""
        r = radius
        if name == "square":
            self.rect(x - r, y - r, 2 * r, 2 * r, fill)
        elif name == "circle":
            self.disc(x, y, r, fill)
        elif name == "triangle":
            self.polygon([(x, y - r), (x + r - 0.5, y + r - 1), (x - r, y + r - 1)], fill)
        elif name == "diamond":
            self.polygon([(x, y - r), (x + r - 0.5, y), (x, y + r - 0.5), (x - r, y)], fill)
        else:
            raise ValueError(f"unknown shape {name!r}")


SHAPES = ("square", "circle", "triangle", "diamond")
