"""Maps beside images: a class or a depth for every pixel, decoded without mixing any.

`Classes` and `Depth` are the kinds there are; both have `decode`, `resize`, `dtype` and
`none`, the value where nothing is known.
"""

import dataclasses
import io

import cv2
import numpy as np
from PIL import Image

from vit_ssl_jax.errors import UserError

IGNORED = 255  # a pixel without a class, in files and in batches
COLOURS = ("RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")
GREY = ("L", "P", "1", "I", "I;16", "I;16B", "I;16L", "F")


@dataclasses.dataclass(frozen=True)
class Classes:
    """A class for every pixel: uint8, IGNORED where there is none.

    count: classes are 0 to count - 1. zero_is_none: in files 0 is no class and k is
    class k - 1, as ADE20K has it (mmsegmentation's `reduce_zero_label`).
    """

    count: int
    zero_is_none: bool = False
    dtype = "uint8"
    none = IGNORED

    def decode(self, encoded: bytes | np.ndarray, where: str) -> np.ndarray:
        """A map `[h w]`; of a palette PNG the indices, never the colours.

        Raises UserError for a map in colours and for a class that isn't one of `count`.
        """
        read = decode_numbers(encoded, where)
        if not np.issubdtype(read.dtype, np.integer) and read.dtype != bool:
            raise UserError(f"{where}: its map has fractions, where classes are needed")
        read = read.astype(np.int64)
        none = read == IGNORED
        found = read - self.zero_is_none
        if self.zero_is_none:
            none |= read == 0
        wrong = ~none & ((found < 0) | (found >= self.count))
        if wrong.any():
            first = self.zero_is_none
            raise UserError(
                f"{where}: its map has class {int(read[wrong][0])}, but the {self.count} "
                f"classes are {int(first)} to {self.count - 1 + first} ({IGNORED}"
                + (" and 0" if first else "")
                + ": none); set config.evals.segmentation.classes and zero_is_none to "
                "what the maps have"
            )
        return np.where(none, IGNORED, found).astype(np.uint8)

    def resize(self, read: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """The nearest pixel's class: `[h w] -> [H W]`."""
        return cv2.resize(read, shape[::-1], interpolation=cv2.INTER_NEAREST)


@dataclasses.dataclass(frozen=True)
class Depth:
    """A distance for every pixel: float32 metres, 0 where it wasn't measured.

    unit: what a metre is in files of whole numbers (1000: millimetres). Fractions are
    metres, as TFDS has them.
    """

    unit: float = 1000.0
    dtype = "float32"
    none = 0.0

    def decode(self, encoded: bytes | np.ndarray, where: str) -> np.ndarray:
        """A map `[h w]`; what is no number or negative wasn't measured.

        Raises UserError for a map in colours, and one of whole numbers in 8 bits.
        """
        read = decode_numbers(encoded, where)
        if read.dtype in (np.uint8, bool):
            raise UserError(
                f"{where}: its depths have 8 bits, of which no distances can be made; "
                "give 16-bit PNGs of millimetres"
            )
        whole = np.issubdtype(read.dtype, np.integer)
        metres = read.astype(np.float32) / np.float32(self.unit if whole else 1.0)
        return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))

    def resize(self, read: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Bilinear where all four pixels were measured, else 0: `[h w] -> [H W]`."""
        metres = cv2.resize(read, shape[::-1], interpolation=cv2.INTER_LINEAR)
        known = (read > 0).astype(np.float32)
        known = cv2.resize(known, shape[::-1], interpolation=cv2.INTER_LINEAR)
        return np.where(known > 1 - 1e-4, metres, np.float32(0))


Kind = Classes | Depth


def decode_numbers(encoded: bytes | np.ndarray, where: str) -> np.ndarray:
    """The numbers of a map as they are in the file: `[h w]`, of any type.

    Raises UserError for what is no image, and for one in colours.
    """
    if isinstance(encoded, np.ndarray):
        if encoded.ndim == 3 and encoded.shape[2] == 1:
            encoded = encoded[..., 0]
        if encoded.ndim != 2:
            raise UserError(f"{where}: its map has shape {encoded.shape}, not [h w]")
        return encoded
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            if opened.mode in COLOURS:
                raise UserError(
                    f"{where}: its map is in colours ({opened.mode}), where the number "
                    "of a class or a distance is needed; give PNGs in grey or with a "
                    "palette (VOC: SegmentationClass as it comes, not converted)"
                )
            if opened.mode not in GREY:
                raise UserError(f"{where}: its map is of mode {opened.mode}, not grey")
            return np.asarray(opened)
    except UserError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever goes wrong in them
        raise UserError(f"{where}: its map can't be read ({error})") from error
