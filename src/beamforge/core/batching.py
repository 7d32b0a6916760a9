"""Operations on trees of tensors: dataclasses, named tuples, mappings and sequences whose leaves are tensors.

Every tensor of a bound `Problem`, an `Instance`, a `Solution` or a solver's state leads with the same batch
dimensions, so slicing, flattening and stacking are written once, here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

Tree = TypeVar("Tree")


def tree_map(function: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply `function` to every tensor of `tree` (and to those in the same places of `rest`)."""
    first: Any = tree
    kind: Any = type(tree)
    if isinstance(first, Tensor):
        return function(first, *rest)
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in dataclasses.fields(first) if field.init]
        changes = {n: tree_map(function, getattr(first, n), *(getattr(other, n) for other in rest)) for n in names}
        return kind(**changes)
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return kind(*(tree_map(function, *leaves) for leaves in zip(first, *rest, strict=True)))
    if isinstance(first, (tuple, list)):
        return kind(tree_map(function, *leaves) for leaves in zip(first, *rest, strict=True))
    if isinstance(first, Mapping):
        return {key: tree_map(function, first[key], *(other[key] for other in rest)) for key in first}  # type: ignore[return-value, index]
    return tree


def take(tree: Tree, index: Tensor | slice) -> Tree:
    """The instances `index` of a tree with one batch dimension."""
    return tree_map(lambda leaf: leaf[index], tree)


def put(tree: Tree, index: Tensor, values: Tree) -> Tree:
    """`tree` with the instances `index` replaced by `values` (out of place, so gradients flow)."""
    return tree_map(lambda leaf, value: leaf.index_copy(0, index, value), tree, values)


def flatten(tree: Tree, dims: int) -> Tree:
    """Merge the first `dims` (batch) dimensions of every tensor into one; ``dims = 0`` adds a batch dimension of 1."""
    if dims == 1:
        return tree
    return tree_map(lambda leaf: leaf.reshape(-1, *leaf.shape[dims:]) if dims else leaf.unsqueeze(0), tree)


def unflatten(tree: Tree, shape: tuple[int, ...]) -> Tree:
    """Undo `flatten`: the first dimension becomes the batch dimensions `shape`."""
    if len(shape) == 1:
        return tree
    return tree_map(lambda leaf: leaf.reshape((*shape, *leaf.shape[1:])), tree)


def where(condition: Tensor, yes: Tree, no: Tree) -> Tree:
    """For each instance, `yes` where `condition` [B] holds and `no` elsewhere."""

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(condition.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return tree_map(choose, yes, no)


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of a tree, in order."""
    found: list[Tensor] = []
    tree_map(lambda leaf: found.append(leaf) or leaf, tree)  # type: ignore[func-returns-value]
    return found


def pack(tree: Any) -> Tensor:
    """All numbers of an instance as one row: real [B, n] (a complex number counts as two)."""
    rows = [torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in leaves(tree)]
    return torch.cat([row.flatten(1) for row in rows], -1)


def unpack(rows: Tensor, like: Tree) -> Tree:
    """Undo `pack` into the shapes of `like`."""
    offset = 0

    def cut(leaf: Tensor) -> Tensor:
        nonlocal offset
        shape = torch.Size((*leaf.shape[1:], 2) if leaf.is_complex() else leaf.shape[1:])
        row = rows[:, offset : offset + shape.numel()].reshape(-1, *shape)
        offset += shape.numel()
        return torch.complex(row[..., 0], row[..., 1]) if leaf.is_complex() else row

    return tree_map(cut, like)
