"""Observation: what a solver gets of an instance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from beamforge.core.context import CONTEXT, checked
from beamforge.core.network import Network


@dataclass(frozen=True)
class Observation:
    """The network that a solver sees, and side information.

    network  the network with the channels that a solver gets: estimated or true channels.
    context  side information by the names of `beamforge.core.context.CONTEXT`, [..., *] with the batch dimensions.

    The error model of an estimate is its `covariance` [..., K, N, N] and `quality` [...] or [..., K]; None if not
    given.
    """

    network: Network
    context: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, network: Network, /, **context: Tensor) -> Observation:
        """An observation whose context is checked.

        Raises `ConfigError` for an unknown name and `ShapeError` for a wrong shape.
        """
        return cls(network, checked(context, network, CONTEXT))

    @property
    def covariance(self) -> Tensor | None:
        """``E[h h^H]`` [..., K, N, N] of every user's channel."""
        return self.context.get("covariance")

    @property
    def quality(self) -> Tensor | None:
        """Quality of the estimate, [...] or [..., K], as its source documents."""
        return self.context.get("csi_quality")

    def local(self, transmitter: int) -> Observation:
        """What one transmitter knows alone: its own channels and limits; those of all other transmitters are NaN.

        >>> network = Network.interference(torch.ones(2, 2, 4, dtype=torch.complex64), noise=1.0)
        >>> torch.isnan(Observation(network).local(1).network.H.real).flatten(1).all(-1)
        tensor([ True, False])
        """
        others = torch.arange(self.network.transmitters, device=self.network.H.device) != transmitter
        H = self.network.H.masked_fill(others[:, None, None], torch.nan)
        known = dict(self.context)
        for name, axes in {"p_max_transmitter": 0, "p_max_antenna": 1}.items():
            if name in known:
                known[name] = known[name].masked_fill(others.reshape(-1, *(1,) * axes), torch.nan)
        return Observation(replace(self.network, H=H), known)
