"""What a network is made of, read off its modules: stem, normalisation, activation, attention, grouped convolutions.

Nothing is run. The answers are in the vocabulary of the tables of arXiv 2210.11407, for timm's, torchvision's and any
other module built from torch's layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from vtk_cli.models.names import PAPER69

_NORMALIZATIONS = {
    "LN": re.compile(r"LayerNorm"),
    "BN": re.compile(r"BatchNorm|^SyncBatchNorm"),
    "GN": re.compile(r"GroupNorm"),
    "EvoNorm": re.compile(r"EvoNorm"),
    "FRN": re.compile(r"FilterResponseNorm"),
    "IN": re.compile(r"InstanceNorm"),
    "RMSNorm": re.compile(r"R[Mm][Ss]Norm|SimpleNorm"),
    "Affine transform": re.compile(r"^Affine$"),
}
_ACTIVATIONS = {
    "GeLU": re.compile(r"gelu", re.IGNORECASE),
    "ReLU": re.compile(r"^relu$", re.IGNORECASE),
    "SiLU": re.compile(r"^(silu|swish\w*)$", re.IGNORECASE),
    "ReLU6": re.compile(r"^relu6$", re.IGNORECASE),
    "HardSwish": re.compile(r"^hard_?swish\w*$", re.IGNORECASE),
    "Leaky ReLU": re.compile(r"^leaky_?relu$", re.IGNORECASE),
    "Mish": re.compile(r"^(hard_?)?mish\w*$", re.IGNORECASE),
    "PReLU": re.compile(r"^prelu$", re.IGNORECASE),
    "ELU": re.compile(r"^(e|se|ce)lu$", re.IGNORECASE),
    "StarReLU": re.compile(r"^starrelu$", re.IGNORECASE),
}
"""By the name of a module's class, or of the function a module calls; gates (sigmoid, tanh, softmax) are not listed."""
_SELF_ATTENTION = {
    "Lambda": re.compile(r"^LambdaLayer$"),
    "Halo": re.compile(r"^HaloAttn$"),
    "BoT": re.compile(r"^BottleneckAttn$"),
}
_CHANNEL_ATTENTION = {
    "SE": re.compile(r"^(SEModule|SqueezeExcit\w+|SEWithNorm|SELayer|SeModule|SqueezeAndExcite)$"),
    "ECA": re.compile(r"^C?ecaModule$", re.IGNORECASE),
    "GCA": re.compile(r"^GlobalContext$"),
    "ESE": re.compile(r"^(EffectiveSE\w*|EseModule)$"),
    "CBAM": re.compile(r"Cbam"),
    "GE": re.compile(r"^GatherExcite$"),
    "": re.compile(r"^(SplitAttn|SelectiveKernel)$"),
}
_ATTENTION = re.compile(r"(Attention|Attn|MHSA|Mhsa)(_?2d)?$")
_OTHER_ATTENTION = re.compile(r"Pool|Split|Channel|Spatial|^BottleneckAttn$|^HaloAttn$")
_MERGING = re.compile(r"PatchMerging|Subsample")
_POOL = re.compile(r"^(MaxPool|AvgPool|BlurPool|LPPool)", re.IGNORECASE)

_STEM_NAME = re.compile(r"stem|embed|^base_layer$")
_LAYER = re.compile(
    r"^(Conv2d|BasicConv2d|StdConv2d|ScaledStdConv2d|Identity|Dropout|Linear|Permute|Flatten|Format|ZeroPad2d|PatchDropout)"
    r"|Conv\w*(Norm|BN|Bn|Act)|Norm|Pool|ReLU|LU$|Swish|Mish|Act$"
)
_WRAPPER_NAME = re.compile(r"^(features|model|body|backbone|encoder|trunk|visual|net|network|\d+)$")
_SIDE_PATH = re.compile(r"shortcut|downsample")


def stem(module: nn.Module) -> list[nn.Module]:
    """The parts an image passes before the first block or stage, in order; empty when none can be told."""
    parts: list[nn.Module] = []
    whole = convolved = pooled = False
    for name, child in module.named_children():
        named, layer = bool(_STEM_NAME.search(name)), _is_layers(child)
        convolves = any(True for _ in _convolutions(child))
        if not convolved and _WRAPPER_NAME.match(name) and not (layer and name.isdigit()) and (inner := stem(child)):
            return inner
        if not convolved and not named and not layer:
            continue
        if not (named or layer) or (convolves and (whole or pooled or (named and convolved))):
            break
        parts.append(_largest(child))
        whole, convolved, pooled = whole or named, convolved or convolves, pooled or _pools(child)
    return parts if convolved else []


