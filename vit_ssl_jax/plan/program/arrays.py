"""Arrays of an HLO program: element type, shape, and how they lie in memory."""

import dataclasses
import math
import re

ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of the program as it lies in memory."""

    dtype: str
    shape: tuple
    layout: str  # e.g. "1,0:T(8,128)S(1)"; "": none given

    @property
    def space(self):
        """0 is HBM; others are on the chip (1: VMEM)."""
        match = re.search(r"S\((\d+)\)", self.layout)
        return int(match[1]) if match else 0

    @property
    def size(self):
        """Bytes of its elements: int."""
        return math.ceil(math.prod(self.shape) * bits(self.dtype) / 8)

    @property
    def bytes(self):
        """Bytes in memory, those of padding to the layout's tiles with them: int."""
        order, _, rest = self.layout.partition(":")
        tile = re.match(r"T\(([\d,]+)\)", rest)
        physical = [self.shape[int(i)] for i in order.split(",") if i]  # minor first
        if not physical:
            physical = list(self.shape[::-1])
        if tile:
            sizes = [int(size) for size in tile[1].split(",")][::-1]
            physical += [1] * (len(sizes) - len(physical))
            for i, size in enumerate(sizes):
                physical[i] = -(-physical[i] // size) * size
        return math.ceil(math.prod(physical) * bits(self.dtype) / 8)

    def __str__(self):
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def bits(dtype):
    """Bits of an element: "bf16" -> 16, "pred" -> 8, what is no array 0."""
    if dtype == "pred":
        return 8
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 0


def arrays(text):
    """The arrays of a type, `f32[2]{0}` or a tuple of such, in order."""
    return [
        Array(dtype, tuple(int(n) for n in shape.split(",") if n), layout)
        for dtype, shape, layout in ARRAY.findall(text)
    ]
