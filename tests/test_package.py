"""The wheels: their contents, size, installed command and imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "src" / "beamforge"
LARGEST = 15e6
"""Largest size of the library's wheel, in bytes."""


def run(*command: object, cwd: Path) -> str:
    """Standard output of a command that must succeed, without this checkout on its path."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(project: Path, folder: Path) -> Path:
    """The wheel of a project of this repository."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=project)
    return next(folder.glob("*.whl"))


def environment(home: Path, *wheels: Path) -> Path:
    """The bin folder of a new environment with the wheels and, for their dependencies, this environment's packages."""
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "-q", "--python", python, "install", "--no-deps", "--no-index", *wheels, cwd=home)
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return home / "bin"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build(REPOSITORY, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return build(REPOSITORY / "weights", tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    return environment(tmp_path_factory.mktemp("environment"), wheel)


def test_the_wheel_holds_the_package_and_its_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {str(path.relative_to(PACKAGE.parent)) for path in files} == {n for n in names if n.startswith("beamforge/")}
    assert "beamforge/py.typed" in names
    assert "beamforge/data/munich_site.npz" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_is_small_and_has_the_large_weights_as_an_extra(wheel, weights):
    assert wheel.stat().st_size < LARGEST
    with zipfile.ZipFile(wheel) as archive:
        about = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    version = weights.name.split("-")[1]
    assert f"Requires-Dist: beamforge-weights=={version}; extra == 'weights'" in about.splitlines()


def test_the_wheel_of_the_weights_holds_all_of_them(weights):
    names = set(zipfile.ZipFile(weights).namelist())
    source = REPOSITORY / "weights" / "src"
    files = {path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {str(path.relative_to(source)) for path in files} == {n for n in names if n.startswith("beamforge_weights/")}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_weights_are_found_where_their_wheel_is_installed(wheel, weights, installed, tmp_path_factory, tmp_path):
    load = "from beamforge.io.weights import load; print(len(load('wit', name='wit-86').tensors))"
    both = environment(tmp_path_factory.mktemp("both"), wheel, weights)
    assert int(run(both / "python", "-c", load, cwd=tmp_path)) > 0
    hidden = "import sys; sys.modules['beamforge_weights'] = None  # this environment may have them as well"
    told = run(installed / "python", "-c", f"{hidden}\ntry: {load}\nexcept Exception as e: print(e)", cwd=tmp_path)
    assert "`pip install ./weights`" in told and "`beamforge train wit`" in told


def test_the_installed_command_solves_a_file_from_another_directory(installed, tmp_path):
    rng = np.random.default_rng(0)
    H = rng.standard_normal((3, 2, 4)) + 1j * rng.standard_normal((3, 2, 4))
    np.savez(tmp_path / "downlink.npz", H=H, noise=0.1, p_max=1.0)
    options = ("--problem", "sum-rate", "--out", "beams.npz", "--json")
    summary = json.loads(run(installed / "beamforge", "solve", "downlink.npz", *options, cwd=tmp_path))
    assert summary["method"]
    beams = np.load(tmp_path / "beams.npz")
    np.testing.assert_allclose(np.sum(np.abs(beams["W"]) ** 2, (1, 2)), 1, rtol=1e-9)
    where = run(installed / "python", "-c", "import beamforge; print(beamforge.__file__)", cwd=tmp_path)
    assert Path(where).is_relative_to(installed.parent)


def imported_by(statement: str, cwd: Path) -> set[str]:
    """Top-level packages that a statement loads in a new process, besides those of torch and the standard library."""
    script = (
        "import sys, torch; before = set(sys.modules)\n"
        f"{statement}\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    return set(run(sys.executable, "-c", script, cwd=cwd).split())


def test_importing_the_library_loads_nothing_but_torch(tmp_path):
    assert imported_by("import beamforge", tmp_path) == {"beamforge"}


def test_the_command_line_loads_no_heavy_packages_at_start(tmp_path):
    heavy = {"sionna", "mitsuba", "drjit", "cvxpy", "clarabel", "matplotlib", "scipy", "pandas"}
    assert not heavy & imported_by("import beamforge.cli", tmp_path)
