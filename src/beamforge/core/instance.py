"""Instance: the true network, on which beams are scored, and the observation that a solver gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from beamforge.core.context import LABELS, checked
from beamforge.core.network import Network
from beamforge.core.observation import Observation


@dataclass(frozen=True)
class Instance:
    """One problem instance, or a batch of them; every tensor leads with the batch dimensions.

    truth         the true network, on which beams are scored.
    observation   what a solver gets.
    labels        labels for training (``p`` [..., K], watts); solvers do not see them.
    realisations  networks [..., S] drawn from the error model of the estimate, over which a `ChanceConstraint` measures
                  probabilities; None: over the truth alone.

    >>> import torch
    >>> instance = Instance.perfect(Network.broadcast(torch.ones(2, 4, dtype=torch.complex64), noise=0.1))
    >>> instance.observation.network is instance.truth
    True
    """

    truth: Network
    observation: Observation
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    realisations: Network | None = None

    @classmethod
    def perfect(cls, network: Network, labels: Mapping[str, Tensor] | None = None, /, **context: Tensor) -> Instance:
        """Perfect channel knowledge: the solver sees the true network.

        Raises `ConfigError` for an unknown name of a label or of `context`, `ShapeError` for a wrong shape.
        """
        return cls.estimated(network, network, labels, **context)

    @classmethod
    def estimated(
        cls, truth: Network, estimate: Network, labels: Mapping[str, Tensor] | None = None, /, **context: Tensor
    ) -> Instance:
        """The solver sees an estimate of the true network. Raises the same errors as `perfect`."""
        return cls(truth, Observation.of(estimate, **context), checked(labels or {}, truth, LABELS))

    @property
    def context(self) -> Mapping[str, Tensor]:
        """Side information of the observation, by name."""
        return self.observation.context
