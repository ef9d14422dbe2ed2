"""The shared encoder and the four decoders, in Flax linen."""
