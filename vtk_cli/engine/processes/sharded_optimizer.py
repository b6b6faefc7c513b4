"""An optimiser whose parameters and state are in parts, and whole where they are saved or handed on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.utils._pytree import tree_map_only

from vtk_cli.errors import UserError


def own_rows(whole: Tensor, mesh: DeviceMesh) -> Tensor:
    """The rows of `whole` that this process has, as FSDP cuts them: equally many each, the last processes the rest."""
    rows = -(-whole.shape[0] // mesh.size())
    return whole[mesh.get_local_rank() * rows : (mesh.get_local_rank() + 1) * rows]


def distributed(local: Tensor, like: DTensor | nn.Parameter) -> DTensor:
    """This process's part of what is cut as `like` is."""
    model = cast("DTensor", like)
    return DTensor.from_local(
        local, model.device_mesh, model.placements, run_check=False, shape=model.shape, stride=model.stride()
    )


def replicated(tensor: Tensor, mesh: DeviceMesh) -> DTensor:
    """The same memory; all processes have the same."""
    return DTensor.from_local(tensor, mesh, [Replicate()], run_check=False)


class ShardedOptimizer:
    """An optimiser over whole parameters that works on their parts.

    Args:
        optimizer: what it has of a parameter's state is cut as the parameter is.
        wholes: the parameters that it may have.
        parts: a `DTensor` for each of them, in the same order.
        mesh: all processes.

    Raises:
        UserError: the optimiser's arithmetic does not go with parts.
        ValueError: it has a parameter that is not among `wholes`.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        wholes: Iterable[nn.Parameter],
        parts: Sequence[nn.Parameter],
        mesh: DeviceMesh,
    ) -> None:
        self._optimizer, self._mesh = optimizer, mesh
        # timm's `Lookahead` keeps its state in the optimiser that it holds.
        self._inner: torch.optim.Optimizer = getattr(optimizer, "_base_optimizer", optimizer)
        self._fused = [group.get("fused") for group in optimizer.param_groups]
        self._part_of: dict[Any, nn.Parameter] = dict(zip(wholes, parts, strict=True))
        if any(one not in self._part_of for group in optimizer.param_groups for one in group["params"]):
            raise ValueError("the optimiser has a parameter that the model has not")
        self._keeps_fused = self._is_able()
        states = {self._part_of[one]: values for one, values in self._inner.state.items()}
        self._exchange(self._part_of, {part: self._in_parts(part, values) for part, values in states.items()})
        self._set_fused()
        optimizer.zero_grad(set_to_none=True)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parts that learn."""
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def state_dict(self, *, keep: bool) -> dict[str, Any]:
        """The state that an optimiser of whole parameters would have, on the CPU.

        All processes must ask for it together; those that do not `keep` it get None for tensors.
        """
        state: dict[str, Any] = self._optimizer.state_dict()
        whole: dict[str, Any] = tree_map_only(DTensor, lambda part: _whole(part, keep=keep), state)
        groups = zip(whole["param_groups"], self._fused, strict=True)
        whole["param_groups"] = [group if fused is None else {**group, "fused": fused} for group, fused in groups]
        return whole

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from whole state.

        Raises:
            ValueError: it is the state of another optimiser.
        """
        names = [name for group in state["param_groups"] for name in group["params"]]
        part_of = dict(zip(names, self.parameters, strict=True))
        states = {name: self._in_parts(part_of[name], values) for name, values in state["state"].items()}
        self._optimizer.load_state_dict({**state, "state": states})
        self._set_fused()

    def give_back(self) -> None:
        """The optimiser is one over whole parameters again, its state in the host's memory."""
        whole_of: dict[Any, nn.Parameter] = {part: whole for whole, part in self._part_of.items()}
        states = {whole_of[part]: values for part, values in self._inner.state.items()}
        self._exchange(whole_of, {whole: tree_map_only(DTensor, _whole, of) for whole, of in states.items()})
        for group, fused in zip(self._optimizer.param_groups, self._fused, strict=True):
            if fused is not None:
                group["fused"] = fused

    def _exchange(self, others: Mapping[Any, nn.Parameter], states: Mapping[Any, dict[str, Any]]) -> None:
        """The groups in place: schedules and wrappers know them."""
        for group in self._optimizer.param_groups:
            group["params"][:] = [others[one] for one in group["params"]]
        self._inner.state = defaultdict(dict, states)

    def _set_fused(self) -> None:
        for group, fused in zip(self._optimizer.param_groups, self._fused, strict=True):
            if fused is not None:
                group["fused"] = fused and self._keeps_fused

    def _is_able(self) -> bool:
        """Whether its fused kernel, if it has one, takes parts.

        Raises:
            UserError: neither that nor what is not fused.
        """
        if any(self._fused):
            try:
                self._try(fused=True)
            except NotImplementedError:
                pass
            else:
                return True
        try:
            self._try(fused=False)
        except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            what = f"the optimiser {type(self._inner).__name__}, as it is set up, does not work on parts of weights"
            raise UserError(what, "--parallel fsdp", "choose adamw, sgd, lamb or lion, or --parallel ddp") from error
        return False

    def _try(self, *, fused: bool) -> None:
        """Two updates of two small parameters: some do not get far in their first."""
        probe = object.__new__(type(self._inner))
        probe.__dict__.update(self._inner.__dict__)
        learning = [nn.Parameter(self._ones(2 * self._mesh.size(), *columns)) for columns in ((3,), ())]
        chosen = {"fused": fused} if any(self._fused) else {}
        probe.param_groups = [{**group, **chosen, "params": learning} for group in self._inner.param_groups[:1]]
        probe.state = defaultdict(dict)
        if isinstance(probe, torch.optim.Adagrad):  # its state is there from the start
            probe.state.update({one: {"step": torch.tensor(0.0), "sum": self._ones(*one.shape)} for one in learning})
        for _ in range(2):
            for one in learning:
                one.grad = self._ones(*one.shape)
            probe.step()

    def _ones(self, *shape: int) -> DTensor:
        device = self._mesh.device_type
        return DTensor.from_local(torch.ones(2, *shape[1:], device=device), self._mesh, [Shard(0)], run_check=False)

    def _in_parts(self, part: nn.Parameter, values: Mapping[str, Any]) -> dict[str, Any]:
        """The state of a parameter, cut as the parameter is; tensors of other shapes are the same everywhere."""

        def cut(name: str, value: Any) -> Any:
            if not isinstance(value, Tensor) or (value.ndim == 0 and (part.ndim or name == "step")):
                return value
            value = value.to(part.device)
            if value.shape != part.shape or value.ndim == 0:
                return replicated(value.clone(), self._mesh)
            return distributed(own_rows(value, self._mesh).clone(memory_format=torch.contiguous_format), part)

        return {name: cut(name, value) for name, value in values.items()}


def _whole(part: DTensor, *, keep: bool = True) -> Tensor | None:
    tensor = part.full_tensor()
    return tensor.cpu() if keep else None
