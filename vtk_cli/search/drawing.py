"""Pictures of architectures: the cells as circuits or the layers in rows, and the network they make up."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vtk_cli.models.spaces.chain import ChainSpace
from vtk_cli.models.spaces.cost import halved, in_millions
from vtk_cli.models.spaces.darts import DartsSpace, cell_plans
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.genotypes import INNER, LENGTH, OPERATIONS, active_edges
from vtk_cli.models.spaces.mobilenet import BLOCKS, IDENTITY, MobileSpace
from vtk_cli.models.spaces.nasbench201 import EDGES as CELL_EDGES
from vtk_cli.models.spaces.nasbench201 import NODES, NONE, STAGES, CellSpace
from vtk_cli.models.spaces.nasbench201 import OPERATIONS as CELL_OPERATIONS
from vtk_cli.models.spaces.shufflenetv2 import KERNELS, XCEPTION
from vtk_cli.models.spaces.space import Shape, Space
from vtk_cli.models.spaces.tiny import TinySpace
from vtk_cli.reports.plots import Picture, literal, save, style, write_titles
from vtk_cli.search.cell_drawing import Cell, Edge, Stage, cell_height, cell_width, draw_cell, draw_network
from vtk_cli.search.chain_drawing import Block, Row, draw_rows, rows_height, rows_width
from vtk_cli.search.sketching import Sheet

_LEAST_WIDTH = 6.4
_STRIP = 1.2
_GAP = 0.5
_MARGIN = 0.6  # inches over the drawing, for the titles


def draw_architecture(path: Path, space: Space, genes: Genes, shape: Shape, *, title: str = "") -> Picture:
    """Draw an architecture.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        space: of the architecture.
        genes: of the architecture.
        shape: of the network, as `space.shape` makes it: the picture tells its widths, sides and cost.
        title: one line, e.g. the name of a published genotype; the space and the genes if empty.

    Raises:
        UserError: the genes are not of the space, or the picture cannot be written.
        JobError: the disk is full.
    """
    space.validate(genes)
    title, subtitle = title or f"{space.name} {space.format(genes)}", _cost(space, genes, shape)
    with style():
        if isinstance(space, DartsSpace):
            figure = _cells(_darts_cells(genes), _darts_stages(shape), title, subtitle)
        elif isinstance(space, CellSpace):
            figure = _cells((_benchmark_cell(genes),), _benchmark_stages(shape), title, subtitle)
        elif isinstance(space, ChainSpace):
            figure = _layers(_rows(space, genes, shape), title, subtitle)
        else:
            raise TypeError(f"no drawing of the space {space.name}")
        return save(figure, path)


def _cost(space: Space, genes: Genes, shape: Shape) -> str:
    cost = space.cost(genes, shape)
    sizes = [f"width {shape.width}"] * bool(shape.width) + [f"{shape.cells} cells"] * bool(shape.cells)
    network = ", ".join((shape.form, *sizes, f"{shape.resolution}x{shape.resolution}", f"{shape.classes} classes"))
    return f"{in_millions(cost.macs)} multiply-accumulates, {in_millions(cost.params)} parameters ({network})"


def _sheet(width: float, height: float, title: str, subtitle: str) -> tuple[Figure, Sheet]:
    figure = Figure(figsize=(width, height + _MARGIN))
    FigureCanvasAgg(figure)
    sheet = Sheet.on(figure, width, height)
    write_titles(sheet.axes, literal(title), literal(subtitle))
    return figure, sheet


def _cells(cells: tuple[Cell, ...], stages: tuple[Stage, ...], title: str, subtitle: str) -> Figure:
    heights = [cell_height(cell) for cell in cells]
    top = sum(heights) + _GAP * len(cells) + _STRIP
    width = max(_LEAST_WIDTH, *(cell_width(cell) for cell in cells))
    figure, sheet = _sheet(width, top, title, subtitle)
    for cell, height in zip(cells, heights, strict=True):
        draw_cell(sheet, cell, top)
        top -= height + _GAP
    draw_network(sheet, stages, "network: channels and side of the map", top)
    return figure


def _layers(rows: tuple[Row, ...], title: str, subtitle: str) -> Figure:
    width, height = max(_LEAST_WIDTH, rows_width(rows)), rows_height(rows)
    figure, sheet = _sheet(width, height, title, subtitle)
    draw_rows(sheet, rows, height, width)
    return figure


def _darts_cells(genes: Genes) -> tuple[Cell, ...]:
    def edges(cell: Genes, node: int, note: str) -> tuple[Edge, ...]:
        return tuple(
            Edge(edge.source, OPERATIONS[operation], note if edge.source < 2 else "")
            for edge, operation in active_edges(cell)
            if edge.node == node
        )

    inputs, names = ("cell k-2", "cell k-1"), tuple(str(node - 2) for node in INNER)
    return tuple(
        Cell(title, inputs, tuple(edges(cell, node, note) for node in INNER), names, concatenated=True, output="cell k")
        for title, cell, note in (
            ("normal cell (N)", genes[:LENGTH], ""),
            ("reduction cell (R)", genes[LENGTH:], "stride 2"),
        )
    )


def _darts_stages(shape: Shape) -> tuple[Stage, ...]:
    plans = cell_plans(shape)
    cells = (Stage("R" if plan.reduces else "N", plan.outputs, plan.side_of_nodes, plan.reduces) for plan in plans)
    return (Stage("stem", plans[0].inputs[1], plans[0].side), *cells, Stage("FC"))


def _benchmark_cell(genes: Genes) -> Cell:
    nodes = tuple(
        tuple(
            Edge(source, CELL_OPERATIONS[gene])
            for gene, (source, target) in zip(genes, CELL_EDGES, strict=True)
            if target == node and gene != NONE
        )
        for node in range(1, NODES)
    )
    names = tuple(str(node) for node in range(1, NODES))
    return Cell("cell (C); node 0 is its input", ("node 0",), nodes, names, concatenated=False, output="output")


def _benchmark_stages(shape: Shape) -> tuple[Stage, ...]:
    stages, width, side = [Stage("stem", shape.width, shape.resolution)], shape.width, shape.resolution
    for number in range(STAGES):
        if number:
            width, side = 2 * width, halved(side)
            stages.append(Stage("res", width, side, accent=True))
        stages += [Stage("C", width, side)] * shape.cells
    return (*stages, Stage("FC"))


def _rows(space: ChainSpace, genes: Genes, shape: Shape) -> tuple[Row, ...]:
    """The stem, a row for each width, and the head."""
    side = space.stem_cost(shape)[1]
    layers = space.layers(shape)
    rows = [Row("stem", f"{shape.resolution}x{shape.resolution} to {side}x{side}")]
    blocks: list[Block] = []
    for number, (layer, gene) in enumerate(zip(layers, genes, strict=True)):
        side = halved(side) if layer.stride == 2 else side
        blocks.append(_block(space, number, gene, layer.stride))
        if number + 1 == len(layers) or layers[number + 1].outputs != layer.outputs:
            detail = f"{layer.outputs} channels, {side}x{side}"
            rows.append(Row(f"stage {len(rows)}", detail, tuple(blocks)))
            blocks = []
    return (*rows, Row("head", f"{shape.classes} classes"))


def _block(space: ChainSpace, number: int, gene: int, stride: int) -> Block:
    note = "\nstride 2" if stride == 2 else ""
    if isinstance(space, TinySpace):
        operation = space.operations[gene]
        return Block(number, operation.name.replace("+", "\n+ ") + note, operation.kernel)
    if isinstance(space, MobileSpace):
        if gene == IDENTITY:
            return Block(number, "left out", 3, absent=True)
        kernel, expansion = BLOCKS[gene]
        return Block(number, f"MBConv {kernel}x{kernel}\nexpand {expansion}" + note, kernel)
    kind = "xception" if gene == XCEPTION else "shuffle"
    return Block(number, f"{kind}\n{KERNELS[gene]}x{KERNELS[gene]}" + note, KERNELS[gene])
