"""Bulk jobs that write and read zarr arrays."""

import hashlib
import shutil
import subprocess
import sys
import time
import uuid

import numpy as np
import pytest
import zarr
from bulk_tools import call, content, read_index

from emnist_jax.cli.errors import UserError


def test_zarr_arrays_there_and_back(sources, tmp_path, images, counted, capsys):
    """Of files and arrays arrays are made; each is one shard."""
    out, again = tmp_path / "arrays", tmp_path / "images"
    call("compress", sources, out, "--form=zarr", "--model=fast")
    assert {path.name for path in out.iterdir()} == {
        *(f"part-{number}.zarr" for number in range(4)),
        "index.json",
    }
    np.testing.assert_array_equal(zarr.open(out / "part-3.zarr"), images[8:12])
    call("decompress", f"{out}/*.zarr", again)
    near = ("--mode=near-lossless", "--max_error=2", "--form=zarr")
    call("compress", f"{out}/*.zarr", tmp_path / "near", *near)
    for number in range(4):
        name, found = f"part-{number}", np.load(again / f"part-{number}.npy")
        assert (found == np.load(sources / f"{name}.npy")).all()
        array = zarr.open(tmp_path / "near" / f"{name}.zarr")
        off = array[:].astype(int) - found
        assert np.abs(off).max(initial=0) <= 2
        assert array.serializer.chunks.max_error == 2
    about = read_index(out)["shards"][0]  # as `sha256sum` would have it
    held = {p: p.read_bytes() for p in (out / about["shard"]).rglob("*") if p.is_file()}
    lines = sorted((p.relative_to(out / about["shard"]), d) for p, d in held.items())
    lines = [f"{hashlib.sha256(d).hexdigest()}  {p}\n" for p, d in lines]
    assert about["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert about["bytes"] == sum(map(len, held.values()))
    with pytest.raises(UserError, match="another job: form='zarr' .now None."):
        call("compress", sources, out, "--model=fast")


@pytest.mark.parametrize("kind", ["source", "flipped", "metadata", "chunk", "more"])
def test_an_array_that_has_changed(sources, tmp_path, counted, kind, capsys):
    arrays, out = tmp_path / "arrays", tmp_path / "out"
    call("compress", f"{sources}/part-[01].npy", arrays, "--form=zarr")
    call("compress", f"{arrays}/*.zarr", out, "--form=zarr")
    before, one = content(out), out / "part-1.zarr"
    chunk = next(path for path in (one / "c").rglob("*") if path.is_file())
    if kind == "source":
        source = zarr.open(arrays / "part-1.zarr")
        source[0] = source[1]
    elif kind == "flipped":
        chunk.write_bytes(chunk.read_bytes()[::-1])
    elif kind == "more":
        (one / "other").write_text("more")
    else:
        (one / "zarr.json" if kind == "metadata" else chunk).unlink()
    counted.clear()
    call("compress", f"{arrays}/*.zarr", out, "--form=zarr")
    assert counted == ["part-1"]
    said = "source changed" if kind == "source" else "output damaged"
    assert f"part-1.zarr: {said}; it has been done again" in capsys.readouterr().err
    assert {name for name, held in content(out).items() if held != before[name]} == (
        {"part-1.zarr/c/0/0/0/0", "index.json"} if kind == "source" else set()
    )


def test_an_array_that_is_not_ours_or_leads_away(sources, tmp_path):
    out, arrays = tmp_path / "out", tmp_path / "arrays"
    call("compress", f"{sources}/part-[01].npy", arrays, "--form=zarr")
    shutil.copytree(arrays / "part-1.zarr", out / "part-1.zarr")
    before = content(out)
    with pytest.raises(UserError, match="not the folder of a bulk job"):
        call("compress", f"{arrays}/part-1.zarr", out, "--form=zarr")
    assert content(out) == before
    (arrays / "part-0.zarr" / "c").rename(tmp_path / "c")
    (arrays / "part-0.zarr" / "c").symlink_to(tmp_path / "c")
    with pytest.raises(UserError, match="part-0.zarr/c: is a link"):
        call("decompress", f"{arrays}/*.zarr", tmp_path / "images")


def test_arrays_in_buckets(sources, tmp_path, counted):
    import fsspec

    memory, base = fsspec.filesystem("memory"), f"memory://{uuid.uuid4()}"
    call("compress", sources, tmp_path / "out", "--form=zarr")
    memory.put(f"{tmp_path}/out/", f"{base}/arrays/", recursive=True)
    call("compress", f"{base}/arrays/*.zarr", f"{base}/out", "--form=zarr")
    expected = content(tmp_path / "out")
    del expected["index.json"]
    found = memory.find(f"{base}/out", detail=False)
    held = {name.partition("/out/")[2]: memory.cat_file(name) for name in found}
    assert {"index.json", *expected} == held.keys() and expected.items() <= held.items()
    counted.clear()
    stray = f"{base}/out/part-1.zarr/c/9/0/0/0"
    memory.pipe_file(stray, b"of an older, larger array")
    memory.rm(f"{base}/out/part-2.zarr/zarr.json")
    call("compress", f"{base}/arrays/*.zarr", f"{base}/out", "--form=zarr")
    assert counted == ["file"] * 2 and not memory.exists(stray)
    call("decompress", f"{base}/out/*.zarr", tmp_path / "again")
    for path in sources.glob("*.npy"):
        assert (np.load(tmp_path / "again" / path.name) == np.load(path)).all()


@pytest.mark.long
def test_a_job_of_arrays_is_killed(sources, tmp_path, images):
    """With -9 once an array is there; the others come whole, and nothing stays."""
    for number in range(4, 16):
        np.save(sources / f"part-{number:02}.npy", images)
    flags = [f"--images={sources}/*", f"--out={tmp_path}/out", "--form=zarr"]
    call("compress", sources, tmp_path / "whole", "--form=zarr")
    started = [sys.executable, "-m", "emnist_jax.bulk", "compress", *flags]
    with subprocess.Popen(started) as process:
        while not list((tmp_path / "out").glob("part-*")):
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
    assert not (tmp_path / "out" / "index.json").exists()
    call("compress", sources, tmp_path / "out", "--form=zarr")
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }
