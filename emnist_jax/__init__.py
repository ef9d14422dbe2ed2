"""Learned compression of small grayscale images in JAX."""

__version__ = "0.1.0"
