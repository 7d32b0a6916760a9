"""Leaves users without a channel out of a problem, and fills their places in the results with zeros."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from beamforge.core import batching
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.reduction import without_users

Ask = Callable[[Problem, Instance, Tensor, Tensor], dict[str, np.ndarray]]
"""Maps a problem, its instances, their indices in the batch and the mask [K] of their users to arrays [B, ...]."""

PER_USER = ("W", "p", "rate", "sinr")
"""Arrays whose last axis is the users; in W, streams without data follow the users."""


def for_reachable_users(problem: Problem, instance: Instance, ask: Ask) -> dict[str, np.ndarray]:
    """Call `ask` for the users that have a channel, jointly for instances with the same such users.

    An instance without any such user is passed unchanged. Raises `ConfigError` if a user has several streams.
    """
    network = instance.observation.network
    if network.streams.user is not None:
        raise ConfigError("drop-blocked must be left out if users have several streams")
    problem = problem.bind(instance.truth)
    keep = network.reachable
    keep = keep | ~keep.any(-1, keepdim=True)
    found: dict[str, np.ndarray] = {}
    patterns, which = keep.unique(dim=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        rows = (which == number).nonzero().squeeze(-1)
        part, some = batching.take((problem, instance), rows)
        if not pattern.all():
            reduced, observation = without_users(part, some.observation, pattern)
            truth = without_users(part, Observation(some.truth), pattern)[1].network
            part, some = reduced, Instance(truth, observation)
        for name, value in ask(part, some, rows, pattern).items():
            whole = whole_array(name, value, pattern)
            if name not in found:
                found[name] = np.zeros((len(keep), *whole.shape[1:]), whole.dtype)
            found[name][rows.cpu().numpy()] = whole
    return found


def whole_array(name: str, value: np.ndarray, pattern: Tensor) -> np.ndarray:
    """The array of all users, with zeros for those that were left out."""
    if name not in PER_USER:
        return value
    kept = kept_streams(pattern, value.shape[-1] - int(pattern.sum())).cpu().numpy()
    whole = np.zeros((*value.shape[:-1], len(kept)), value.dtype)
    whole[..., kept] = value
    return whole


def kept_streams(pattern: Tensor, count: int) -> Tensor:
    """The mask [K] of users, followed by `count` streams without data, which are all kept."""
    return torch.cat([pattern, pattern.new_ones(count)])
