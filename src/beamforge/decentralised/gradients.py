"""Decentralised training: each base station computes a local loss, and messages give the gradient of the sum.

The loss is a sum ``L = sum_k L_k`` where base station k computes L_k from its own channels and received messages.
A training step has three kinds of messages: the numbers of the method (forward); for each of them the derivative of the
receiver's local loss, returned to the sender (backward, by `Mailbox`); and the local gradients with respect to the
parameters, of which every base station has a copy, sent to all others. Then all base stations take the same step.

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

    The interference power of each beam at the other users is sent to their base stations in one exchange, which is
    differentiable: a local loss of these rates has derivatives with respect to the beams of all base stations.
    """
    power = squared_magnitude(torch.einsum("bskn,bsn->bsk", stations.H, W))
    own = power.gather(-1, stations.serves[None, :, None].expand(len(W), -1, 1)).squeeze(-1)
    return spectral_efficiency(own / (1 + backhaul.exchange(power).sum(-1)))


def own_part(values: Tensor, stations: BaseStations, backhaul: Backhaul, *, least: bool = False) -> Tensor:
    """Contribution [B] of S base stations to ``sum_k values_k``, or with `least` to ``min_k values_k``.

    values  [B, S], one per local base station, for example its weighted rate.

    The contributions of all base stations sum to the total. For the minimum, the values are exchanged without
    derivatives; of equal values the base station with the lowest number contributes.

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
    """Replace the gradients of a base station's local loss by those of the total loss, by an all-to-all exchange.

    Parameters without a gradient count as zero gradients, and so do missing messages. All base stations sum in the same
    order, so that their parameters remain identical bit by bit. If all base stations are in this process, the gradients
    already are those of the total loss.

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
