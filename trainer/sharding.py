"""A network over several GPUs: each holds a share of weights, gradients and optimiser (FSDP2).

Before a block runs, its weights are gathered, and let go after it; its gradients are averaged over the
processes and scattered. So a GPU holds one block at a time besides its share. Within a machine the weights
are cut into shares, machines hold copies of one another (HSDP): what travels between machines is gradients.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from trainer.networks.protocol import Network
from trainer.processes import Processes


def shard(network: Network, processes: Processes) -> Network:
    """Put a network on the processes' devices, cut into shares where there are several; in place.

    Weights keep their type; what runs in bfloat16 is autocast's choice, which keeps noise levels, points and
    rotations in float32. Every process holds the same weights before.
    """
    network.to(processes.device)
    if processes.count == 1:
        return network
    # Of what a network gives back nothing is changed in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = _mesh(processes)
    # In the weights' own type: autocast decides what is computed in which.
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    for part in parts_of(network):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    # Let go of after each pass, too: validation and clips put other weights in, and take them out again.
    fully_shard(network, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    return network


def parts_of(network: Network) -> list[nn.Module]:
    """What is gathered, recomputed and compiled one by one: the transformer's blocks and their adapters."""
    modules: Any = network
    return [*network.blocks(), *modules.adapters]


def compile_parts(network: Network) -> None:
    """Compile every block and adapter (torch.compile), in place; the first steps of each bucket take long."""
    for part in parts_of(network):
        part.compile()


def _mesh(processes: Processes) -> DeviceMesh:
    kind, machines = processes.device.type, processes.count // processes.per_machine
    if machines == 1 or processes.count % processes.per_machine:
        return init_device_mesh(kind, (processes.count,))
    return init_device_mesh(kind, (machines, processes.per_machine), mesh_dim_names=("machines", "shares"))
