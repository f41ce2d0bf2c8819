"""Make docs/figures/architecture.png: the rooms of probcl in their storeys, and what each imports.

Run it as ``python docs/figures/make_architecture.py``. The imports are read from the source and the storeys from
``layers.toml``. The imports drawn are kept in the file, so that a test can tell when they are no longer the code's.
"""

import itertools
from pathlib import Path

import networkx as nx
import numpy as np
from import_graph import layers, room_imports
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

OUTPUT = Path(__file__).with_name("architecture.png")
WIDTH, ROW, GAP = 12.5, 0.66, 0.3
LEFT, RIGHT = 2.05, 0.3
BOX = 0.36
APART = 0.17
ROUNDS = 200
INK = "#1f2933"
COLOURS = ("#8a94a0", "#0072B2", "#009E73", "#B8860B", "#D55E00", "#CC4C8C", "#6A4FB3", "#3A3F47")

Place = tuple[float, float]
Node = str | tuple[str, int]


def drawn() -> nx.DiGraph:
    """Return the imports to draw: all but those of the ground floor, and those that follow from others."""
    ground = set(next(iter(layers().storeys.values())))
    graph = nx.DiGraph(sorted((a, b) for a, targets in room_imports().items() for b in targets - ground))
    graph.add_nodes_from(layers().rooms)
    reduced = nx.transitive_reduction(graph)
    return nx.DiGraph(sorted(reduced.edges))


def as_text(graph: nx.DiGraph) -> str:
    """Return the imports as one line of text."""
    return " ".join(f"{a}>{b}" for a, b in sorted(graph.edges))


def rows_of(rooms: list[str], graph: nx.DiGraph) -> list[list[str]]:
    """Divide the rooms of a storey into rows, so that each imports from rows below its own."""
    inside = nx.DiGraph(graph.subgraph(rooms))
    inside.add_nodes_from(rooms)
    rows = (sorted(row, key=rooms.index) for row in nx.topological_generations(inside.reverse()))
    return [part for row in rows for part in wrapped(row)]


def wrapped(row: list[str]) -> list[list[str]]:
    """Divide a row that is too wide in two, and these again."""
    if sum(width_of(name) + APART for name in row) <= WIDTH - LEFT - RIGHT:
        return [row]
    half = (len(row) + 1) // 2
    return wrapped(row[half:]) + wrapped(row[:half])


def routed(rows: list[list[Node]], graph: nx.DiGraph) -> tuple[list[list[Node]], nx.DiGraph]:
    """Give the arrows to a room a place of their own in every row that they pass, one for all of them."""
    rows, links = [list(row) for row in rows], nx.DiGraph()
    level = {name: number for number, row in enumerate(rows) for name in row}
    for importer, imported in graph.edges:
        way = [importer, *((imported, number) for number in range(level[importer] - 1, level[imported], -1)), imported]
        for number, node in zip(range(level[importer] - 1, level[imported], -1), way[1:-1], strict=True):
            if node not in rows[number]:
                rows[number].append(node)
        nx.add_path(links, way)
    return rows, links


def width_of(node: Node) -> float:
    return 0.3 + 0.088 * len(node) if isinstance(node, str) else 0.0


def arranged(rows: list[list[Node]], links: nx.DiGraph) -> dict[Node, float]:
    """Move every node to between its neighbours, as far as those of its row leave it room, again and again."""
    across: dict[Node, float] = {}
    for row in rows:
        across |= dict(zip(row, np.linspace(LEFT, WIDTH - RIGHT, len(row) + 2)[1:-1].tolist(), strict=True))
    around = links.to_undirected()
    for turn in range(ROUNDS):
        for row in rows if turn % 2 else rows[::-1]:
            wanted = {
                node: np.mean([across[other] for other in around[node]]) if node in around else across[node]
                for node in row
            }
            row.sort(key=wanted.__getitem__)
            across |= dict(
                zip(row, fitted([wanted[node] for node in row], [width_of(node) for node in row]), strict=True)
            )
    return across


