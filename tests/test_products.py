import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emnist_jax.models.layers import Conv
from emnist_jax.storage import files
from experiments import products


def test_operands_are_rounded_and_nothing_else():
    """Against XLA's own products of bfloat16 with float32 sums."""
    x = np.random.default_rng(0).random((2, 6, 6, 3), np.float32)
    layer = Conv(5)
    variables = layer.init(jax.random.key(0), x)
    variables["params"]["bias"] += np.float32(1 / 3)  # stays as it is
    found = products.with_rounded_operands(layer.apply)(variables, x)
    expected = jax.lax.conv_general_dilated(
        x.astype(jnp.bfloat16),
        variables["params"]["kernel"].astype(jnp.bfloat16),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=jnp.float32,
    )
    np.testing.assert_allclose(found, expected + np.float32(1 / 3), atol=1e-6)
    assert abs(found - layer.apply(variables, x)).max() > 1e-4


@pytest.mark.long
def test_the_command(images, tmp_path):
    np.save(tmp_path / "images.npy", images[:20, ..., 0])
    products.main([f"--images={tmp_path}/images.npy", f"--out={tmp_path}/a.json"])
    rows = files.read_json(tmp_path / "a.json")["rounded"]
    assert rows["nowhere"]["latents_off_by"] == rows["decoder"]["latents_off_by"] == 0
    assert 0 < rows["encoder"]["latents_off_by"] == rows["both"]["latents_off_by"]
    assert 0 < rows["both"]["images_off_by"] < 0.1
    assert "| both | 0." in (tmp_path / "a.md").read_text()
