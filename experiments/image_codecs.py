"""JPEG and WebP of small images: sheets of many, at the best quality that fits."""

import io

import numpy as np

SHEET = 32  # images along each side of a sheet


def sheets(images: np.ndarray) -> list[np.ndarray]:
    """Square sheets uint8 of up to 1,024 images [N, 28, 28, 1], the last one padded."""
    count = SHEET**2
    missing = -len(images) % count
    padded = np.concatenate([images, np.zeros((missing, 28, 28, 1), np.uint8)])
    blocks = padded.reshape(-1, SHEET, SHEET, 28, 28).transpose(0, 1, 3, 2, 4)
    return list(blocks.reshape(-1, SHEET * 28, SHEET * 28))


def best_within(
    kind: str, images: np.ndarray, budget: int
) -> tuple[float, int, np.ndarray] | None:
    """The best quality of a Pillow codec that keeps to a budget.

    Args:
      kind: 'JPEG' or 'WEBP'.
      images: uint8 `[N, 28, 28, 1]`, N a multiple of 1,024 for a fair count.
      budget: bytes an image.

    Returns:
      Bytes an image, the quality setting and the decoded images; None if even the
      lowest setting needs more.
    """
    from PIL import Image

    def encode(level: int) -> list[bytes]:
        made = []
        for sheet in sheets(images):
            buffer = io.BytesIO()
            image = Image.fromarray(sheet)  # optimize: JPEG's own Huffman tables
            image.save(buffer, kind, quality=level, method=4, optimize=True)
            made.append(buffer.getvalue())
        return made

    low, high, best = 0, 100, None
    while low <= high:
        level = (low + high) // 2
        encoded = encode(level)
        size = sum(map(len, encoded)) / len(images)
        if size <= budget:
            low, best = level + 1, (size, level, encoded)
        else:
            high = level - 1
    if best is None:
        return None
    size, level, encoded = best
    decoded = [np.array(Image.open(io.BytesIO(x)).convert("L")) for x in encoded]
    tiles = np.stack(decoded).reshape(-1, SHEET, 28, SHEET, 28).transpose(0, 1, 3, 2, 4)
    return size, level, tiles.reshape(-1, 28, 28, 1)[: len(images)]