def fitted(wanted: list[float], widths: list[float]) -> list[float]:
    """Return the middles nearest to those wanted, in this order and apart: an isotonic regression."""
    steps = [(a + b) / 2 + APART for a, b in itertools.pairwise(widths)]
    offsets = np.concatenate([[0.0], np.cumsum(steps)])
    free = isotonic_regression(np.array(wanted) - offsets).x
    lowest, highest = LEFT + widths[0] / 2, WIDTH - RIGHT - widths[-1] / 2 - offsets[-1]
    return (np.clip(free, lowest, highest) + offsets).tolist()


def draw_storey(ax: Axes, title: str, bottom: float, top: float, colour: str) -> None:
    style = "round,pad=0,rounding_size=0.1"
    ax.add_patch(FancyBboxPatch((0.15, bottom), WIDTH - 0.3, top - bottom, boxstyle=style, fc=colour, alpha=0.08, lw=0))
    ax.text(0.32, (bottom + top) / 2, title, ha="left", va="center", fontsize=10.5, color=colour, weight="bold")


def draw_box(ax: Axes, name: str, place: Place, colour: str) -> None:
    x, y = place
    width = width_of(name)
    style = f"round,pad=0,rounding_size={BOX / 3}"
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - BOX / 2), width, BOX, boxstyle=style, fc="white", ec=colour, lw=1.6, zorder=3
        )
    )
    ax.text(x, y - 0.01, name, ha="center", va="center", fontsize=10, color=INK, family="monospace", zorder=4)


def draw_arrow(ax: Axes, way: list[Place], colour: str) -> None:
    (x0, y0), *between, (x1, y1) = way
    start, end = (x0, y0 - BOX / 2), (x1, y1 + BOX / 2)
    x, y = np.array([end, *between[::-1], start]).T
    along = np.linspace(end[1], start[1], 40 * len(way))
    curve = Curve(np.column_stack([PchipInterpolator(y, x)(along), along])[::-1])
    head = "-|>,head_length=4,head_width=2"
    ax.add_patch(FancyArrowPatch(path=curve, arrowstyle=head, color=colour, lw=1.2, alpha=0.8, zorder=2))


def way_of(importer: str, imported: str, links: nx.DiGraph) -> list[Node]:
    """Return the places that an arrow goes through."""
    way: list[Node] = [importer]
    while way[-1] != imported:
        way += [node for node in links[way[-1]] if node == imported or node[0] == imported]
    return way


def main() -> None:
    graph = drawn()
    storeys = {title: rows_of(rooms, graph) for title, rooms in layers().storeys.items()}
    rows, links = routed([row for rows in storeys.values() for row in rows], graph)
    across = arranged(rows, links)
    height = sum(ROW * len(rows) + GAP for rows in storeys.values()) + GAP
    figure = Figure(figsize=(WIDTH, height), dpi=110)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(0, height))
    ax.axis("off")

    heights: list[float] = []
    colour_of: dict[str, str] = {}
    bottom = GAP
    for (title, own_rows), colour in zip(storeys.items(), COLOURS, strict=True):
        top = bottom + ROW * len(own_rows)
        draw_storey(ax, title, bottom, top, colour)
        heights += [bottom + ROW * (number + 0.5) for number in range(len(own_rows))]
        colour_of |= {name: colour for row in own_rows for name in row}
        bottom = top + GAP

    places = {node: (across[node], y) for row, y in zip(rows, heights, strict=True) for node in row}
    for importer, imported in graph.edges:
        draw_arrow(ax, [places[node] for node in way_of(importer, imported, links)], colour_of[importer])
    for name, colour in colour_of.items():
        draw_box(ax, name, places[name], colour)
    figure.savefig(OUTPUT, metadata={"Imports": as_text(graph)})


if __name__ == "__main__":
    main()
