"""Bulk jobs in one process; tests/test_bulk_ray.py has those on a cluster."""

import gzip
import hashlib
import io
import json
import os
import pathlib
import tarfile
import uuid

import numpy as np
import pytest
from bulk_tools import ROWS, RUN, Killed, call, content, read_index
from PIL import Image

from emnist_jax import codec, cpu, latents
from emnist_jax.bulk import __main__ as bulk
from emnist_jax.bulk import engine, index, shards
from emnist_jax.cli.errors import UserError
from emnist_jax.runs import load_run


def test_encode_and_decode_give_what_latents_gives(sources, tmp_path, capsys):
    out, again = tmp_path / "latents", tmp_path / "images"
    call("encode", sources, out, f"--run={RUN}")
    assert "4 shards, 12 images; 4 done now, 0 were there" in capsys.readouterr().out
    call("decode", f"{out}/*.npy", again, f"--run={RUN}")
    names = [f"part-{number}.npy" for number in range(4)]
    assert sorted(content(out)) == sorted([*names, "index.json"])
    run = load_run(RUN)
    for name in names:
        for source, folder, decode in ((sources, out, False), (out, again, True)):
            latents.convert(run, source / name, tmp_path / "alone.npy", decode)
            alone = (tmp_path / "alone.npy").read_bytes()
            assert alone == (folder / name).read_bytes()
    found = read_index(out)
    assert found["rows"] == 12 and found["job"]["command"] == "encode"
    assert [one["shard"] for one in found["shards"]] == names
    assert tuple(one["rows"] for one in found["shards"]) == ROWS
    for one in found["shards"]:
        for about, path in ((one, out / one["shard"]), (one["source"], None)):
            held = pathlib.Path(path or about["path"]).read_bytes()
            assert about["sha256"] == hashlib.sha256(held).hexdigest()
            assert about["bytes"] == len(held)


def test_every_form_is_compressed_and_comes_back(tmp_path, images):
    import pyarrow
    from pyarrow import parquet

    folder, some = tmp_path / "shards", images[:4, ..., 0]
    folder.mkdir()
    np.save(folder / "a.npy", some)
    head = b"\0\0\x08\x03" + np.array(some.shape, ">u4").tobytes()
    with gzip.open(folder / "b-images-idx3-ubyte.gz", "wb") as file:
        file.write(head + some.tobytes())
    pictures = []
    with tarfile.open(folder / "c.tar", "w") as archive:
        for number, image in enumerate(some):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG")
            pictures.append({"bytes": png.getvalue()})
            entry = tarfile.TarInfo(f"{number}.png")
            entry.size = len(png.getvalue())
            archive.addfile(entry, io.BytesIO(png.getvalue()))
    table = pyarrow.table({"image": pictures})
    parquet.write_table(table, folder / "d.parquet")
    call("compress", folder, tmp_path / "out", "--model=fast")
    call("decompress", f"{tmp_path}/out/*.ejx", tmp_path / "again")
    names = ["a", "b-images-idx3-ubyte", "c", "d"]
    assert [one["shard"] for one in read_index(tmp_path / "out")["shards"]] == [
        f"{name}.ejx" for name in names
    ]
    for name in names:
        compressed = (tmp_path / "out" / f"{name}.ejx").read_bytes()
        assert compressed == codec.compress(some, model="fast")
        assert (np.load(tmp_path / "again" / f"{name}.npy") == some).all()


def test_the_same_command_again_touches_nothing(sources, tmp_path, counted, capsys):
    out = tmp_path / "out"
    call("compress", sources, out)
    before = content(out), [p.stat().st_ino for p in sorted(out.glob("*.ejx"))]
    capsys.readouterr()
    call("compress", sources, out)
    assert len(counted) == 4
    assert "0 done now, 4 were there" in capsys.readouterr().out
    assert before == (content(out), [p.stat().st_ino for p in sorted(out.glob("*.e*"))])


