"""How long the network of an architecture takes for an image, on the device it is searched for."""

from __future__ import annotations

import time
from statistics import median

import torch

from vtk_cli.engine.devices import describe_device
from vtk_cli.engine.pieces.results import Result, ResultStore, work_through
from vtk_cli.engine.signals import StopRequest
from vtk_cli.files import content_key
from vtk_cli.models.spaces.genes import Genes
from vtk_cli.models.spaces.space import Shape, Space

_WARM_UP, _TIMED = 5, 25


class Latency:
    """Measures latencies once and keeps them: a search that is repeated, or shared, decides alike everywhere.

    Args:
        space: whose architectures.
        shape: of the networks.
        device: where they run.
        store: where measurements are kept.
    """

    def __init__(self, space: Space, shape: Shape, device: torch.device, store: ResultStore) -> None:
        self._space, self._shape, self._device, self._store = space, shape, device, store
        self._where = {"device": describe_device(device), "threads": torch.get_num_threads(), "shape": repr(shape)}

    def milliseconds(self, genes: Genes) -> float:
        """The median of 25 forward passes of one image in fp32, after 5 that do not count."""
        found = work_through(
            [genes], key=self._key, compute=self._result, store=self._store, stop=StopRequest(), kept="latencies"
        )
        return float(found[0]["milliseconds"])

    def _key(self, genes: Genes) -> str:
        return content_key({"latency": list(genes), **self._where})

    def _result(self, genes: Genes) -> Result:
        return {"milliseconds": self._measured(genes)}

    @torch.inference_mode()
    def _measured(self, genes: Genes) -> float:
        with torch.random.fork_rng(devices=[]):
            network = self._space.network(genes, self._shape).to(self._device).eval()
        side = self._shape.resolution
        image = torch.zeros(1, self._space.input_channels, side, side, device=self._device)
        times = []
        for _ in range(_WARM_UP + _TIMED):
            begun = time.perf_counter()
            network(image)
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            times.append(time.perf_counter() - begun)
        return 1000 * median(times[_WARM_UP:])
