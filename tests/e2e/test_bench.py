"""The benchmark works: all of its parts in small, on the built programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(os.environ.get("RATCHET_PLUGIN_DIR") or ROOT / "dist" / "ratchet.d")
TIMEOUT_S = 200
BESIDE = {"cniVersion": "1.0.0", "name": "beside", "type": "loopback"}

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (PROGRAMS / "lib").is_dir() and os.environ.get("RATCHET_REQUIRE_ROOT") != "1",
        reason=f"no built programs in {PROGRAMS}: make build",
    ),
]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Run the benchmark; what it has printed, and its JSON."""
    folder = tmp_path_factory.mktemp("bench")
    beside = folder / "beside.json"
    beside.write_text(json.dumps(BESIDE))
    run = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "--small", "--out", str(folder)),
            *("--plugin-dir", str(PROGRAMS)),
            *("--beside", f"other=/usr/lib/cni/loopback:{beside}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout, json.loads((folder / "results.json").read_text())


def test_every_target_is_measured(done: tuple[str, dict[str, Any]]) -> None:
    printed, _ = done
    assert "Targets" in printed
    assert "not measured" not in printed


def test_every_figure_has_its_statistics(done: tuple[str, dict[str, Any]]) -> None:
    figures = done[1]["figures"]
    for name, figure in figures.items():
        assert figure["n"] == len(figure["values"]) > 0, name
        assert figure["min"] <= figure["median"] <= figure["p95"] or figure["n"] < 3, name
        assert figure["reference"] is None or figure["reference"] in figures, name


def test_the_links_of_a_small_run_are_all_there(done: tuple[str, dict[str, Any]]) -> None:
    figures = done[1]["figures"]
    assert done[1]["problems"] == []
    for name, figure in figures.items():
        if name.endswith(("/missing", "/strangers", "vnis-twice", "/foreign")):
            assert set(figure["values"]) == {0}, name


def test_another_plugin_stands_beside_ratchet(done: tuple[str, dict[str, Any]]) -> None:
    figures = done[1]["figures"]
    assert figures["pass-through/loopback/add/other/wall"]["ratio"] > 0
    assert figures["at-once/other"]["ratio"] > 0
