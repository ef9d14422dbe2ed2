"""Data sets as upright uint8 arrays."""
