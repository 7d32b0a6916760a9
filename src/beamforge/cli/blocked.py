"""Users without a channel left out of a question, and zeros put in their places of the answer."""

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
"""Arrays that lead with the instances, for a question, the numbers of its instances and its users among all [K]."""

PER_USER = ("W", "p", "rate", "sinr")
"""Arrays whose last axis is the users; behind them, W has the streams without data."""


def of_reachable_users(problem: Problem, instance: Instance, ask: Ask) -> dict[str, np.ndarray]:
    """What `ask` gives for the users that have a channel, instances with the same ones together.

    An instance without any such user is asked as it is. Raises `ConfigError` where a user has several streams.
    """
    network = instance.observation.network
    if network.streams.user is not None:
        raise ConfigError("drop-blocked must be left out where users have several streams")
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
    """An array with zeros for the users that were left out."""
    if name not in PER_USER:
        return value
    kept = with_extra(pattern, value.shape[-1] - int(pattern.sum())).cpu().numpy()
    whole = np.zeros((*value.shape[:-1], len(kept)), value.dtype)
    whole[..., kept] = value
    return whole


def with_extra(pattern: Tensor, count: int) -> Tensor:
    """Users [K] and `count` streams without data behind them, all of which stay."""
    return torch.cat([pattern, pattern.new_ones(count)])
