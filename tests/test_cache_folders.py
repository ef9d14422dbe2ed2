"""Cache folders are the user's own, and nobody else can write them."""

import os
import stat

import jax

from emnist_jax import train
from emnist_jax.storage import paths


def test_private_folders(tmp_path, monkeypatch):
    said = []

    def folder():
        return paths.private_folder(tmp_path / "cache", "ours", "xla", warn=said.append)

    made = tmp_path / "cache" / "ours" / "xla"
    assert folder() == made and folder() == made and not said
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700
    for path, mode in ((made, 0o770), (made.parent, 0o707)):
        path.chmod(mode)
        assert folder() is None and f"{path} can be written by others" in said.pop()
        path.chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert folder() is None and "is not a folder of yours" in said.pop()
    made.rmdir()
    made.symlink_to(tmp_path)
    assert folder() is None and "is not a folder of yours" in said.pop()
    made.parent.rename(tmp_path / "cache" / "gone")
    (tmp_path / "cache" / "ours").write_text("a file")
    assert folder() is None and "is not a folder of yours" in said.pop()
    assert not said


def test_cache_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    for chosen, expected in (
        ("/scratch", "/scratch"),
        ("gs://bucket", "/home/somebody/.cache"),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", chosen)
        assert str(paths.cache_home()) == expected
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # of no one
    assert paths.cache_home() is None


def test_compiled_programs_come_from_a_folder_of_ours(tmp_path, monkeypatch, capsys):
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    planted = tmp_path / "emnist_jax"
    planted.mkdir()
    try:
        for mode, used in (
            (0o777, None),
            (0o755, str(planted / "xla" / os.uname()[1])),
        ):
            planted.chmod(mode)
            jax.config.update(names[0], None)
            train.use_compilation_cache()
            assert jax.config.jax_compilation_cache_dir == used
            message = f"warning: {planted} can be written by others: it is not used"
            assert capsys.readouterr().err.startswith("" if used else message)
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
