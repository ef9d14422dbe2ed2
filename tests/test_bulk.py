"""Bulk jobs in one process; tests/test_bulk_ray.py has those on a cluster."""

import gzip
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import time
import uuid

import numpy as np
import pytest
import zarr
from PIL import Image

from emnist_jax import codec, cpu, latents
from emnist_jax.bulk import __main__ as bulk
from emnist_jax.bulk import engine, index, shards
from emnist_jax.cli.errors import UserError
from emnist_jax.runs import load_run

RUN = str(pathlib.Path(__file__).parent / "golden" / "run-0.1.0")
ROWS = (5, 3, 0, 4)


@pytest.fixture
def sources(tmp_path, images):
    """Four shards of images, one of them empty."""
    folder, first = tmp_path / "shards", 0
    folder.mkdir()
    for number, rows in enumerate(ROWS):
        np.save(folder / f"part-{number}.npy", images[first : first + rows])
        first += rows
    return folder


def call(command, sources, out, *flags):
    pattern = f"{sources}/*" if os.path.isdir(sources) else sources
    bulk.main([command, f"--images={pattern}", f"--out={out}", *flags])


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_index(out):
    return json.loads((out / "index.json").read_text())


@pytest.fixture
def counted(monkeypatch):
    """Names of the sources that are compressed."""
    done, real = [], shards._COMMANDS["compress"]

    def compress(job, path, out):
        done.append(path.stem)
        return real(job, path, out)

    monkeypatch.setitem(shards._COMMANDS, "compress", compress)
    return done


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


class Killed(BaseException):
    pass


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


def test_more_shards_join_a_finished_job(sources, tmp_path, counted):
    out = tmp_path / "out"
    call("compress", f"{sources}/part-[12].npy", out)
    call("compress", f"{sources}/part-0.npy,{sources}/part-3.npy", out)
    assert counted == ["part-1", "part-2", "part-0", "part-3"]
    assert tuple(one["rows"] for one in read_index(out)["shards"]) == ROWS


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
