from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants
from torch import nn

from vtk_cli.models import published

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of the hub and of torch, and servers that refuse every connection."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(published, "_knock", lambda url: False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    published.answers.cache_clear()
    return tmp_path


@pytest.fixture(autouse=True)
def ask_again() -> Iterator[None]:
    yield
    published.answers.cache_clear()


@pytest.fixture
def place_on_hub(empty_caches: Path) -> Callable[..., Path]:
    """Lay a network into the empty hub cache as the hub's client does: blob, snapshot link, reference.

    `place_on_hub(repository, module, config)` gives the path of the weights.
    """

    def place(repository: str, module: nn.Module, config: dict[str, object] | None = None) -> Path:
        folder = empty_caches / "hub" / f"models--{repository.replace('/', '--')}"
        snapshot = folder / "snapshots" / COMMIT
        for made in (folder / "blobs", folder / "refs", snapshot):
            made.mkdir(parents=True)
        (folder / "refs" / "main").write_text(COMMIT)
        safetensors.torch.save_file(module.state_dict(), folder / "blobs" / "etag")
        (snapshot / "model.safetensors").symlink_to("../../blobs/etag")
        if config is not None:
            (snapshot / "config.json").write_text(json.dumps(config))
        return snapshot / "model.safetensors"

    return place


@pytest.fixture(scope="session")
def tiny_network() -> nn.Module:
    """A timm network of 0.4 million parameters and 1,000 classes; timm publishes weights `r160_in1k` for it."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network: nn.Module = timm.create_model("test_vit")
    return network


@pytest.fixture
def serve() -> Iterator[Callable[[type[SimpleHTTPRequestHandler], Path], str]]:
    """Start web servers on this machine: `serve(handler, folder)` gives the address."""
    servers: list[ThreadingHTTPServer] = []

    def start(handler: type[SimpleHTTPRequestHandler], folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