def stem_notation(module: nn.Module) -> str:
    """The stem's convolutions as `kernel s stride`, joined by `/`; `s1` is left out after the first; `-` for none."""
    words: list[str] = []
    for conv in (conv for part in _stem_proper(module) for conv in _convolutions(part)):
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        words.append(f"{kernel}" if words and stride == 1 else f"{kernel}s{stride}")
    return "/".join(words) or "-"


def stem_pools(module: nn.Module) -> bool:
    """Whether the stem ends in a pooling layer."""
    return any(_pools(part) for part in _stem_proper(module))


def is_hierarchical(module: nn.Module) -> bool:
    """Whether features are downsampled after the stem; timm's own account of its stages counts where there is one."""
    account = getattr(module, "feature_info", None)
    reductions = {stage["reduction"] for stage in account or () if isinstance(stage, dict) and "reduction" in stage}
    if reductions:
        return len(reductions) > 1
    inside = {part for root in stem(module) for part in root.modules()}
    return any(_downsamples(part) for part in module.modules() if part not in inside)


def normalizations(module: nn.Module) -> list[str]:
    """The kinds of normalisation, e.g. `['LN', 'BN']`; empty for a network free of it."""
    return _kinds(module, _NORMALIZATIONS)


def activations(module: nn.Module) -> list[str]:
    """The kinds of activation, gates excepted, e.g. `['ReLU', 'SiLU']`; of functions only those a module holds."""
    called = {getattr(part, "act_fn", None) for part in module.modules()}
    names = {type(part).__name__ for part in module.modules()}
    names |= {getattr(function, "__name__", "") for function in called if function is not None}
    return [kind for kind, pattern in _ACTIVATIONS.items() if any(pattern.search(name) for name in names)]


def final_pooling(module: nn.Module) -> str:
    """How the classifier's input is pooled: `GAP`, `CLS token`, `Attention` or `Max`."""
    said = getattr(module, "global_pool", None)
    if isinstance(said, str) and said:
        known = {"token": "CLS token", "max": "Max"}
        return known.get(said, "Attention" if said.startswith("map") else "GAP")
    token = re.compile(r"(^|\.)(cls_token|class_token)")
    return "CLS token" if any(token.search(name) for name, _ in module.named_parameters()) else "GAP"


def self_attention_2d(module: nn.Module) -> list[str]:
    """Self-attention layers that stand for convolutions: `Lambda`, `Halo`, `BoT`."""
    return _kinds(module, _SELF_ATTENTION)


def channel_attention(module: nn.Module) -> list[str]:
    """Channel-wise attention: `SE`, `ECA`, `GCA`, `ESE`, ...; an empty name for attention over parallel branches."""
    return _kinds(module, _CHANNEL_ATTENTION)


def channel_attention_location(module: nn.Module) -> str:
    """Where channel attention stands in most blocks: `Middle`, before the last convolution, or `End`; else empty."""
    parents = {child: parent for parent in module.modules() for child in parent.children()}
    votes = [
        place
        for part in module.modules()
        if any(pattern.search(type(part).__name__) for kind, pattern in _CHANNEL_ATTENTION.items() if kind)
        if (place := _place_in_block(part, parents))
    ]
    return max(("Middle", "End"), key=votes.count) if votes else ""


def has_depthwise(module: nn.Module) -> bool:
    """Whether any convolution works on each channel alone."""
    return any(conv.groups == conv.in_channels > 1 for conv in _convolutions(module))


def has_grouped(module: nn.Module) -> bool:
    """Whether any convolution has several groups of several channels."""
    return any(1 < conv.groups < conv.in_channels for conv in _convolutions(module))


def family(module: nn.Module, name: str) -> str:
    """The base architecture: by name where timm's or the paper's name is known, else by what the network is made of.

    Args:
        module: the network.
        name: its timm or torchvision name, with or without tag.
    """
    architecture = name.removeprefix("tv:").partition(".")[0]
    if architecture in _PAPER_FAMILIES:
        return _PAPER_FAMILIES[architecture]
    named = (family for family, pattern in _FAMILIES.items() if pattern.match(architecture.removeprefix("test_")))
    return next(named, None) or _family_by_parts(module)


