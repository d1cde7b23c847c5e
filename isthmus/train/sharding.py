"""Sharded training: a process keeps its part of the language model's layers, their gradients and optimizer state.

Each layer, and an output head of its own, is sharded by torch's `fully_shard` (FSDP2): gathered while it computes, its
gradients averaged over processes and cut again. Embeddings, encoder and connector are whole in every process, because
they are called apart from the language model's forward pass; their gradients are averaged here, once a step.

A gather waits for every process, so all of them pass through the language model equally often: training does so by
its batches, validation and the doctor's look are made to.

Source: Zhao et al., "PyTorch FSDP" (arXiv:2304.11277). Checked against: the same stage in one process
(tests/train/test_sharded.py).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from isthmus.model import VisionLanguageModel
from isthmus.train.recompute import stacks
from isthmus.train.stage import Stage

_AT_ONCE = 2**25
"""Numbers that are averaged in one message, at most, but for larger tensors."""


def check(stage: Stage, num_processes: int) -> None:
    """Raises ValueError when there is nobody to share with, nothing to share, or a torch that cannot."""
    if num_processes < 2:
        raise ValueError(
            "Sharding shares a model among several processes, and there is one. Start them with "
            "torchrun --nproc-per-node N -m isthmus train ... --shard, or leave out --shard."
        )
    if stage.model.llm is None:
        raise ValueError(
            f"Sharding shares the layers of a language model, but the model of {stage.name!r} has none (llm=None). "
            f"Leave out --shard."
        )
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise ValueError(
            f"torch {torch.__version__} is too old for sharding. Install a newer one, or leave out --shard."
        )


def apply(model: VisionLanguageModel, device: torch.device) -> int:
    """Shard the language model's layers over all processes, one after another, on `device`; how many parts those are.

    Call it after weights are loaded and frozen, and after layers are wrapped to be computed again.

    Raises:
        ValueError: the language model has no list of layers.
    """
    llm = model.llm
    parts = [layer for stack in stacks(llm.model) for layer in stack]
    if not parts:
        raise ValueError(f"{type(llm.model).__name__} has no list of layers to shard. Leave out --shard.")
    parts += [llm.head] if _stands_alone(model, llm.head) else []
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for part in parts:
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
        assert isinstance(part, FSDPModule)
        part.set_force_sum_reduction_for_comms(True)  # gloo's mean is a sum in some versions: pytorch#162338
    whole = {one for one in llm.model.parameters() if not isinstance(one, DTensor)}
    fully_shard(llm.model, mesh=mesh, ignored_params=whole)  # the root, by which a layer is gathered ahead
    return len(parts)


def _stands_alone(model: nn.Module, part: nn.Module) -> bool:
    """Whether a part has parameters, and shares none with another module."""
    inside = set(part.modules())
    own = {id(one) for one in part.parameters()}
    others = {id(one) for module in model.modules() if module not in inside for one in module.parameters(recurse=False)}
    return bool(own) and not own & others


def part_groups(optimizer: torch.optim.Optimizer) -> None:
    """Split a fresh optimizer's groups so that none holds shards beside whole parameters: kernels take one kind."""
    groups = []
    for group in optimizer.param_groups:
        kinds = [isinstance(one, DTensor) for one in group["params"]]
        for kind in dict.fromkeys(kinds):
            chosen = [place for place, one in enumerate(kinds) if one is kind]
            some = {key: [group[key][place] for place in chosen] for key in ("params", "names")}
            groups.append({**group, **some})
    optimizer.param_groups[:] = groups


def own_parts(tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of an optimizer's saved tensors (`parameter name|entry`) this process's part, cut as the parameters are."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        like = parameters.get(name.partition("|")[0])
        found[name] = _own_part(tensor, like) if isinstance(like, DTensor) and tensor.shape == like.shape else tensor
    return found


def _own_part(tensor: Tensor, like: DTensor) -> Tensor:
    mesh = like.device_mesh
    chunks = torch.chunk(tensor, mesh.size(), dim=0)
    rank = mesh.get_local_rank()
    own = (chunks[rank] if rank < len(chunks) else tensor[:0]).clone().to(like.device)
    return DTensor.from_local(
        own, mesh, like.placements, run_check=False, shape=tensor.shape, stride=tensor.contiguous().stride()
    )


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """The tensors whole, one after another, on the CPU where they were shards; nothing unless `keep`.

    Every process must call it, with the same names in the same order.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            whole = tensor.full_tensor().detach()
            if keep:
                found[name] = whole.cpu()
        elif keep:
            found[name] = tensor
    return found


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """The mean over processes of the gradients of whole parameters; one without counts as 0 if another has it."""
    whole = [one for one in parameters if not isinstance(one, DTensor)]
    if not whole:
        return
    has = torch.tensor([one.grad is not None for one in whole], dtype=torch.int32, device=whole[0].device)
    distributed.all_reduce(has, distributed.ReduceOp.MAX)
    gradients = []
    for parameter, anywhere in zip(whole, has.tolist(), strict=True):
        if anywhere:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            gradients.append(parameter.grad)
    for some in _buckets(gradients):
        flat = torch.cat([one.flatten() for one in some])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for one, mean in zip(some, torch.split(flat, [one.numel() for one in some]), strict=True):
            one.copy_(mean.view_as(one))


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one number type, up to `_AT_ONCE` numbers together."""
    some: list[Tensor] = []
    for one in tensors:
        if some and (one.dtype != some[0].dtype or sum(each.numel() for each in some) + one.numel() > _AT_ONCE):
            yield some
            some = []
        some.append(one)
    if some:
        yield some


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """Clip shards and whole parameters by their common norm, as `torch.nn.utils.clip_grad_norm_`; the norm."""
    shards = [one.grad.to_local() for one in parameters if isinstance(one.grad, DTensor)]
    whole = [one.grad for one in parameters if one.grad is not None and not isinstance(one.grad, DTensor)]
    norm = torch.stack([_square(shards, summed=True), _square(whole, summed=False)]).sum().sqrt()
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for one in (*shards, *whole):
        one.mul_(factor.to(one.device))
    return norm


def norms_only(named: Iterable[tuple[str, nn.Parameter]]) -> Iterator[tuple[str, Tensor]]:
    """The named parameters with a number in place of every shard, whose gradient is the norm of the whole one's.

    Every process must read it to the end.
    """
    for name, parameter in named:
        gradient = parameter.grad
        if isinstance(gradient, DTensor):
            number = torch.zeros((), device=gradient.device, requires_grad=True)
            number.grad = _square([gradient.to_local()], summed=True).sqrt()
            yield name, number
        else:
            yield name, parameter


def _square(tensors: Sequence[Tensor], *, summed: bool) -> Tensor:
    """The sum of squares, over all processes if `summed`."""
    norm = torch.nn.utils.get_total_norm(tensors).float()
    if not summed:
        return norm.square()
    device = tensors[0].device if tensors else norm.device
    square = norm.to(device).square()
    distributed.all_reduce(square)
    return square
