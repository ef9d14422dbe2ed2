import pytest
from emnist_tools import assert_holds, write_archive

from emnist_jax import data
from emnist_jax.cli.errors import UserError
from emnist_jax.data import archive


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A port that refuses at once stands for NIST."""
    monkeypatch.setattr(archive, "NIST_URL", "http://127.0.0.1:9/gzip.zip")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_auto_without_emnist_is_glyphs_with_a_framed_warning(tmp_path, capsys):
    dataset = data.load("auto", data_dir=tmp_path)
    assert dataset.name == "glyphs"
    lines = capsys.readouterr().err.strip().splitlines()
    assert {len(line) for line in lines} == {80}
    assert set(lines[0]) == set(lines[-1]) == {"*"}
    text = " ".join(line.strip("* ") for line in lines)
    for part in ("NOT EMNIST", "127.0.0.1:9", "refused", "--emnist_archive", "=glyphs"):
        assert part in text
    assert not list(tmp_path.iterdir())


def test_auto_takes_what_is_given_or_prepared(tmp_path, monkeypatch, capsys):
    path = tmp_path / "gzip.zip"
    splits = write_archive(path)
    dataset = data.load("auto", data_dir=tmp_path / "data", emnist_archive=path)
    assert dataset.name == "emnist/balanced"
    assert_holds(dataset, splits)
    assert data.load("auto", data_dir=tmp_path / "data").name == "glyphs"
    monkeypatch.setattr(archive, "NIST_SHA256", archive.sha256(path))
    path.unlink()
    capsys.readouterr()
    assert_holds(data.load("auto", data_dir=tmp_path / "data"), splits)
    assert capsys.readouterr().err == ""


def test_auto_does_not_hide_an_unusable_archive(tmp_path):
    (tmp_path / "gzip.zip").write_text("nothing")
    with pytest.raises(UserError, match="no zip archive"):
        data.load("auto", data_dir=tmp_path, emnist_archive=tmp_path / "gzip.zip")


@pytest.mark.parametrize("name", ["emnist/balanced", "emnist/letters"])
def test_emnist_by_name_without_network_says_what_to_do(tmp_path, name):
    with pytest.raises(UserError) as caught:
        data.load(name, data_dir=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"--dataset={name} is not on this machine: http://")
    assert "--emnist_archive=PATH" in message and "--dataset=glyphs" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["", "minst", "emnist", "emnist/", "emnist/kuzushiji"])
def test_unknown_names_are_refused_with_the_known(name):
    with pytest.raises(
        UserError, match=f"^--dataset={name} is unknown: .*auto, glyphs"
    ):
        data.load(name)


def test_glyphs_take_no_archive():
    with pytest.raises(UserError, match="^--emnist_archive=x.zip does not go with"):
        data.load("glyphs", emnist_archive="x.zip")
