"""The first table of a TIFF, which a JPEG's EXIF is, too."""

import struct
from collections.abc import Iterator

ORDERS = {b"II": "<", b"MM": ">"}  # of bytes


def entries(content: bytes, start: int = 0) -> Iterator[tuple[int, int, int, str]]:
    """Entries of the table of a TIFF that begins at `start`.

    (tag, type, place of the value, byte order as `struct` has it); none where there is no
    TIFF. Raises struct.error where it ends too early.
    """
    order = ORDERS.get(content[start : start + 2])
    if order is None:
        return
    (table,) = struct.unpack_from(order + "I", content, start + 4)
    (count,) = struct.unpack_from(order + "H", content, start + table)
    for i in range(count):
        place = start + table + 2 + 12 * i
        tag, kind = struct.unpack_from(order + "HH", content, place)
        yield tag, kind, place + 8, order
