"""Training by base stations: each holds the gradient of its own part, and messages make it that of the whole.

A loss over all base stations is a sum of parts ``L = sum_k L_k``, where part k is what base station k can compute from
its own channels and from what it hears. Three things cross the backhaul in a step: the numbers of the method, forwards;
for each of them the derivative of the part of who heard it, backwards to who sent it, which `Mailbox` sees to; and the
gradient by the parameters, of which every base station has a copy, to everybody. Then each takes the same step alone.

Source: the decentralised beamforming paper's Eqs. 34 to 37.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from beamforge.core.network import spectral_efficiency, squared_magnitude
from beamforge.decentralised.backhaul import Backhaul
from beamforge.decentralised.base_stations import BaseStations


def rates(stations: BaseStations, W: Tensor, backhaul: Backhaul) -> Tensor:
    """Rates [B, S] in bit/s/Hz of the users of S base stations with beams W [B, S, N].

    What a beam is heard with by the other users is told to their base stations in one exchange, which is
    differentiable: a part made of these rates has its derivatives by the beams of all others.
    """
    power = squared_magnitude(torch.einsum("bskn,bsn->bsk", stations.H, W))
    own = power.gather(-1, stations.serves[None, :, None].expand(len(W), -1, 1)).squeeze(-1)
    return spectral_efficiency(own / (1 + backhaul.exchange(power).sum(-1)))


def own_part(values: Tensor, stations: BaseStations, backhaul: Backhaul, *, least: bool = False) -> Tensor:
    """The part [B] of S base stations in ``sum_k values_k``, or where `least` says so in ``min_k values_k``.

    values  [B, S], one of each base station here: its weighted rate, for example.

    The parts of all base stations add up to the whole. For the least value each tells its own to all others, without
    derivatives; of equal ones the base station of the lowest number has it.

    >>> from beamforge.decentralised.backhaul import SharedMemory
    >>> everybody = BaseStations(torch.ones(1, 3, 3, 2) + 0j, torch.arange(3), torch.ones(1, 3), torch.ones(1, 3))
    >>> own_part(torch.tensor([[3.0, 2.0, 2.5]]), everybody, SharedMemory(), least=True)
    tensor([2.])
    """
    if not least:
        return values.sum(-1)
    said = values.detach().unsqueeze(-1).expand(-1, -1, stations.H.shape[-2])
    told = torch.where(stations.others, backhaul.exchange(said, torch.inf), said)
    return torch.where(told.argmin(-1) == stations.serves, values, 0).sum(-1)


def share_gradients(parameters: Iterable[nn.Parameter], stations: BaseStations, backhaul: Backhaul) -> None:
    """Make the gradients of a base station's part those of the whole: each tells its own to everybody.

    Parameters without a gradient here count as those with zeros; a base station that says nothing adds nothing. All
    add up in the same order, so that their parameters stay the same to the last bit. Where all base stations are in
    this process, the gradients are those of the whole already.

    >>> from beamforge.decentralised.backhaul import SharedMemory
    >>> weight = nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([1.0, 2.0])
    >>> alone = BaseStations(torch.ones(1, 1, 1, 2) + 0j, torch.arange(1), torch.ones(1, 1), torch.ones(1, 1))
    >>> share_gradients([weight], alone, SharedMemory())
    >>> weight.grad
    tensor([1., 2.])
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained or not stations.others.any() or len(stations.serves) > 1:
        return
    own = [torch.zeros_like(each) if each.grad is None else each.grad.detach() for each in trained]
    said = torch.cat([each.flatten() for each in own])[:, None, None].expand(-1, 1, stations.H.shape[-2])
    whole = torch.where(stations.others, backhaul.exchange(said), said).sum((-2, -1))
    for parameter, grad in zip(trained, whole.split([each.numel() for each in own]), strict=True):
        parameter.grad = grad.reshape(parameter.shape)