@pytest.mark.parametrize("form", ["ejx", "zarr"])
def test_resumes_with_what_is_missing(sources, tmp_path, monkeypatch, counted, form):
    out, real = tmp_path / "out", index.keep_record
    flags = ["--form=zarr"] if form == "zarr" else []
    call("compress", sources, tmp_path / "whole", *flags)
    counted.clear()

    def killed(job, record):  # after the record, before the output
        real(job, record)
        if record["shard"] == f"part-1.{form}":
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(index, "keep_record", killed)
        call("compress", sources, out, *flags)
    assert {path.name for path in out.iterdir()} == {f"part-0.{form}", "records"}
    names = ("job.json", f"part-0.{form}.json", f"part-1.{form}.json")
    assert {path.name for path in (out / "records").iterdir()} == {*names}
    call("compress", sources, out, *flags)
    assert counted == ["part-0", "part-1", "part-1", "part-2", "part-3"]
    assert content(out) == content(tmp_path / "whole")
    names = [{path.name for path in f.iterdir()} for f in (out, tmp_path / "whole")]
    assert names[0] == names[1]  # no leftovers


def test_a_changed_source_is_noticed(sources, tmp_path, images, counted, capsys):
    out = tmp_path / "out"
    call("compress", sources, out)
    before, about = content(out), (sources / "part-1.npy").stat()
    changed = np.load(sources / "part-1.npy")[::-1]
    np.save(sources / "part-1.npy", changed)
    # Neither size nor time tells.
    os.utime(sources / "part-1.npy", ns=(about.st_atime_ns, about.st_mtime_ns))
    counted.clear()
    call("compress", sources, out)
    assert "part-1.ejx: source changed; it has been done" in capsys.readouterr().err
    assert counted == ["part-1"]
    assert (codec.decompress((out / "part-1.ejx").read_bytes()) == changed).all()
    differ = {name for name, held in content(out).items() if held != before[name]}
    assert differ == {"part-1.ejx", "index.json"}


@pytest.mark.parametrize("kind", ["flipped", "cut", "gone"])
def test_a_damaged_output_is_done_again(sources, tmp_path, counted, kind):
    out = tmp_path / "out"
    call("compress", sources, out)
    before, path = content(out), out / "part-3.ejx"
    held = bytearray(path.read_bytes())
    held[-1] ^= 1
    if kind == "gone":
        path.unlink()
    else:
        path.write_bytes(held if kind == "flipped" else held[:-1])
    counted.clear()
    call("compress", sources, out)
    assert counted == ["part-3"] and content(out) == before


def test_more_shards_join_a_finished_job(sources, tmp_path, counted):
    out = tmp_path / "out"
    call("compress", f"{sources}/part-[12].npy", out)
    call("compress", f"{sources}/part-0.npy,{sources}/part-3.npy", out)
    assert counted == ["part-1", "part-2", "part-0", "part-3"]
    assert tuple(one["rows"] for one in read_index(out)["shards"]) == ROWS


def test_buckets(sources, tmp_path, counted):
    import fsspec

    memory, base = fsspec.filesystem("memory"), f"memory://{uuid.uuid4()}"
    memory.put(f"{sources}/", f"{base}/shards/", recursive=True)
    call("compress", sources, tmp_path / "out")
    counted.clear()
    call("compress", f"{base}/shards/*.npy", f"{base}/out")
    names = {name.rpartition("/")[2] for name in memory.ls(f"{base}/out", detail=False)}
    assert names - {"records"} == {*content(tmp_path / "out")} and len(counted) == 4
    assert not memory.find(f"{base}/out/records")  # buckets know no folders
    for path in (tmp_path / "out").glob("*.ejx"):
        assert memory.cat_file(f"{base}/out/{path.name}") == path.read_bytes()
    memory.pipe_file(f"{base}/out/part-1.ejx", b"damaged")
    call("compress", f"{base}/shards/*.npy", f"{base}/out")
    assert len(counted) == 5
    call("decompress", f"{base}/out/*.ejx", f"file://{tmp_path}/again")
    assert (
        np.load(tmp_path / "again/part-1.npy") == np.load(sources / "part-1.npy")
    ).all()
    with pytest.raises(UserError, match="cannot read nonsense://a"):
        call("compress", "nonsense://a/*", tmp_path / "b")
    with pytest.raises(UserError, match="lies there"):
        call("compress", f"{base}/shards/*.npy", f"{base}/shards")


