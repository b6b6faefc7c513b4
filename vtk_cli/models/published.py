"""Published weights: looked for on this machine first, fetched only when there is a network.

The caches are those of timm and torchvision: the Hugging Face hub's and torch's. A server is asked once in a process
whether it answers, with a limit of 3 s; where it does not, the answer is one line, not a minute of retries.
"""

from __future__ import annotations

import functools
import queue
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from timm.models import get_pretrained_cfg, is_model
from timm.models._hub import (
    HF_WEIGHTS_NAME,
    _get_safe_alternatives,
    check_cached_file,
    download_cached_file,
    hf_split,
    load_model_config_from_path,
)
from torchvision import models

from vtk_cli.errors import UserError, VtkError
from vtk_cli.files import disk_errors
from vtk_cli.models.names import NetworkName
from vtk_cli.models.weights import NoWeights, WeightFile

PROBE_S = 3.0
"""How long a server may take to answer before it counts as out of reach, in seconds."""
TIMEOUT_S = 10.0
"""How long a download may stall, in seconds."""


def timm_weights(name: NetworkName, *, offline: bool) -> WeightFile:
    """The weights timm publishes for `name`: from the hub's or torch's cache, else fetched.

    Raises:
        NoWeights: timm publishes none, or they are not here and cannot be fetched.
    """
    config = get_pretrained_cfg(name.tagged)
    give = f"give {name.spec}=FILE"
    if config is None or not (config.hf_hub_id or config.url):
        raise NoWeights("timm publishes no weights for it", name.tagged, give)
    if config.hf_hub_id:
        repository, filename = config.hf_hub_id, config.hf_hub_filename or HF_WEIGHTS_NAME
        filenames = (*_get_safe_alternatives(filename), filename)
        cached = _hub_cached(repository, filenames)
        if cached is not None:
            return WeightFile(cached, f"cache: {repository}", published=True)
        if config.url and not config.custom_load and _url_cached(config.url):
            return WeightFile(_url_path(config.url), f"cache: {config.url}", published=True)
        advice = f"place {filenames[0]} in {_placement(repository)} or {give}"
        return _hub_download(repository, filenames, name.tagged, advice, offline=offline)
    return _url_weights(config.url, name.tagged, give, offline=offline)


def torchvision_weights(name: NetworkName, *, offline: bool) -> WeightFile:
    """The weights torchvision publishes for `name`: from torch's cache, else fetched.

    Raises:
        NoWeights: they are not here and cannot be fetched.
    """
    architecture = name.name.removeprefix("tv:")
    url = models.get_model_weights(architecture)[name.tag].url
    return _url_weights(url, name.tagged, f"give {name.name}=FILE", offline=offline)


def hub_folder(name: NetworkName, *, offline: bool) -> Path:
    """The folder with the `config.json` of the hub repository `name`: in the hub's cache, else fetched into it.

    Raises:
        NoWeights: it is not here and cannot be fetched.
        UserError: there is no such repository, or it describes no network that timm knows.
    """
    folder = _hub_file(name, ("config.json",), offline=offline).path.parent
    try:
        architecture = load_model_config_from_path(folder)[1]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        what = f"not a timm network: {folder / 'config.json'} names no architecture"
        raise UserError(what, name.spec, "give timm_name=FILE") from error
    if not is_model(architecture):
        raise UserError(f"not a timm network known here: {architecture!r}", name.spec, "update timm")
    return folder


def hub_weights(name: NetworkName, *, offline: bool) -> WeightFile:
    """The weights of the hub repository `name`: from the hub's cache, else fetched.

    Raises:
        NoWeights: they are not here and cannot be fetched.
        UserError: there is no such repository, or it has no weights under timm's names.
    """
    return _hub_file(name, (*_get_safe_alternatives(HF_WEIGHTS_NAME), HF_WEIGHTS_NAME), offline=offline)


@functools.cache
def answers(url: str) -> bool:
    """Whether the server of `url` answers within `PROBE_S`; asked once in a process.

    The question is put in a thread of its own: looking up a host's name has no time limit.
    """
    heard: queue.SimpleQueue[bool] = queue.SimpleQueue()
    threading.Thread(target=lambda: heard.put(_knock(url)), daemon=True).start()
    try:
        return heard.get(timeout=PROBE_S)
    except queue.Empty:
        return False


