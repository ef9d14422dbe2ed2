"""The pixel model in exact integers: what files are coded with.

docs/codec_format.md describes the arithmetic; `native` has it for CPUs,
`integer_network` with JAX.
"""

import numpy as np

from emnist_jax.codec.integer_form import PixelModelConfig, check_exact


class IntegerModel:
    """A pixel model whose sums are exact.

    Attributes:
      config: the model's sizes.
      arrays: its integers, as in the model file.
    """

    def __init__(self, config: PixelModelConfig, arrays: dict[str, np.ndarray]):
        """Takes integers as `quantise` returns them.

        Raises:
          UserError: sums could leave the range that float32 holds exactly.
        """
        self.config, self.arrays = config, arrays
        check_exact(arrays, config)
