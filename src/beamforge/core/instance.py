"""What is solved: the network to be scored on, and what a solver may see of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from beamforge.core.network import Network


@dataclass(frozen=True)
class Instance:
    """One problem instance, or a batch of them.

    truth    the network on which beams are scored.
    seen     the network a solver is given: the truth itself, or an estimate of it.
    context  side data by name, each leading with the batch dimensions where it differs by instance:
             ``p_max``, ``p_max_antenna`` (watts), ``weights``, ``sinr_target`` (linear, [..., K]),
             ``csi_quality``, ``covariance`` [..., K, N, N], ``user_position`` [..., K, 3] (metres),
             ``target_angles`` (radians), ``target_gain``, ``p`` (watts to be learned, [..., K]).

    >>> import torch
    >>> instance = Instance.perfect(Network.broadcast(torch.ones(2, 4, dtype=torch.complex64), noise=0.1))
    >>> instance.seen is instance.truth
    True
    """

    truth: Network
    seen: Network
    context: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def perfect(cls, network: Network, **context: Tensor) -> Instance:
        """Perfect channel knowledge: the solver sees the truth."""
        return cls(network, network, context)