def _knock(url: str) -> bool:
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the publishers' own addresses
    try:
        with urllib.request.urlopen(request, timeout=PROBE_S):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return True  # a refusal is an answer
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # the server is there; the download says what is wrong
    except (OSError, ValueError):
        return False


def _hub_file(name: NetworkName, filenames: tuple[str, ...], *, offline: bool) -> WeightFile:
    cached = _hub_cached(name.name, filenames)
    if cached is not None:
        return WeightFile(cached, f"cache: {name.name}", published=True)
    advice = f"place config.json and model.safetensors in {_placement(name.name)} or give timm_name=FILE"
    return _hub_download(name.name, filenames, name.spec, advice, offline=offline)


def _hub_cached(repository: str, filenames: tuple[str, ...]) -> Path | None:
    repo_id, revision = hf_split(repository)
    for filename in filenames:
        found = try_to_load_from_cache(repo_id, filename, cache_dir=constants.HF_HUB_CACHE, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def _placement(repository: str) -> Path:
    """The folder of the hub's cache where a file of `repository` is found when it is put there by hand."""
    repo_id, revision = hf_split(repository)
    folder = f"models--{repo_id.replace('/', '--')}"
    return Path(constants.HF_HUB_CACHE) / folder / "snapshots" / (revision or "main")


def _hub_download(repository: str, filenames: tuple[str, ...], where: str, advice: str, *, offline: bool) -> WeightFile:
    reason = _why_not(constants.ENDPOINT, offline=offline or constants.HF_HUB_OFFLINE)
    if reason:
        raise NoWeights(f"no pretrained weights on this machine and {reason}", where, advice)
    repo_id, revision = hf_split(repository)
    for filename in filenames:
        try:
            with disk_errors(Path(constants.HF_HUB_CACHE)):
                path = hf_hub_download(repo_id, filename, revision=revision, etag_timeout=TIMEOUT_S)
        except LocalEntryNotFoundError as error:  # the network broke down meanwhile
            raise NoWeights(f"the download failed ({_line(error)})", where, advice) from error
        except EntryNotFoundError:
            continue
        except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
            raise UserError(f"the hub has no repository {repository}, or it is private", where, advice) from error
        except VtkError:
            raise
        except Exception as error:  # what a download raises depends on the hub client's HTTP library
            raise NoWeights(f"the download failed ({_line(error)})", where, advice) from error
        return WeightFile(Path(path), f"download: {repository}", published=True)
    raise UserError(f"the hub's {repository} has no {' or '.join(filenames)}", where, advice)


def _url_weights(url: str, where: str, give: str, *, offline: bool) -> WeightFile:
    path = _url_path(url)
    if _url_cached(url):
        return WeightFile(path, f"cache: {url}", published=True)
    if path.exists():
        raise UserError("is damaged: its SHA-256 is not the one in its name", str(path), "delete it and try again")
    advice = f"place {path.name} in {path.parent} or {give}"
    reason = _why_not("{0.scheme}://{0.netloc}".format(urlsplit(url)), offline=offline)
    if reason:
        raise NoWeights(f"no pretrained weights on this machine and {reason}", where, advice)
    try:
        with disk_errors(path), _stall_limit(TIMEOUT_S):
            path.parent.mkdir(parents=True, exist_ok=True)
            download_cached_file(url, check_hash=True, cache_dir=path.parent)
    except VtkError:
        raise
    except (OSError, RuntimeError) as error:
        raise NoWeights(f"the download failed ({_line(error)})", where, advice) from error
    return WeightFile(path, f"download: {url}", published=True)


def _url_cached(url: str) -> bool:
    return bool(check_cached_file(url, check_hash=True, cache_dir=_url_path(url).parent))


def _url_path(url: str) -> Path:
    """Where torch keeps what it fetched from `url`."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def _why_not(server: str, *, offline: bool) -> str:
    """Why nothing can be fetched from `server`; empty when it can."""
    if offline:
        return "downloads are off"
    return "" if answers(server) else "no network"


@contextmanager
def _stall_limit(seconds: float) -> Iterator[None]:
    """Let no new connection wait longer than `seconds` for the next byte; torch's downloader sets no limit itself."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
