"""JPEG, WebP, AVIF and JPEG XL, sheets of small images, at the quality that fits."""

import io

import numpy as np

SHEET = 32  # images along each side of a sheet


def sheet(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """uint8 images [N, h, w] side by side [rows * h, columns * w], padded with 0."""
    count, height, width = images.shape
    padded = np.zeros((rows * columns, height, width), np.uint8)
    padded[:count] = images
    tiles = padded.reshape(rows, columns, height, width)
    return tiles.swapaxes(1, 2).reshape(rows * height, -1)


def coded(kind: str, images: np.ndarray, level: int) -> list[bytes]:
    """Sheets of images in a file each.

    Args:
      kind: 'JPEG', 'WEBP' or 'AVIF', of Pillow, or 'JPEG XL', of imagecodecs.
      images: uint8 `[N, 28, 28, 1]`, N a multiple of 1,024 for a fair count.
      level: of quality, 0 to 100; of JPEG XL, distances of 25 to 0.
    """
    if kind == "JPEG XL":
        return [_jpeg_xl(part, 25 - level / 4) for part in _sheets(images)]
    from PIL import Image

    gray = {"subsampling": "4:0:0"} if kind == "AVIF" else {}
    made = []
    for pixels in _sheets(images):
        buffer = io.BytesIO()
        # optimize: JPEG's own Huffman tables
        image = Image.fromarray(pixels)
        image.save(buffer, kind, quality=level, method=4, optimize=True, **gray)
        made.append(buffer.getvalue())
    return made


def _sheets(images: np.ndarray) -> list[np.ndarray]:
    starts = range(0, len(images), SHEET**2)
    return [sheet(images[at : at + SHEET**2, ..., 0], SHEET, SHEET) for at in starts]


def _jpeg_xl(pixels: np.ndarray, distance: float) -> bytes:
    import imagecodecs

    return imagecodecs.jpegxl_encode(pixels, distance=distance)


def _pixels(encoded: bytes) -> np.ndarray:
    """uint8 [height, width] of a file of any of the kinds."""
    if encoded[:2] == b"\xff\x0a" or encoded[4:8] == b"JXL ":
        import imagecodecs

        return imagecodecs.jpegxl_decode(encoded)
    from PIL import Image

    return np.array(Image.open(io.BytesIO(encoded)).convert("L"))


def decoded(encoded: list[bytes], count: int) -> np.ndarray:
    """The first `count` images of sheets, uint8 `[count, 28, 28, 1]`."""
    tiles = np.stack([_pixels(content) for content in encoded])
    tiles = tiles.reshape(-1, SHEET, 28, SHEET, 28).transpose(0, 1, 3, 2, 4)
    return tiles.reshape(-1, 28, 28, 1)[:count]


def best_within(
    kind: str, images: np.ndarray, budget: int
) -> tuple[float, int, np.ndarray] | None:
    """The best quality that keeps to a budget.

    Args:
      kind: as for `coded`.
      images: likewise.
      budget: bytes an image.

    Returns:
      Bytes an image, the quality setting and the decoded images; None if even the
      lowest setting needs more.
    """
    low, high, best = 0, 100, None
    while low <= high:
        level = (low + high) // 2
        encoded = coded(kind, images, level)
        size = sum(map(len, encoded)) / len(images)
        if size <= budget:
            low, best = level + 1, (size, level, encoded)
        else:
            high = level - 1
    if best is None:
        return None
    size, level, encoded = best
    return size, level, decoded(encoded, len(images))
