"""Weights say what they are, and nothing else is taken for them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from beamforge.core.errors import ConfigError
from beamforge.io import weights
from beamforge.io.weights import Weights

TENSORS = {"a": torch.arange(6.0).reshape(2, 3).mT, "b": torch.ones(1, dtype=torch.float64)}


def test_written_weights_are_read_back(tmp_path):
    header = {"model": "toy", "settings": {"width": 3}, "commit": "abc"}
    weights.save(tmp_path / "w.safetensors", Weights(TENSORS, header))
    found = weights.load("toy", tmp_path / "w.safetensors")
    assert found.header == header and found.settings == {"width": 3}
    assert all(torch.equal(found.tensors[name], value) for name, value in TENSORS.items())
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_other_files_are_rejected_in_one_sentence(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(ConfigError, match=r"checkpoint must be a safetensors file.*w\.safetensors"):
        weights.load("toy", path)
    path.write_bytes(b"not that")
    with pytest.raises(ConfigError, match="checkpoint must be a safetensors file"):
        weights.load("toy", path)
    for metadata in (None, {"format": "pt"}, {weights.KEY: "{}"}, {weights.KEY: "3"}):
        save_file({"a": torch.ones(2)}, path, metadata)
        with pytest.raises(ConfigError, match="header that names its model"):
            weights.load("toy", path)
    weights.save(path, Weights({"a": torch.ones(2)}, {"model": "other", "settings": {}}))
    with pytest.raises(ConfigError, match="checkpoint must be of model toy, got one of other"):
        weights.load("toy", path)
    with pytest.raises(ConfigError, match="unknown weights 'multiplier'; did you mean 'multipliers'"):
        weights.load("multiplier")


def test_import_needs_no_other_package():
    """Methods read their weights, and importing those must stay cheap."""
    script = (
        "import sys, torch; before = set(sys.modules); import beamforge.io.weights\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["beamforge"]
