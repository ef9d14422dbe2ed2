"""Lossless and lossy codec for small grayscale images."""
