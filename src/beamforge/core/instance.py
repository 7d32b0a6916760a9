"""Instance: the truth that beams are scored on, and what a solver may know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from beamforge.core.context import LABELS, checked
from beamforge.core.network import Network
from beamforge.core.observation import Observation


@dataclass(frozen=True)
class Instance:
    """One problem instance, or a batch of them; everything leads with the batch dimensions.

    truth         the network on which beams are scored.
    observation   what a solver is given.
    labels        what there is to learn from (``p`` [..., K], watts); no solver sees it.
    realisations  networks [..., S] that the truth might as well have been, drawn from the error model of the estimate;
                  probabilities are measured over them, or over the truth alone where there are none.

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
        """Perfect channel knowledge: the solver sees the truth.

        Raises `ConfigError` for a name that no context or label has, `ShapeError` for a shape that it cannot have.
        """
        return cls.estimated(network, network, labels, **context)

    @classmethod
    def estimated(
        cls, truth: Network, estimate: Network, labels: Mapping[str, Tensor] | None = None, /, **context: Tensor
    ) -> Instance:
        """A solver sees an estimate of the truth; raises what `perfect` does."""
        return cls(truth, Observation.of(estimate, **context), checked(labels or {}, truth, LABELS))

    @property
    def context(self) -> Mapping[str, Tensor]:
        """What is known beside the channels."""
        return self.observation.context
