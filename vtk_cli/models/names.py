"""How networks are named on the command line, and what those names mean. Nothing heavy is imported here.

resnet50, vit_b              an alias: a timm network with its published weights
convnext_tiny.fb_in1k        any timm network, with or without the tag of its weights
hub:org/name                 a timm network on the Hugging Face hub
tv:resnet50                  a torchvision classifier, `tv:resnet50.IMAGENET1K_V1` with the tag of its weights
resnet50=runs/a/best.pt      an architecture (alias, timm, tv: or py:) with the weights of a file
runs/a/model.safetensors     a weight file that says what architecture it is for
py:package.module:factory    a function that returns the network
runs/a/architecture.json     an architecture of a search space, as `vtk search` writes it
genas-flatness-cifar10       a published architecture of a search space
@paper69                     the 69 networks of arXiv 2210.11407
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vtk_cli.errors import UserError, nearest
from vtk_cli.models.spaces.architecture import NAMED, SUFFIX, network_name, read_network_name
from vtk_cli.models.spaces.architecture import parse_architecture as parse_searched
from vtk_cli.models.spaces.catalog import RELEASED

Kind = Literal["timm", "hub", "torchvision", "file", "factory", "searched"]

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".tar")
"""Files read as weights: safetensors, and what `torch.save` writes."""
_SEARCHED = re.compile(rf"{NAMED}[^=]*?(/[a-z]+=[a-z0-9-]+)*(?==|$)")
_BARE_SUFFIXES = (".safetensors", ".pt", ".pth")

PAPER_LIST = "@paper69"

ALIASES = {
    "resnet18": "resnet18.a1_in1k",
    "resnet50": "resnet50.a1_in1k",
    "resnet101": "resnet101.a1h_in1k",
    "wrn50": "wide_resnet50_2.racm_in1k",
    "resnext50": "resnext50_32x4d.a1h_in1k",
    "se_resnet50": "seresnet50.ra2_in1k",
    "convnext_t": "convnext_tiny.fb_in1k",
    "convnext_s": "convnext_small.fb_in1k",
    "convnext_b": "convnext_base.fb_in1k",
    "effnet_b0": "efficientnet_b0.ra_in1k",
    "effnet_b2": "efficientnet_b2.ra_in1k",
    "regnety_32": "regnety_032.ra_in1k",
    "mobilenet_v3": "mobilenetv3_large_100.ra_in1k",
    "densenet121": "densenet121.ra_in1k",
    "vgg16": "vgg16.tv_in1k",
    "vit_ti": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "vit_s": "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit_b": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "vit_b32": "vit_base_patch32_224.augreg_in21k_ft_in1k",
    "vit_l": "vit_large_patch16_224.augreg_in21k_ft_in1k",
    "deit_ti": "deit_tiny_patch16_224.fb_in1k",
    "deit_s": "deit_small_patch16_224.fb_in1k",
    "deit_b": "deit_base_patch16_224.fb_in1k",
    "deit3_s": "deit3_small_patch16_224.fb_in1k",
    "deit3_b": "deit3_base_patch16_224.fb_in1k",
    "swin_t": "swin_tiny_patch4_window7_224.ms_in1k",
    "swin_s": "swin_small_patch4_window7_224.ms_in1k",
    "swin_b": "swin_base_patch4_window7_224.ms_in1k",
    "mixer_b": "mixer_b16_224.goog_in21k_ft_in1k",
    "resmlp_24": "resmlp_24_224.fb_in1k",
    "gmlp_s": "gmlp_s16_224.ra3_in1k",
    "poolformer_m48": "poolformer_m48.sail_in1k",
    "xcit_t": "xcit_tiny_12_p8_224.fb_in1k",
    "pit_s": "pit_s_224.in1k",
    "pit_b": "pit_b_224.in1k",
    "beit_b": "beit_base_patch16_224.in22k_ft_in22k_in1k",
    "maxvit_t": "maxvit_tiny_tf_224.in1k",
    "coatnet_0": "coatnet_0_rw_224.sw_in1k",
    "nest_t": "nest_tiny_jx.goog_in1k",
    "twins_s": "twins_svt_small.in1k",
}
"""Short names, each for one timm `architecture.tag`."""


@dataclass(frozen=True)
class PaperNetwork:
    """One of the 69 networks of arXiv 2210.11407.

    Args:
        published: its name in the released tables.
        timm: its `architecture.tag` in timm today; the tag is the likeliest one of the time.
        family: its published base architecture.
        same_weights: false where timm no longer has the published weights and `timm` is the nearest left.
    """

    published: str
    timm: str
    family: str
    same_weights: bool = True


_PAPER_FAMILIES = {
    "CNN": (
        "botnet26t_256.c1_in1k convmixer_1536_20.in1k convnext_tiny.fb_in1k cspdarknet53.ra_in1k cspresnet50.ra_in1k"
        " cspresnext50.ra_in1k dla102x2.in1k dpn107.mx_in1k eca_botnext26ts_256.c1_in1k eca_halonext26ts.c1_in1k"
        " eca_nfnet_l0.ra2_in1k eca_resnet33ts.ra2_in1k ese_vovnet39b.ra_in1k gcresnet50t.ra2_in1k"
        " gcresnext50ts.ch_in1k resnet101c.gluon_in1k xception65.tf_in1k halo2botnet50ts_256.a1h_in1k"
        " halonet50ts.a1h_in1k hrnet_w64.ms_in1k lambda_resnet50ts.a1h_in1k lamhalobotnet50ts_256.a1h_in1k"
        " nf_resnet50.ra2_in1k nfnet_l0.ra2_in1k poolformer_m48.sail_in1k resnest50d.in1k resnet101.a1h_in1k"
        " resnet50.a1_in1k resnet50_gn.a1h_in1k resnetblur50.bt_in1k resnetv2_101.a1h_in1k resnetv2_50.a1h_in1k"
        " resnetv2_50d_evos.ah_in1k resnext50_32x4d.a1h_in1k sebotnet33ts_256.a1h_in1k sehalonet33ts.ra2_in1k"
        " seresnet50.ra2_in1k seresnext50_32x4d.racm_in1k wide_resnet50_2.racm_in1k"
    ),
    "Transformer": (
        "convit_base.fb_in1k crossvit_base_240.in1k deit_base_patch16_224.fb_in1k deit_small_patch16_224.fb_in1k"
        " nest_tiny_jx.goog_in1k pit_s_224.in1k swin_tiny_patch4_window7_224.ms_in1k tnt_s_patch16_224.in1k"
        " vit_base_patch32_224.augreg_in21k_ft_in1k vit_small_patch16_224.augreg_in21k_ft_in1k"
    ),
    "MLP-Mixer": "gmlp_s16_224.ra3_in1k resmlp_24_224.fb_in1k resmlp_big_24_224.fb_in1k",
    "NAS (TFM)": "swin_s3_tiny_224.ms_in1k",
    "NAS (CNN)": (
        "efficientnet_b2.ra_in1k fbnetv3_g.ra2_in1k haloregnetz_b.ra3_in1k mixnet_xl.ra_in1k nf_regnet_b1.ra2_in1k"
        " regnetx_320.pycls_in1k regnety_032.ra_in1k rexnet_150.nav_in1k"
    ),
    "Hybrid": (
        "coat_lite_small.in1k pit_b_224.in1k twins_pcpvt_base.in1k twins_svt_small.in1k visformer_small.in1k"
        " vit_small_r26_s32_224.augreg_in21k_ft_in1k xcit_medium_24_p16_224.fb_in1k xcit_tiny_12_p8_224.fb_in1k"
    ),
}
_RENAMED = {"nest_tiny_jx": "jx_nest_tiny", "resnet101c": "gluon_resnet101_v1c", "xception65": "gluon_xception65"}
_OTHER_WEIGHTS = ("xception65",)


def _paper_networks() -> tuple[PaperNetwork, ...]:
    networks = []
    for family, names in _PAPER_FAMILIES.items():
        for timm_name in names.split():
            architecture = timm_name.partition(".")[0]
            published = _RENAMED.get(architecture, architecture)
            networks.append(PaperNetwork(published, timm_name, family, architecture not in _OTHER_WEIGHTS))
    return tuple(networks)


PAPER69 = _paper_networks()
"""The networks of arXiv 2210.11407, by family."""


@dataclass(frozen=True)
class NetworkName:
    """What a network's name on the command line stands for.

    Args:
        spec: the name as it was written.
        label: a short name for tables and figures; `distinct_labels` makes those of several networks differ.
        kind: where the network comes from; `file` is an architecture with the weights of the file `path`.
        name: the architecture: a timm name without tag, `org/name` on the hub, `tv:name` of torchvision,
            `package.module:factory`, or `searched:...` as `spaces.architecture.network_name` writes it.
        tag: which published weights; empty where there is no choice. With a weight file, whose preprocessing.
        path: the weight file of kind `file`.
        factory: `package.module:function`, where a function makes the network.
    """

    spec: str
    label: str
    kind: Kind
    name: str
    tag: str = ""
    path: Path | None = None
    factory: str = ""

    @property
    def tagged(self) -> str:
        """The architecture with the tag of its weights, e.g. `resnet50.a1_in1k`."""
        return f"{self.name}.{self.tag}" if self.tag else self.name


def parse_network(spec: str) -> NetworkName:
    """What `spec` names. timm or torchvision are imported only for names that are no alias.

    Raises:
        UserError: nothing is known by that name (with the nearest names), or its weight file is not there or does not
            say what architecture it is for.
    """
    try:
        return _parsed(spec.strip())
    except (OSError, RuntimeError, ValueError) as error:  # no file can have that name, or nobody that home
        raise UserError(f"{spec!r} names no network ({getattr(error, 'strerror', None) or error})") from error


def _parsed(spec: str) -> NetworkName:
    if spec.startswith("@"):
        raise UserError(f"{spec!r} is not one network", fix=f"the only list known by name is {PAPER_LIST}")
    path = Path(spec).expanduser()
    if path.name.endswith(_BARE_SUFFIXES) and (path.is_file() or "=" not in spec):
        return _file_alone(spec, path)
    searched = _SEARCHED.match(spec)  # its sizes have signs of equality of their own
    architecture, equals, file = spec.partition("=") if searched is None else _parted(spec, searched.end())
    if equals:
        return _with_file(spec, parse_architecture(architecture.strip()), Path(file.strip()).expanduser())
    return parse_architecture(spec)


def _parted(spec: str, end: int) -> tuple[str, str, str]:
    """`NAME`, `=`, `FILE` of a name that is `end` long; all of it is the name where no file follows."""
    return (spec[:end], "=", spec[end + 1 :]) if spec[end : end + 1] == "=" else (spec, "", "")


def parse_networks(specs: Iterable[str]) -> list[NetworkName]:
    """`parse_network` of each, with `@paper69` standing for its 69 networks."""
    return [parse_network(spec) for given in specs for spec in _expanded(given.strip())]


def read_network_list(path: Path | str) -> list[NetworkName]:
    """The networks named in a text file, one a line; `#` begins a comment, and a line may be `@paper69`.

    Args:
        path: the file, or `@paper69` itself. File names inside it are relative to the working directory.

    Raises:
        UserError: naming file and line: a name is not known, or the file cannot be read or names nothing.
    """
    if str(path).strip() == PAPER_LIST:
        return parse_networks([PAPER_LIST])
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"the list cannot be read ({error.strerror})", str(path), "check the path") from error
    except UnicodeDecodeError as error:
        raise UserError("the list is not UTF-8 text", str(path), "write one network name a line") from error
    names = []
    for number, line in enumerate(lines, start=1):
        spec = line.partition("#")[0].strip()
        if not spec:
            continue
        try:
            names += parse_networks([spec])
        except UserError as error:
            what = f"{error.where}: {error.what}" if error.where else error.what
            raise UserError(what, f"{path}:{number}", error.fix) from error
    if not names:
        raise UserError("the list names no network", str(path), "write one network name a line")
    return names


def distinct_labels(names: Sequence[NetworkName]) -> list[str]:
    """A label for each of `names`, all different: its label, where that is shared its spec, then with `#2`, `#3`."""
    shared = Counter(name.label for name in names)
    labels = [name.spec if shared[name.label] > 1 else name.label for name in names]
    taken: set[str] = set()
    for index, label in enumerate(labels):
        counted = (f"{label} #{count}" for count in itertools.count(2))
        labels[index] = label if label not in taken else next(other for other in counted if other not in taken)
        taken.add(labels[index])
    return labels


def file_metadata(path: Path) -> dict[str, str]:
    """What a weight file says of itself: the metadata of a safetensors file, nothing for other files.

    Raises:
        UserError: a safetensors file that is truncated, damaged or absurd.
    """
    if path.suffix != ".safetensors":
        return {}
    if not path.is_file():  # a pipe would be waited for
        raise UserError("no such weight file", str(path), "check the path")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            said = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(f"is not a whole safetensors file ({error})", str(path), "fetch or write it anew") from error
    for name, text in said.items():
        if _is_too_deep(text):
            raise UserError(f"its {name!r} is brackets in brackets", str(path), "fetch or write it anew")
    return said


def _is_too_deep(text: str) -> bool:
    """Whether no reader of JSON comes to the end of the brackets."""
    try:
        json.loads(text)
    except RecursionError:
        return True
    except ValueError:
        pass
    return False


def may_not_be_named(architecture: str) -> bool:
    """Whether a weight file may not call this its architecture: it must not choose what code runs, what is fetched or
    what other file is read."""
    return architecture.startswith(("py:", "hub:")) or architecture.endswith(SUFFIX)


def parse_architecture(spec: str) -> NetworkName:
    """What `spec` names, when it is a name alone: an alias, a timm name, `hub:`, `tv:`, `py:`, or an architecture of a
    search space, by the name it was published under, by its file or as `searched:...`.

    Raises:
        UserError: nothing is known by that name.
    """
    if spec in ALIASES:
        name, _, tag = ALIASES[spec].partition(".")
        return NetworkName(spec, spec, "timm", name, tag)
    if spec.endswith(SUFFIX) or spec in RELEASED:
        found = parse_searched(spec)
        return NetworkName(spec, Path(spec).stem, "searched", network_name(found))
    if spec.startswith(NAMED):
        found = read_network_name(spec)
        return NetworkName(spec, f"{found.space.name} {found.space.format(found.genes)}", "searched", spec)
    source, colon, rest = spec.partition(":")
    if colon and source == "hub":
        return _hub(spec, rest)
    if colon and source == "tv":
        return _torchvision(spec, rest)
    if colon and source == "py":
        return _factory(spec, rest)
    return _timm(spec)


def _expanded(spec: str) -> Iterable[str]:
    return (network.timm for network in PAPER69) if spec == PAPER_LIST else (spec,)


def _timm(spec: str) -> NetworkName:
    from timm.models import get_deprecated_models, get_pretrained_cfg, is_model, list_models

    name, _, tag = spec.partition(".")
    successor = get_deprecated_models().get(name)
    if successor is not None:
        name, _, new_tag = successor.partition(".")
        tag = tag or new_tag
    if not name or not is_model(name):
        known = nearest(spec, dict.fromkeys([*ALIASES, *list_models()])) or "any name in timm.list_models() is known"
        raise UserError(f"unknown network {spec!r}", fix=known)
    try:
        config = get_pretrained_cfg(f"{name}.{tag}" if tag else name)
    except RuntimeError as error:
        tags = ", ".join(known.partition(".")[2] for known in list_models(f"{name}.*", include_tags=True))
        raise UserError(f"{name} has no weights {tag!r}", fix=f"timm has {tags}") from error
    return NetworkName(spec, spec, "timm", name, tag or (config.tag if config else "") or "")


def _torchvision(spec: str, rest: str) -> NetworkName:
    from torchvision import models

    name, _, tag = rest.partition(".")
    known = models.list_models(module=models)
    if name not in known:
        near = nearest(name, known) or "any classifier of torchvision.models is known"
        raise UserError(f"unknown torchvision network {spec!r}", fix=near)
    weights = models.get_model_weights(name)
    tag = tag or "DEFAULT"
    if tag not in weights.__members__:
        tags = ", ".join(known.name for known in weights)
        raise UserError(f"tv:{name} has no weights {tag!r}", fix=f"torchvision has {tags}")
    return NetworkName(spec, spec, "torchvision", f"tv:{name}", weights[tag].name)


def _hub(spec: str, rest: str) -> NetworkName:
    organisation, slash, name = rest.partition("/")
    if not (organisation and slash and name) or "/" in name or rest != "".join(rest.split()):
        raise UserError(f"{spec!r} is not a name on the hub", fix="write hub:organisation/name")
    return NetworkName(spec, rest, "hub", rest)


def _factory(spec: str, rest: str) -> NetworkName:
    module, colon, function = rest.partition(":")
    parts = [*module.split("."), function]
    if not colon or not all(part.isidentifier() for part in parts):
        raise UserError(f"{spec!r} does not name a function", fix="write py:package.module:factory")
    return NetworkName(spec, function, "factory", rest, factory=rest)


def _with_file(spec: str, architecture: NetworkName, path: Path) -> NetworkName:
    if architecture.kind == "hub":
        raise UserError(f"{spec!r} gives a hub network a weight file", fix="write the timm name: timm_name=FILE")
    _check_weight_file(path)
    label = f"{architecture.label}={Path(*path.parts[-2:])}"
    return replace(architecture, spec=spec, label=label, kind="file", path=path)


def _file_alone(spec: str, path: Path) -> NetworkName:
    _check_weight_file(path)
    advice = f"name its architecture: NAME={spec}, e.g. resnet50={spec}"
    architecture = file_metadata(path).get("architecture", "")
    if not architecture:
        raise UserError("does not say what architecture it is for", str(path), advice)
    if may_not_be_named(architecture):
        raise UserError(f"may not name the architecture {architecture!r} itself", str(path), advice)
    try:
        named = parse_architecture(architecture)
    except UserError as error:
        raise UserError(f"is for the unknown architecture {architecture!r}", str(path), advice) from error
    return replace(named, spec=spec, label=str(Path(*path.parts[-2:])), kind="file", path=path)


def _check_weight_file(path: Path) -> None:
    if not path.name.endswith(WEIGHT_SUFFIXES):
        raise UserError("is not a weight file", str(path), f"known are {', '.join(WEIGHT_SUFFIXES)}")
    if not path.is_file():
        raise UserError("no such weight file", str(path), "check the path")
