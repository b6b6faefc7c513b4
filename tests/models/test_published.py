from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
import safetensors.torch
import timm
from huggingface_hub import constants
from timm.models import PretrainedCfg
from torch import nn

from vtk_cli.errors import ExitCode, UserError
from vtk_cli.models import published
from vtk_cli.models.names import parse_network
from vtk_cli.models.published import answers, hub_weights, timm_weights, torchvision_weights
from vtk_cli.models.weights import NoWeights

TINY = "test_vit.r160_in1k"
COMMIT = "f" * 40

Serve = Callable[[type[SimpleHTTPRequestHandler], Path], str]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


class Hub(Quiet):
    """A hub that serves `folder/<file>` as every repository's file of that name."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        file = Path(self.directory) / self.path.rpartition("/")[2]
        if not file.is_file():
            self.send_response(404)
            if "/resolve/" in self.path:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def local_hub(empty_caches: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the hub's address now serves."""
    monkeypatch.undo()
    folder = empty_caches / "served"
    folder.mkdir()
    address = serve(Hub, folder)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(empty_caches / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("TORCH_HOME", str(empty_caches / "torch"))
    return folder


def test_without_weights_and_network_the_answer_is_quick_and_says_where_to_place_what(empty_caches: Path) -> None:
    start = time.monotonic()
    with pytest.raises(NoWeights) as caught:
        timm_weights(parse_network("resnet50"), offline=False)
    assert time.monotonic() - start < 10
    place = empty_caches / "hub" / "models--timm--resnet50.a1_in1k" / "snapshots" / "main"
    assert str(caught.value) == (
        "resnet50.a1_in1k: no pretrained weights on this machine and no network;"
        f" place model.safetensors in {place} or give resnet50=FILE"
    )
    assert caught.value.exit_code == ExitCode.USAGE


def test_weights_placed_by_hand_where_the_message_says_are_found(empty_caches: Path, tiny_network: nn.Module) -> None:
    with pytest.raises(NoWeights) as caught:
        timm_weights(parse_network(TINY), offline=True)
    place = Path(str(caught.value).partition("place model.safetensors in ")[2].partition(" or give")[0])
    place.mkdir(parents=True)
    safetensors.torch.save_file(tiny_network.state_dict(), place / "model.safetensors")
    assert timm_weights(parse_network(TINY), offline=True).path == place / "model.safetensors"


def test_weights_in_the_hubs_cache_are_found_with_no_question_to_the_network(
    place_on_hub: Callable[..., Path], tiny_network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "answers", lambda url: pytest.fail("asked the network"))
    path = place_on_hub(f"timm/{TINY}", tiny_network)
    found = timm_weights(parse_network("test_vit"), offline=False)
    assert (found.path, found.source, found.published) == (path, f"cache: timm/{TINY}", True)


def test_weights_in_torchs_old_cache_are_found_when_their_hash_is_right(
    empty_caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"weights of long ago"
    name = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    config = PretrainedCfg(url=f"https://example.invalid/{name}", hf_hub_id="timm/resnet18.a1_in1k")
    monkeypatch.setattr(published, "get_pretrained_cfg", lambda tagged: config)
    folder = empty_caches / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(b"something else")
    with pytest.raises(NoWeights):
        timm_weights(parse_network("resnet18"), offline=True)
    (folder / name).write_bytes(content)
    assert timm_weights(parse_network("resnet18"), offline=True).path == folder / name


def test_a_damaged_torchvision_file_is_not_taken_for_the_published_one(empty_caches: Path) -> None:
    name = parse_network("tv:resnet18")
    with pytest.raises(
        NoWeights, match=r"place resnet18-\w{8}\.pth in .*checkpoints or give tv:resnet18=FILE"
    ) as caught:
        torchvision_weights(name, offline=False)
    place = Path(str(caught.value).partition(" in ")[2].partition(" or give")[0])
    place.mkdir(parents=True)
    (place / "resnet18-f37072fd.pth").write_bytes(b"half a file")
    with pytest.raises(UserError, match="is damaged: its SHA-256 is not the one in its name") as caught_damaged:
        torchvision_weights(name, offline=False)
    assert not isinstance(caught_damaged.value, NoWeights)


def test_a_network_timm_has_no_weights_for_is_said_to_have_none(empty_caches: Path) -> None:
    without = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with pytest.raises(NoWeights, match=f"timm publishes no weights for it; give {without}=FILE"):
        timm_weights(parse_network(without), offline=True)


@pytest.mark.parametrize("how", ["offline", "environment"])
def test_downloads_that_are_off_are_not_tried(empty_caches: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(published, "answers", lambda url: pytest.fail("asked the network"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", how == "environment")
    with pytest.raises(NoWeights, match="downloads are off"):
        timm_weights(parse_network("resnet50"), offline=how == "offline")
    with pytest.raises(NoWeights, match=r"place config\.json and model\.safetensors in .*models--acme--net"):
        hub_weights(parse_network("hub:acme/net"), offline=how == "offline")


def test_weights_are_fetched_once_and_then_come_from_the_cache(local_hub: Path, tiny_network: nn.Module) -> None:
    safetensors.torch.save_file(tiny_network.state_dict(), local_hub / "model.safetensors")
    fetched = timm_weights(parse_network(TINY), offline=False)
    assert fetched.source == f"download: timm/{TINY}"
    assert fetched.path.read_bytes() == (local_hub / "model.safetensors").read_bytes()
    (local_hub / "model.safetensors").unlink()
    again = timm_weights(parse_network(TINY), offline=False)
    assert (again.source, again.path) == (f"cache: timm/{TINY}", fetched.path)


def test_a_repository_without_safetensors_gives_its_older_file(local_hub: Path) -> None:
    (local_hub / "pytorch_model.bin").write_bytes(b"old")
    assert timm_weights(parse_network(TINY), offline=False).path.name == "pytorch_model.bin"


def test_a_repository_without_weights_or_none_at_all_is_the_users_error(local_hub: Path) -> None:
    with pytest.raises(UserError, match=r"acme/net has no model\.safetensors or pytorch_model\.bin") as caught:
        hub_weights(parse_network("hub:acme/net"), offline=False)
    assert not isinstance(caught.value, NoWeights)


def test_a_url_is_fetched_into_torchs_cache_and_its_hash_is_checked(
    local_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"weights"
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    config = PretrainedCfg(url=f"{constants.ENDPOINT}/{name}")
    monkeypatch.setattr(published, "get_pretrained_cfg", lambda tagged: config)
    (local_hub / name).write_bytes(b"tampered")
    with pytest.raises(NoWeights, match=r"the download failed .*invalid hash value"):
        timm_weights(parse_network("resnet18"), offline=False)
    (local_hub / name).write_bytes(content)
    before = socket.getdefaulttimeout()
    assert timm_weights(parse_network("resnet18"), offline=False).path.read_bytes() == content
    assert socket.getdefaulttimeout() == before


def test_a_server_that_never_answers_is_given_up_and_asked_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "PROBE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        start = time.monotonic()
        assert not answers(url)
        assert 0.25 < time.monotonic() - start < 2
        start = time.monotonic()
        assert not answers(url)
        assert time.monotonic() - start < 0.1


def test_a_server_that_refuses_is_there_and_a_closed_port_is_not(tmp_path: Path, serve: Serve) -> None:
    class Refusing(Quiet):
        def do_HEAD(self) -> None:
            self.send_error(403)

    assert answers(serve(Refusing, tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert not answers(f"http://127.0.0.1:{port}")


def test_a_name_that_cannot_be_looked_up_counts_as_out_of_reach() -> None:
    start = time.monotonic()
    assert not answers("http://no-such-host.invalid")
    assert time.monotonic() - start < published.PROBE_S + 0.5
