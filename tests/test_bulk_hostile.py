"""Bulk jobs on what is damaged, foreign, changing or hostile."""

import json
import os
import shutil
import sys

import pytest
from bulk_tools import RUN, Killed, call, content, read_index

from emnist_jax.bulk import __main__ as bulk
from emnist_jax.bulk import index, shards
from emnist_jax.cli.errors import UserError


def test_a_bad_shard_stops_no_other(sources, tmp_path, counted):
    out, bad = tmp_path / "out", sources / "part-1.npy"
    good = bad.read_bytes()
    bad.write_bytes(good[:-1])
    with pytest.raises(UserError, match=f"1 of 4 shards failed.*{bad}.*cut short"):
        call("compress", sources, out)
    assert "index.json" not in content(out) and len(list(out.glob("*.ejx"))) == 3
    bad.write_bytes(good)
    counted.clear()
    call("compress", sources, out)
    assert counted == ["part-1"] and read_index(out)["rows"] == 12


def test_a_source_that_changes_while_it_is_read(sources, tmp_path, monkeypatch):
    real = shards._COMMANDS["compress"]

    def compress(job, path, out):
        os.utime(path, (1, 1))
        return real(job, path, out)

    monkeypatch.setitem(shards._COMMANDS, "compress", compress)
    with pytest.raises(UserError, match="4 of 4 shards failed.*while it was read"):
        call("compress", sources, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.ejx"))


def test_another_job_is_refused(sources, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other-run"
    shutil.copytree(RUN, other)
    with open(other / "encoder" / "manifest.json", "a") as manifest:
        manifest.write(" ")
    call("encode", f"{sources}/part-0.npy", out, f"--run={RUN}")
    before = content(out)
    for command, *flags in (
        ("encode", f"--run={other}"),
        ("encode", f"--run={RUN}", "--invert"),
        ("compress",),
    ):
        with pytest.raises(UserError, match="belongs to another job: .* choose"):
            call(command, sources, out, *flags)
    assert content(out) == before


FOREIGN = {
    "somebody's folder": {"notes.txt": "mine"},
    "an index of another program": {"index.json": '{"shards": []}', "a": "b"},
    "no JSON": {"index.json": "{"},
    "an array": {"index.json": "[]"},
    "a deep one": {"index.json": "[" * 100_000},
    "a folder of records of another": {"records/a.json": "{}"},
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_folder_is_left_alone(sources, tmp_path, kind):
    out = tmp_path / "out"
    for name, text in FOREIGN[kind].items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
    before = content(out)
    with pytest.raises(UserError, match="not|damaged"):
        call("compress", sources, out)
    assert content(out) == before


GOOD = {"shard": "a.ejx", "rows": 1, "bytes": 1, "sha256": "0" * 64}
GOOD["source"] = {"path": "a", "bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    "change",
    [
        {"shard": "../a"},
        {"shard": 1},
        {"rows": -1},
        {"rows": 1e99},
        {"rows": True},
        {"sha256": "0"},
        {"source": None},
        {"source": {**GOOD["source"], "bytes": "1"}},
        {"source": {**GOOD["source"], "path": None}},
    ],
    ids=str,
)
def test_a_hostile_index(sources, tmp_path, change):
    out = tmp_path / "out"
    call("compress", sources, out)
    about = read_index(out)
    for hostile in ([{**GOOD, **change}], [[]], {}, None):
        (out / "index.json").write_text(json.dumps({**about, "shards": hostile}))
        before = content(out)
        with pytest.raises(UserError, match="index.json is damaged"):
            call("compress", sources, out)
        assert content(out) == before
    assert index._is_record(GOOD)


def test_an_index_that_lies_is_found_out(sources, tmp_path, counted):
    out = tmp_path / "out"
    call("compress", sources, out)
    whole = content(out)
    about = read_index(out)
    for record in about["shards"]:
        record["sha256"] = "0" * 64
    (out / "index.json").write_text(json.dumps(about))
    counted.clear()
    call("compress", sources, out)
    assert len(counted) == 4 and content(out) == whole


def test_a_hostile_record(sources, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(
            index, "finish", lambda job, records: (_ for _ in ()).throw(Killed)
        )
        call("compress", sources, out)
    (out / "records" / "part-0.ejx.json").write_text(json.dumps({**GOOD, "rows": -1}))
    with pytest.raises(UserError, match="1 of 4 .*part-0.ejx.json is damaged"):
        call("compress", sources, out)
    (tmp_path / "elsewhere").mkdir()
    (out / "records").rename(tmp_path / "elsewhere" / "records")
    (out / "records").symlink_to(tmp_path / "elsewhere" / "records")
    with pytest.raises(UserError, match="records in it is a link"):
        call("compress", sources, out)


def test_a_file_of_the_users_in_our_folder(sources, tmp_path):
    out = tmp_path / "out"
    call("compress", f"{sources}/part-0.npy", out)
    (out / "part-1.ejx").write_text("mine")
    with pytest.raises(UserError, match="part-1.ejx: is not of this job; move it"):
        call("compress", sources, out)
    assert (out / "part-1.ejx").read_text() == "mine"


def test_calls_that_cannot_be_right(sources, tmp_path, monkeypatch):
    (sources / "part-0.csv").write_text("")
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "out"
    (tmp_path / "link").symlink_to(sources)
    latent_arrays = ["--mode=latent", f"--run={RUN}", "--form=zarr"]
    lossy_arrays = ["--mode=lossy", "--mse=0.01", "--form=zarr"]
    for images, folder, flags, message in (
        (sources / "*", out, [], "part-0.csv and .*part-0.npy would both become"),
        (sources / "x*", out, [], "no file is there"),
        (sources, out, [], "is a folder; name its files"),
        (sources / "part-1.npy", sources, [], "lies there; choose another folder"),
        (sources / "part-1.npy", tmp_path / "link", [], "lies there"),
        (tmp_path / "link" / "part-1.npy", sources, [], "lies there"),
        (sources / "part-1.npy", tmp_path, [], "lies there"),
        (sources / "part-1.npy", out, ["--mode=best"], "--mode=best is unknown"),
        (sources / "part-1.npy", out, ["--mode=latent"], "needs --run"),
        (sources / "part-1.npy", out, latent_arrays, "--mode=latent: zarr"),
        (sources / "part-1.npy", out, lossy_arrays, "--mode=lossy: zarr"),
        (sources / "part-1.npy", out, ["--model=x"], "--model=x: No such file"),
        (sources / "part-1.npy", out, ["--run=x"], "--run=.*/x: holds no trained"),
        (sources / "part-1.npy", out, ["--address=auto"], r"pip install '.*\[ray\]'"),
        (sources / "part-1.npy", sources / "part-2.npy", [], "cannot read"),
    ):
        before = content(sources)
        with pytest.raises(UserError, match=message):
            call_ = ["compress", f"--images={images}", f"--out={folder}", *flags]
            bulk.main(call_)
        assert content(sources) == before
