"""Pictures of the distributions and of growth, as SVG. The only importer of matplotlib."""

from __future__ import annotations

import os

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.figure import Figure

from benchmarks.figures import Results

_PICTURES = {
    "pass-through": (
        "Pass-through ADD over loopback",
        [f"pass-through/loopback/add/{way}/wall" for way in ("direct", "runtime", "child", "api")],
    ),
    "link-up": (
        "From the second pod's ADD to the link, warm child",
        [
            f"link-up/{place}/{order}/warm"
            for place in ("same-node", "two-nodes")
            for order in ("pair-first", "primary-first")
        ],
    ),
    "link-up-cold": (
        "From the second pod's ADD to the link, no child running",
        [
            f"link-up/{place}/{order}/cold"
            for place in ("same-node", "two-nodes")
            for order in ("pair-first", "primary-first")
        ],
    ),
}


def draw(results: Results, folder: str) -> list[str]:
    """Write the pictures; their paths."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ratchet"  # the same picture is the same file
    paths = []
    for name, (title, names) in _PICTURES.items():
        present = [one for one in names if one in results.series]
        if present:
            paths.append(
                _distribution(results, os.path.join(folder, f"{name}.svg"), title, present)
            )
    if "growth" in results.about:
        paths.append(_growth(results, os.path.join(folder, "growth.svg")))
    return paths


def _distribution(results: Results, path: str, title: str, names: list[str]) -> str:
    """Draw each series as a curve: how many of a hundred took at most so long."""
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name in names:
        series = results.series[name]
        values = sorted(series.values)
        shares = [100 * (position + 1) / len(values) for position in range(len(values))]
        axes.step(values, shares, where="post", label=f"{series.text} (n={len(values)})")
    unit = results.series[names[0]].unit
    axes.set(title=title, xlabel=f"time, {unit}", ylabel="% took at most so long", ylim=(0, 101))
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    return _written(figure, path)


def _growth(results: Results, path: str) -> str:
    runs = results.about["growth"]
    nodes = [run["nodes"] for run in runs]
    figure, panels = pyplot.subplots(1, 3, figsize=(12, 4))
    figure.suptitle(f"What a link costs etcd, from {nodes[0]} to {nodes[-1]} nodes")
    for axes, what, curves in (
        (
            panels[0],
            "requests to etcd",
            {
                "per link, all at once": [run["fill"]["requests"] for run in runs],
                "of one more pair": [run["one_more"]["requests"] for run in runs],
                "to take a link back": [run["empty"]["requests"] for run in runs],
            },
        ),
        (
            panels[1],
            "kB sent and received",
            {
                "per link, all at once": [_kilobytes(run["fill"]) for run in runs],
                "of one more pair": [_kilobytes(run["one_more"]) for run in runs],
            },
        ),
        (
            panels[2],
            "events heard by nodes",
            {
                "per link, all at once": [run["fill"]["events"] for run in runs],
                "of one more pair": [run["one_more"]["events"] for run in runs],
            },
        ),
    ):
        for label, values in curves.items():
            axes.plot(nodes, values, marker="o", label=label)
        axes.set(ylabel=what, xlabel="nodes", xscale="log")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    return _written(figure, path)


def _kilobytes(phase: dict[str, float]) -> float:
    return (phase["bytes_sent"] + phase["bytes_received"]) / 1000


def _written(figure: Figure, path: str) -> str:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
