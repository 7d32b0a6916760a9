"""Training data from files of labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from beamforge.core.context import CONTEXT, LABELS
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.io.channels import ChannelFile
from beamforge.scenarios.base import TEST_SEEDS, VALIDATION_SEEDS, uniform


@dataclass(frozen=True)
class Rows:
    """The instances of a file with gains ``G`` and labels ``p`` [B, L]; `ConfigError` for other files."""

    path: str

    @cached_property
    def seed(self) -> int:
        """Seed of the instances."""
        with ChannelFile(self.path) as channels:
            if channels.main != "G" or "p" not in channels.axes:
                raise ConfigError(f"file must hold gains G and labels p, got {', '.join(channels.axes)} in {self.path}")
            seed = channels.meta.get("seed")
        if not isinstance(seed, int):
            raise ConfigError(f"file must state its seed, as those of beamforge label do, got none in {self.path}")
        return seed

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Every array of the file, each with a row for every instance."""
        with ChannelFile(self.path) as channels:
            found, count = channels.arrays(), channels.count
            shared = {name: np.broadcast_to(value, (count, *value.shape)) for name, value in channels.shared.items()}
        return found | shared

    def draw(self, generator: torch.Generator, count: int) -> dict[str, Tensor]:
        """A batch, float64, each with `count` rows."""
        size = len(self.arrays["G"])
        rows = (int(size * uniform(generator, 1).item()) + np.arange(count)) % size
        return {name: torch.from_numpy(value[rows].astype(np.float64)) for name, value in self.arrays.items()}

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """The instances of some rows."""
        context = {name: value for name, value in draws.items() if name in CONTEXT}
        labels = {name: value for name, value in draws.items() if name in LABELS}
        noise = draws["noise"].reshape(len(draws["G"]), -1).expand(draws["G"].shape[:-1])
        return Instance.perfect(Network.power_control(draws["G"], noise), labels, **context)


@dataclass(frozen=True)
class Labelled:
    """``[data]`` with ``source = "labelled"``: links and their best powers, from ``beamforge label``.

    file        instances for training, of a seed that is not held out.
    validation  instances for validation, of a validation seed.

    A batch consists of consecutive instances, from a random place and continued at the beginning of the file. It has
    ``p`` [B, L] as a label, and ``p_max`` and ``weights`` in its context. Raises `ConfigError` for files without
    labels and for seeds that do not fit, `ChannelFileError` for files that cannot be read.

    >>> from beamforge.io.channel_writing import write_channels
    >>> from beamforge.core.instance import Instance
    >>> from beamforge.scenarios.base import VALIDATION_SEEDS, seeded
    >>> from beamforge.scenarios.power_control import Weak
    >>> for name, seed in {"training.npz": 1, "validation.npz": VALIDATION_SEEDS[0]}.items():
    ...     drawn = Weak(links=3).sample(5, seed=seed)
    ...     write_channels(name, Instance.perfect(drawn.truth, {"p": torch.ones(5, 3)}, **drawn.context), seed=seed)
    >>> source = Labelled("training.npz", "validation.npz")
    >>> source.build(source.draw(seeded(0, 0), 2)).labels["p"].shape
    torch.Size([2, 3])
    """

    file: str
    validation: str

    def __post_init__(self) -> None:
        if (seed := self.training.seed) in TEST_SEEDS or seed in VALIDATION_SEEDS:
            raise ConfigError(f"file must have a seed that is not held out, got {seed} in {self.file}")
        if (seed := self.held_out.seed) not in VALIDATION_SEEDS:
            expected = f"a validation seed ({VALIDATION_SEEDS[0]} to {VALIDATION_SEEDS[-1]})"
            raise ConfigError(f"validation must have {expected}, got {seed} in {self.validation}")

    @cached_property
    def training(self) -> Rows:
        """Instances for training."""
        return Rows(self.file)

    @cached_property
    def held_out(self) -> Rows:
        """Instances for validation."""
        return Rows(self.validation)

    def draw(self, generator: torch.Generator, count: int) -> dict[str, Tensor]:
        """A batch, float64, each with `count` rows."""
        return self.training.draw(generator, count)

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """The instances of some rows."""
        return self.training.build(draws)
