"""Passes over a recorded graph: views become copies, and held tensors become inputs."""

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyrovae.internals.torch_internals import schema_of


def copy_views(graph: GraphModule) -> None:
    """Allow views that nothing writes to to be copies, since fused kernels may lay numbers out otherwise than eager ones."""
    for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
        if not _is_written_to(node):
            node.target = torch.ops.aten.reshape.default


def _is_written_to(node: Node) -> bool:
    """Whether an operation writes to a tensor, or to a view of it."""
    for user in node.users:
        schema = schema_of(user.target)
        views = schema is not None and any(value.alias_info is not None for value in schema.returns)
        if schema is not None and (schema.is_mutable or (views and _is_written_to(user))):
            return True
    return False


def lift_tensors(graph: GraphModule) -> list[Tensor]:
    """Turn the tensors that a graph holds into its last inputs, and return them."""
    values = {node: getattr(graph, node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    values = {node: value for node, value in values.items() if isinstance(value, Tensor)}
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    lifted: dict[int, tuple[Tensor, Any]] = {}
    for node, value in values.items():
        if id(value) not in lifted:
            with graph.graph.inserting_after(last):
                last = graph.graph.placeholder(f"held_{len(lifted)}")
            last.meta = dict(node.meta)
            lifted[id(value)] = value, last
        node.replace_all_uses_with(lifted[id(value)][1])
        graph.graph.erase_node(node)
    graph.recompile()
    for name in {node.target for node in values}:
        delattr(graph, name)
    return [value for value, _ in lifted.values()]