_PAPER_FAMILIES = {network.timm.partition(".")[0]: network.family for network in PAPER69}
_FAMILIES = {
    "NAS (TFM)": re.compile(r"swin_s3"),
    "NAS (CNN)": re.compile(
        r"(tf_|gc_)?efficientnet|(tf_)?mobilenet_?(v[345]|edgetpu)|\w*mnasnet|spnasnet|fbnet|(tf_)?mixnet|(nf_|halo)?regnet"
        r"|rexnet|p?nasnet|tinynet|hardcorenas|lcnet"
    ),
    "Hybrid": re.compile(
        r"coat_|coatne|maxx?vit|caformer|twins|visformer|xcit|levit|mobilevit|edgenext|efficientformer|efficientvit"
        r"|fastvit|tiny_vit|nextvit|gcvit|swiftformer|shvit|iformer|lowformer|cpubone|vitamin"
        r"|vit_[a-z]+_(r\d*_|resnet|mci)"
    ),
    "MLP-Mixer": re.compile(r"mixer_|gmixer|resmlp|gmlp"),
    "Transformer": re.compile(
        r"(naflex|flexi|sam|\w+_)?vit(_|\d|$)|aimv2|deit|beit|eva|cait|convit|crossvit|davit|nest|pit_|swin|tnt|volo|mvitv2|pvt|\w*hiera"
    ),
    "CNN": re.compile(
        r"\w*res(net|next|nest)|res2ne|\w*botne|\w*halonet|\w*halonext|lambda|\w*nfnet|nf_|densenet|vgg|alexnet"
        r"|squeezenet|googlenet|shufflenet|convnext|convmixer|csp|cs3|\w*darknet|dla|dpn|\w*vovnet|hrnet|inception"
        r"|\w*xception|legacy_|mobilenet_?v[12]|mobileone|repvgg|\w*ghostnet|poolformer|convformer|selecsls|rdnet"
        r"|starnet|hgnet|fasternet|focalnet|mambaout|gernet|repvit"
    ),
}
"""timm's and torchvision's names by family; the first that matches."""


def _family_by_parts(module: nn.Module) -> str:
    inside = {part for root in stem(module) for part in root.modules()}
    convolves = any(conv.kernel_size[0] > 1 for conv in _convolutions(module) if conv not in inside)
    names = {type(part).__name__ for part in module.modules()}
    attends = any(_ATTENTION.search(name) and not _OTHER_ATTENTION.search(name) for name in names)
    if attends:
        return "Hybrid" if convolves else "Transformer"
    return "CNN" if convolves else "MLP-Mixer"


def _kinds(module: nn.Module, patterns: dict[str, re.Pattern[str]]) -> list[str]:
    names = {type(part).__name__ for part in module.modules()}
    return [kind for kind, pattern in patterns.items() if any(pattern.search(name) for name in names)]


def _convolutions(module: nn.Module) -> Iterator[nn.Conv2d]:
    return (part for part in module.modules() if isinstance(part, nn.Conv2d))


def _stem_proper(module: nn.Module) -> list[nn.Module]:
    """The stem; where a whole network is the stem (a hybrid's patch embedding), that network's stem."""
    parts = stem(module)
    inner = [part.get_submodule("backbone") for part in parts if hasattr(part, "backbone")]
    return stem(inner[0]) if inner else parts


def _is_layers(module: nn.Module) -> bool:
    """Whether a module is one layer, or a sequence of layers with no block among them."""
    if type(module) is nn.Sequential:
        return len(module) > 0 and all(_is_layers(child) for child in module)
    return bool(_LAYER.search(type(module).__name__))


def _largest(part: nn.Module) -> nn.Module:
    """Of parallel or successive patch embeddings in one list, the one with the largest patch."""
    if not isinstance(part, nn.ModuleList):
        return part
    return max(part, key=lambda one: max((conv.kernel_size[0] for conv in _convolutions(one)), default=0))


def _pools(module: nn.Module) -> bool:
    return any(_POOL.search(type(part).__name__) for part in module.modules())


def _downsamples(part: nn.Module) -> bool:
    name = type(part).__name__
    if isinstance(part, nn.Conv2d) or _POOL.search(name):
        stride: Any = getattr(part, "stride", 1)
        return (max(stride) if isinstance(stride, tuple) else stride or 1) > 1
    return bool(_MERGING.search(name))


def _place_in_block(part: nn.Module, parents: dict[nn.Module, nn.Module]) -> str:
    """Where `part` stands among the convolutions of the nearest module around it that has others."""
    while part in parents:
        block = parents[part]
        path = [(name, child) for name, child in block.named_children() if not _SIDE_PATH.search(name)]
        position = next((index for index, (_, child) in enumerate(path) if child is part), None)
        if position is None:
            return ""
        convolves = [any(True for _ in _convolutions(child)) for _, child in path]
        if any(convolves[position + 1 :]):
            return "Middle"
        if any(convolves[:position]):
            return "End"
        part = block
    return ""
