import pytest

from experiments import bytes_figure


@pytest.mark.long
def test_the_figure_is_drawn_from_real_files(run_path, tmp_path, capsys):
    out = tmp_path / "bytes.png"
    runs = [f"--run={run_path}", f"--published={run_path}"]
    call = [*runs, "--dataset=glyphs", "--images=20", f"--out={out}"]
    bytes_figure.main(call)
    lines = capsys.readouterr().out.splitlines()
    assert out.read_bytes()[:4] == b"\x89PNG" and len(lines) == 6
    assert lines[0] == "original 784 bytes every pixel"
    assert "every pixel" in lines[1] and "MSE" in lines[2] and "128 bytes" in lines[5]