def test_what_the_reader_says_is_said_once(tmp_path, images, capsys):
    (tmp_path / "shards").mkdir()
    for number in range(3):
        np.save(tmp_path / "shards" / f"{number}.npy", 255 - images[:5, ..., 0])
    call("compress", tmp_path / "shards", tmp_path / "out")
    said = capsys.readouterr().err
    assert said.count("warning: ") == said.count("looks like dark ink") == 1
    call("compress", tmp_path / "shards", tmp_path / "inverted", "--invert")
    assert "dark ink" not in capsys.readouterr().err
    found = codec.decompress((tmp_path / "inverted" / "1.ejx").read_bytes())
    assert (found == 255 - images[:5, ..., 0]).all()


def test_lossy_shards(sources, tmp_path):
    call("compress", sources, tmp_path / "out", "--mode=lossy", "--mse=0.002")
    source = np.load(sources / "part-1.npy").astype(int)
    found = codec.decompress((tmp_path / "out" / "part-1.ejx").read_bytes())
    error = ((found.reshape(source.shape) - source) ** 2).mean() / 255**2
    assert 0.0005 < error < 0.0022


def test_progress_without_a_terminal(sources, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bulk, "EVERY", 0.0)
    call("compress", sources, tmp_path / "out")
    assert "compress: 2 of 4 shards, " in capsys.readouterr().out


def job(tmp_path, **changes):
    coding = {"mode": "lossless", "max_error": 0, "bits": 8, "model": None}
    digests = shards.weights("compress", None, coding)
    fields = {"coding": coding, "reading": {}, "weights": digests, **changes}
    return index.Job("compress", str(tmp_path / "out"), None, **fields)


def test_an_actor_does_the_same(sources, tmp_path):
    task = shards.Task(job(tmp_path), str(sources / "part-0.npy"), "part-0.ejx")
    worker = object.__new__(engine.Worker)  # Ray makes it in a process of its own
    row = {"task": json.dumps(engine.dataclasses.asdict(task))}
    first, again = (json.loads(worker(row)["outcome"]) for _ in range(2))
    assert (first["done"], again["done"]) == ("new", "")
    assert first["record"] == again["record"] == shards.do_shard(task).record


def test_weights_that_differ_between_machines(sources, tmp_path):
    wrong = job(tmp_path, weights={"model": "0" * 64})
    task = shards.Task(wrong, str(sources / "part-0.npy"), "part-0.ejx")
    assert "weights differ between this machine" in engine.attempt(task)["error"]
    assert not (tmp_path / "out" / "part-0.ejx").exists()


def test_what_one_actor_takes():
    assert engine._share({"CPU": 9.0}, 2) == ({"num_cpus": 2}, 4)
    gpu = {"num_gpus": 1, "num_cpus": 1}
    assert engine._share({"CPU": 8.0, "GPU": 2.0}, 4) == (gpu, 2)
    assert engine._share({"TPU": 4.0}, 1)[0]["resources"] == {"TPU": 1}
    with pytest.raises(UserError, match="--cores=4: the cluster has 2 in all"):
        engine._share({"CPU": 2.0}, 4)


def test_threads(monkeypatch):
    monkeypatch.setenv("NPROC", "3")
    assert cpu.threads() == 3
    for nothing in ("", "0", "-1", "x"):
        monkeypatch.setenv("NPROC", nothing)
        assert cpu.threads() == len(os.sched_getaffinity(0))
