"""`vtk search show` and `spaces`: what an architecture looks like and costs; what there is to search."""

from __future__ import annotations

from vtk_cli.console import Console
from vtk_cli.errors import ExitCode, UserError
from vtk_cli.files import require_folder
from vtk_cli.models.spaces.architecture import Architecture, parse_architecture
from vtk_cli.models.spaces.catalog import RELEASED, SPACES
from vtk_cli.models.spaces.cost import in_millions
from vtk_cli.models.spaces.space import SUPERNET, Shape
from vtk_cli.search.drawing import draw_architecture
from vtk_cli.search.retrain_recipes import retrain_recipe_of
from vtk_cli.search.verb_options import ShowOptions, SizedNetworkOptions, SpacesOptions
from vtk_cli.search.winner import fitted


def named_architecture(text: str, space: str | None) -> Architecture:
    """The architecture that a user named.

    Raises:
        UserError: none was named, or there is no such one.
    """
    if not text:
        raise UserError("no architecture is named", "ARCH", "give genes, a published name or an architecture file")
    return parse_architecture(text, space)


def shape_of(options: SizedNetworkOptions, architecture: Architecture) -> Shape:
    """The shape of the network that the options ask for.

    Raises:
        UserError: the space has no such network.
    """
    shape = architecture.shape(
        form=options.form,
        classes=options.classes,
        resolution=options.size,
        width=options.width,
        cells=options.cells,
    )
    if shape.form == SUPERNET:
        raise UserError("is no network of one architecture", f"--form {shape.form}", "name another form")
    if options.fit_width is None:
        return shape
    if options.width is not None:
        raise UserError("the width is given already", "--fit-width", "leave out --width")
    return fitted(architecture.space, architecture.genes, shape, options.fit_width)


def show_architecture(options: ShowOptions, console: Console) -> ExitCode:
    """Draw an architecture and tell what it costs.

    Raises:
        UserError: there is no such architecture or network, or the drawing cannot be written.
    """
    architecture = named_architecture(options.architecture, options.space)
    space, genes = architecture.space, architecture.genes
    shape = shape_of(options, architecture)
    require_folder(options.out.parent)
    name = next((name for name, (home, one) in RELEASED.items() if home is space and one.genes == genes), "")
    picture = draw_architecture(options.out, space, genes, shape, title=name)
    cost = space.cost(genes, shape)
    official = space.official_macs(genes, shape)
    rows = [
        ("space", space.name),
        ("genes", space.format(genes)),
        ("network", _network(shape)),
        ("multiply-accumulates", f"{cost.macs:,} ({official:,} as its authors count)"),
        ("parameters", f"{cost.params:,}"),
        ("recipe", retrain_recipe_of(space.name, shape.form)),
    ]
    if name:
        released = RELEASED[name][1]
        width = f" of width {released.width}" if released.width else ""
        rows.append(("published", f"{released.source}: {released.top1} % top-1 on ImageNet, as {released.form}{width}"))
    console.table(name or "Architecture", ("", ""), rows)
    console.text(f"Look at {picture.png}")
    summary = {**architecture.as_json(shape), "official_flops": official, "png": str(picture.png)}
    console.emit({**summary, "svg": str(picture.svg), "published": name or None})
    return ExitCode.DONE


def show_spaces(options: SpacesOptions, console: Console) -> ExitCode:  # noqa: ARG001 - it has none of its own
    """The search spaces, and the architectures that were published."""
    rows, data = [], {}
    for space in SPACES.values():
        shape = space.shape(space.alone, 10)
        macs = space.cost_range(shape).macs
        span = f"{in_millions(macs[0])} to {in_millions(macs[1])}"
        rows.append((space.name, space.summary, f"{space.size:,}" if space.size < 1e9 else f"{space.size:.3g}", span))
        data[space.name] = {
            "summary": space.summary,
            "architectures": space.size,
            "forms": [form for form in space.forms if form != SUPERNET],
            "flops": list(macs),
            "released": list(space.released),
        }
    console.table("Search spaces", ("space", "what", "architectures", "multiply-accumulates"), rows)
    published = [
        (name, in_millions(_released_macs(name)), f"{one.top1} %", one.source) for name, (_, one) in RELEASED.items()
    ]
    columns = ("published", "MACs", "top-1", "source")
    console.table("Published architectures (accuracies as their authors report)", columns, published)
    console.emit({"spaces": data})
    return ExitCode.DONE


def _released_macs(name: str) -> int:
    architecture = parse_architecture(name)
    return architecture.space.cost(architecture.genes, architecture.shape()).macs


def _network(shape: Shape) -> str:
    sizes = [f"width {shape.width}"] * bool(shape.width) + [f"{shape.cells} cells"] * bool(shape.cells)
    return ", ".join((shape.form, *sizes, f"{shape.resolution} px", f"{shape.classes} classes"))
