"""Compressed files are read and written with NumPy, llvmlite and tqdm alone."""

import subprocess
import sys

import numpy as np

PROGRAM = """
import sys
ours = ("emnist_jax", "numpy", "llvmlite", "tqdm")

class Nothing:  # of what else is installed
    def find_spec(self, name, path, target=None):
        known = name.split(".")[0] in (*ours, *sys.stdlib_module_names)
        if not known and not name.startswith("_"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nothing())
from emnist_jax import __main__ as console
sys.argv = ["emnist-jax", *sys.argv[1:]]
console.main()
"""


def call(*arguments):
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_files_need_no_jax_and_no_pillow(tmp_path, images):
    np.save(tmp_path / "a.npy", images[:20, ..., 0])
    call("codec", "compress", tmp_path / "a.npy", tmp_path / "a.ejx")
    assert "20 images" in call("codec", "info", tmp_path / "a.ejx")
    call("codec", "decompress", tmp_path / "a.ejx", tmp_path / "b.npy")
    assert np.array_equal(np.load(tmp_path / "b.npy"), images[:20, ..., 0])
