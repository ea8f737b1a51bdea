"""The examples, run as a user would: in full, on real digits, with the accuracies they have to reach."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def run(script, *arguments):
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"})
    return done.returncode, done.stdout, done.stderr


def row(output, name):
    return [float(x) for x in re.findall(r"[\d.]+", re.search(rf"│ {name} +│(.*)│", output).group(1))]


@pytest.mark.slow
def test_cgmnist_learns():
    code, out, err = run("multimodal_cgmnist.py", "--strategy", "sum", "--strategy", "mmpareto", "--require", "85")
    assert code == 0, err
    for name in ("sum", "mmpareto"):
        fused, gray, colour, conflict = row(out, name)
        assert gray >= 85
        assert colour > 20
        assert fused > 20
        assert 0 <= conflict <= 100


@pytest.mark.slow
def test_multimnist_learns():
    code, out, err = run("multitask_multimnist.py", "--strategy", "sum", "--require", "80")
    assert code == 0, err
    assert min(row(out, "sum")[:2]) >= 80


@pytest.mark.parametrize("script", ["multimodal_cgmnist.py", "multitask_multimnist.py"])
def test_help_and_wrong_names(script, tmp_path):
    code, out, _ = run(script, "--help")
    assert code == 0
    assert "--strategy" in out
    assert "--data-root" in out
    code, _, err = run(script, "--strategy", "mmparetto")
    assert code != 0
    assert "mmpareto" in err
    code, _, err = run(script, "--data-root", str(tmp_path))
    assert code != 0
    assert "train-images" in err


def test_torchvision_layout(tmp_path):
    """IDX files in <root>/MNIST/raw, gzipped or plain, give back what was written."""
    import gzip

    import numpy as np

    sys.path.insert(0, str(EXAMPLES))
    try:
        from digits import load_digits
    finally:
        sys.path.remove(str(EXAMPLES))
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images, labels = np.arange(2 * 28 * 28).reshape(2, 28, 28).astype(np.uint8), np.array([3, 7], np.uint8)
    for part, pack, end in (("train", gzip.compress, ".gz"), ("t10k", bytes, "")):
        header = b"\0\0\x08\x03" + b"".join(int(n).to_bytes(4, "big") for n in images.shape)
        (raw / f"{part}-images-idx3-ubyte{end}").write_bytes(pack(header + images.tobytes()))
        (raw / f"{part}-labels-idx1-ubyte{end}").write_bytes(pack(b"\0\0\x08\x01" + (2).to_bytes(4, "big") + labels.tobytes()))
    x, y, test_x, test_y = load_digits(tmp_path)
    assert (x * 255).round().byte().numpy().tolist() == images.tolist() == (test_x * 255).round().byte().numpy().tolist()
    assert y.tolist() == test_y.tolist() == [3, 7]
    x, y, test_x, test_y = load_digits()
    assert (len(x), len(test_x)) == (4000, 1000)
    assert set(y.bincount().tolist()) == {400}
    assert set(test_y.bincount().tolist()) == {100}
