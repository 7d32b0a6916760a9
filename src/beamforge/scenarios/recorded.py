"""Recorded channels (measured, traced or sampled before): a scenario that reads a channel file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch

from beamforge.core.batching import tree_map
from beamforge.core.instance import Instance
from beamforge.io.channels import ChannelFile
from beamforge.scenarios.base import Scenario, require, seeded


@dataclass(frozen=True)
class Recorded(Scenario):
    """Instances of a channel file in cyclic order, from a row that depends on the seed.

    Instance i of a seed is row ``(offset(seed) + i) mod B`` of the file's B rows. So different seeds share rows:
    held-out instances need a file of their own.

    path  a channel file in the formats of the manual; a bare name may be that of a file that comes with the package.

    >>> Recorded().sample(2).truth.H.shape
    torch.Size([2, 1, 16, 64])
    """

    path: str = "munich.npz"

    def sample(self, count: int, seed: int = 0, first: int = 0, dtype: torch.dtype = torch.complex64) -> Instance:
        asked = (count, seed, first)
        require(count >= 1 and seed >= 0 and first >= 0, "count, seed and first", "at least 1, 0 and 0", asked)
        with resources.as_file(resources.files("beamforge") / "data") as shipped:
            inside = shipped / self.path
            bare = Path(self.path).name == self.path and not Path(self.path).exists() and inside.exists()
            with ChannelFile(inside if bare else self.path) as file:
                offset = int(torch.randint(file.count, (), generator=seeded(seed, 0)))
                place, pieces = (offset + first) % file.count, []
                while count > 0:
                    size = min(count, file.count - place)
                    pieces.append(file.read(place, size, dtype=dtype))
                    count, place = count - size, 0
        return join(pieces)


def join(pieces: list[Instance]) -> Instance:
    """Several batches concatenated to one."""
    first, *rest = pieces
    return tree_map(lambda leaf, *others: torch.cat([leaf, *others]), first, *rest) if rest else first
