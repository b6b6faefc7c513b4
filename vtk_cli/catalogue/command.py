"""The face of `vtk models`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from vtk_cli.catalogue.gathering import library_names, matching, own_names
from vtk_cli.catalogue.library_names import kept_networks, library_networks
from vtk_cli.console import Console
from vtk_cli.models.listing import ListedNetwork
from vtk_cli.options import SpeechOptions, add_command, new_app, option


def _complete_name(incomplete: str) -> list[str]:
    names = [*(network.name for network in own_names()), *(kept_networks() or ())]
    return [name for name in names if name.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class ModelsOptions(SpeechOptions):
    """Which networks."""

    pattern: str | None = option(
        None,
        "Names with wildcards, 'vit_*', or a part of a name [default: all but the names of timm and torchvision].",
        positional=True,
        metavar="PATTERN",
        complete=_complete_name,
    )
    count: bool = option(
        False,
        "Count parameters, and multiply-adds of one input of the usual size; weights take no memory.",
        panel="Networks",
        recorded=False,
    )


def run(options: ModelsOptions, console: Console) -> None:
    """List the networks that can be named, and the commands that take each.

    The names of timm and torchvision (`tv:`), of which there are more than a thousand, are listed where a PATTERN is
    given; with a dot in it, as in 'resnet50.*', with the tags of their published weights. They are asked for once and
    kept in the cache. Besides names, commands take weight files (NAME=FILE), hub:ORG/NAME and py:MODULE:FACTORY.
    """
    libraries = library_names(library_networks(console))
    networks = own_names() if options.pattern is None else matching([*own_names(), *libraries], options.pattern)
    reasons: dict[str, str] = {}
    if options.count:
        networks, reasons = _counted(networks, console)
    for taken_by in dict.fromkeys(network.taken_by for network in networks):
        _show([network for network in networks if network.taken_by == taken_by], console)
    console.text(f"{len(networks)} network{'s' * (len(networks) > 1)}")
    for name, why in reasons.items():
        console.detail(f"{name}: {why}")
    more = len(libraries) if options.pattern is None else 0
    if more:
        console.text(f"{more:,} more of timm and torchvision: vtk models 'vit_*', vtk models 'tv:*', vtk models '*'")
    console.emit(
        {"networks": [{**asdict(one), "uncounted": reasons.get(one.name)} for one in networks], "not_listed": more}
    )


def _counted(networks: list[ListedNetwork], console: Console) -> tuple[list[ListedNetwork], dict[str, str]]:
    """The networks with what could be counted, and why some of it could not."""
    from vtk_cli.catalogue.counting import counted

    found, reasons = [], {}
    with console.progress("counting", len(networks)) as progress:
        for network in networks:
            count = counted(network)
            params = network.params if count.params is None else count.params
            found.append(replace(network, params=params, macs=network.macs if count.macs is None else count.macs))
            if count.why:
                reasons[network.name] = count.why
            progress.advance(status=network.name)
    return found, reasons


def _show(networks: list[ListedNetwork], console: Console) -> None:
    """A table of networks that the same commands take, with the columns of which something is known."""
    commands = ", ".join(dict.fromkeys(each.split()[1] for each in networks[0].taken_by))
    numbers = {"M parameters": [one.params for one in networks], "M multiply-adds": [one.macs for one in networks]}
    shown = {title: column for title, column in numbers.items() if any(count is not None for count in column)}
    console.table(
        f"Taken by {commands}",
        ("name", *shown, "what it is"),
        [
            (network.name, *(_in_words(column[row]) for column in shown.values()), network.what or _weights(network))
            for row, network in enumerate(networks)
        ],
    )


def _in_words(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.2f}"


def _weights(network: ListedNetwork) -> str:
    if not network.weights:
        return "no published weights"
    others = f" and {len(network.weights) - 1} more" if len(network.weights) > 1 else ""
    return f"weights {network.weights[0]}{others}"


app = new_app()
add_command(
    app,
    ModelsOptions,
    run,
    name="models",
    epilog="Examples:  vtk models   ·   vtk models 'vit_*'   ·   vtk models 'tv:resnet*' --count   ·  "
    " vtk models 'resnet50.*' --json",
)
