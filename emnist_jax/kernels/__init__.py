"""Convolution kernels for CPUs, generated with LLVM and called by XLA."""
