"""The report: CSV with all digits, and a self-contained HTML page with escaped text."""

import base64
import csv
from dataclasses import asdict
from html.parser import HTMLParser

import numpy as np
import pytest

from beamforge import registry
from beamforge.bench import comparison as module
from beamforge.bench.comparison import compare
from beamforge.bench.report import write_report
from beamforge.bench.suites import Suite, candidates
from beamforge.classical.linear import MRT
from beamforge.scenarios import Rayleigh

PNG = b"\x89PNG\r\n\x1a\n"


class Raising(MRT):
    def solve_batch(self, *arguments):
        raise ValueError("<script>alert(1)</script> & more")


class Page(HTMLParser):
    """Collects tags, sources and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.cells, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href", "data", "poster", "action")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.METHODS, "raising", (Raising,))
        patch.setattr(module, "ROUNDS", 1)
        source = Rayleigh(users=3, antennas=4, snr_db=10.0)
        methods = candidates("mrt", "raising", "rzf", "wmmse")
        found = compare(Suite("a <i>suite</i>", "users & antennas", source, "sum-rate", methods, "rzf", 6))
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    return found, folder, write_report(found, folder)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_files_are_there_and_nothing_else(finished):
    _, folder, written = finished
    expected = {"table.csv", "instances.csv", "rate-cdf.png", "utility-time.png", "difference.png", "report.html"}
    assert {path.name for path in folder.iterdir()} == {path.name for path in written} == expected


def test_the_table_parses_back_to_every_digit(finished):
    found, folder, _ = finished
    for line, row in zip(read(folder / "table.csv"), found.rows, strict=True):
        for name, value in asdict(row).items():
            if isinstance(value, str):
                assert line[name] == value
            elif value == value:
                assert float(line[name]) == value
            else:
                assert line[name] == ""


def test_the_instances_have_the_scores_of_evaluate(finished):
    found, folder, _ = finished
    lines = read(folder / "instances.csv")
    assert len(lines) == 3 * 6
    for label, run in found.runs.items():
        own = [line for line in lines if line["method"] == label]
        np.testing.assert_array_equal([float(line["utility"]) for line in own], run.report.utility.numpy())
        assert [int(line["instance"]) for line in own] == list(range(6))
        assert {line["status"] for line in own} == {"converged"}


def test_the_page_is_self_contained(finished):
    _, folder, _ = finished
    page = Page((folder / "report.html").read_text())
    assert len(page.sources) == 3
    for source in page.sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data, validate=True).startswith(PNG)
    assert not {"link", "script", "iframe", "object"} & set(page.tags)
    assert "url(" not in (folder / "report.html").read_text()


def test_everything_is_escaped(finished):
    _, folder, _ = finished
    page = Page((folder / "report.html").read_text())
    assert "script" not in page.tags
    assert "i" not in page.tags
    assert "<script>alert(1)</script> & more" in page.text
    assert "a <i>suite</i>" in page.text
    assert "users & antennas" in page.text


def test_the_page_states_suite_and_machine(finished):
    found, folder, _ = finished
    text = Page((folder / "report.html").read_text()).text
    machine = found.machine
    for said in (
        machine.processor,
        f"{machine.threads} thread",
        machine.torch,
        machine.commit,
        "6 instances",
        "baseline rzf",
    ):
        assert said in text


def test_figures_are_images_of_a_printable_size(finished):
    _, folder, _ = finished
    for path in folder.glob("*.png"):
        data = path.read_bytes()
        assert data.startswith(PNG)
        width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
        assert width >= 1000
        assert height >= 200
