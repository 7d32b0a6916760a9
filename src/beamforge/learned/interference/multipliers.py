"""Multipliers for interference channels: base stations that know their own channels alone, and tell a number each way.

Every base station k sends a beam of the form that all Pareto-optimal beams have, in units of noise and power limit::

    w_k = sqrt(s_k) unit((sum_{j != k} mu_kj h_kj h_kj^H + I)^-1 h_kk)

A filter over users looks at its K x K Gram matrix and says what to tell each other base station; a second one looks at
what was heard too, and says what interference at each other user is worth, mu_kj, and which share s_k of the power to
spend. N never enters, K is any number, all base stations have the same weights, and an exchange is K(K-1) scalars.

Source: the form of the beams is that of R. Zhang, S. Cui, "Cooperative interference management with MISO beamforming",
IEEE Trans. Signal Process. 58 (2010); one scalar a pair of base stations is the exchange of M. Kim, H. Lee, M. Kim,
I. Lee, "Deep learning based decentralized beamforming methods for multi-antenna interference channels", IEEE Access 11
(2023); telling whatever a filter learns to tell, and multipliers that are corrections of a closed form, are ours.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from beamforge.classical.sum_rate.reduced_wmmse import doubled
from beamforge.core import batching
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import PerTransmitterPower
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.utilities import MinRate, SumRate
from beamforge.decentralised.backhaul import Backhaul, SharedMemory
from beamforge.decentralised.base_stations import BaseStations
from beamforge.decentralised.solver import DecentralisedSolver
from beamforge.io.weights import trained_weights
from beamforge.learned.graph_filter import GraphFilter
from beamforge.learned.interference import local_view
from beamforge.learned.interference.further_rounds import balancing, least_squares
from beamforge.learned.interference.local_view import FAINT, LEAST_WEIGHT, LocalView, combination, received, taken
from beamforge.learned.multipliers.sum_rate import call_like

TELL, CORRECT, MOST = 4.0, 10.0, 14.0
"""Largest corrections in nats of what is told and of a multiplier, and largest multiplier in nats."""

HASTE, SLOWER, FASTER = 4.0, 0.5, 1.2
"""Largest power of the rate by which a price falls in a round, and its factors where rates swing and where not."""

FADE = 0.99
"""What is left of a base station's habits after a round, to the power of the rounds so far."""

LOWEST = 1e-9
"""Below which a rate or a multiplier is none."""

SOFT = {0.1: 0.2, 0.03: 0.3, 0.01: 0.5}
"""Softness of the minimum in the loss, as a share of the rate, and how much each counts."""

FULL, SPARE = 4.0, 12.0
"""Logit of the share of the power that is spent unless the filter knows better, and the largest correction of it."""


class Priced(NamedTuple):
    """Multipliers mu [B, S, K], zero at the own user; coefficients c [B, S, K] of the beams ``H^H c`` of norm one that
    they lead to; and the share [B, S, 1] of the power that each has."""

    multipliers: Tensor
    coefficients: Tensor
    share: Tensor


class InterferenceMultipliers(DecentralisedSolver):
    """Base of the two utilities, which differ in what the first message is a correction of.

    rounds         1: each base station tells every other one number, and decides. Each further round is two more: what
                   interference it causes, and what that is worth to whoever suffers it; for max-min the first further
                   round is three.
                   With more users than antennas, derivatives by the channels are those of one round alone.
    checkpoint     "shipped", "random" (untrained), or a file that `beamforge train` wrote; only random ones have
                   gradients, unless asked for by `requires_grad_`.
    width, layers  of the graph filters, where their weights are random; else they come with the weights.
    """

    model: ClassVar[str]
    slope: ClassVar[float]
    """Of log multipliers over log standings, before any correction."""

    def __init__(self, rounds: int = 1, checkpoint: str = "shipped", width: int = 24, layers: int = 2) -> None:
        super().__init__()
        if rounds < 1:
            raise ConfigError(f"rounds must be at least 1, got {rounds}")
        if min(width, layers) < 1:
            raise ConfigError(f"width and layers must be at least 1, got {width} and {layers}")
        self.rounds = rounds
        trained = trained_weights(self.model, checkpoint)
        try:
            if trained is not None:
                width, layers = (int(trained.settings[name]) for name in ("width", "layers"))
            self.tell = GraphFilter(local_view.FEATURES, 1, local_view.SHIFTS, width, layers)
            self.hear = GraphFilter(local_view.FEATURES + HEARD, 3, local_view.SHIFTS, width, layers)
            self.look = GraphFilter(local_view.FEATURES + SEEN, 2, local_view.SHIFTS, width, 1)
            if trained is not None:
                self.load_state_dict(trained.tensors)
                self.requires_grad_(False)
        except (KeyError, ValueError, RuntimeError):
            raise ConfigError(f"checkpoint must fit this version's graph filters, got others in {checkpoint}") from None

    def standing(self, view: LocalView) -> Tensor:
        """What a base station is before it hears of others [B, S, 1], in nats."""
        raise NotImplementedError

    def beams(self, stations: BaseStations, backhaul: Backhaul) -> Tensor:
        view = LocalView.of(stations)
        priced = self.priced(view, backhaul)
        if self.rounds > 1:  # in double precision, which eigenvalues of many users and few antennas need
            wide = self.further(*batching.tree_map(doubled, (view, priced)), backhaul)
            priced = Priced(*(each.to(like.dtype) for each, like in zip(wide, priced, strict=True)))
        return formed(stations, priced)

    def priced(self, view: LocalView, backhaul: Backhaul) -> Priced:
        """Beams after one exchange."""
        standing = self.standing(view)
        told = standing + filtered(self.tell, view.nodes, view.shifts)[..., 0].clamp(-TELL, TELL)
        heard = (backhaul.exchange(told) - standing).masked_fill(view.mine, 0)
        message = message_features(heard, told - standing, view.mine, self.slope)
        correction, share, memory = filtered(self.hear, torch.cat([view.nodes, message], -1), view.shifts).unbind(-1)
        log = self.slope * heard + correction.clamp(-CORRECT, CORRECT)
        c = combination(view.gram, multipliers(log, view.mine), view.serves)
        seen = seen_features(view, log, received(view.gram, c), heard, memory)
        again, more = filtered(self.look, torch.cat([view.nodes, message, seen], -1), view.shifts).unbind(-1)
        log = log + again.clamp(-CORRECT, CORRECT)
        mu = multipliers(log, view.mine)
        c = combination(view.gram, mu, view.serves)
        return Priced(mu, c, torch.sigmoid(taken(share + more, view.serves).clamp(-SPARE, SPARE) + FULL))

    def further(self, view: LocalView, priced: Priced, backhaul: Backhaul) -> Priced:
        """Beams after the further rounds."""
        raise NotImplementedError

    def rates(self, instance: Instance) -> tuple[Tensor, Tensor]:
        """Rates [B, K] in nats for training, and the weights [B, K] of the rates."""
        known = instance.observation
        problem = build_problem(PROBLEMS[type(self)], known.context).bind(known.network)
        stations = BaseStations.of(problem, known.network)
        view = LocalView.of(stations)
        priced = self.priced(view, SharedMemory())
        power = priced.share * received(view.gram, priced.coefficients)
        signal = power.diagonal(dim1=-2, dim2=-1)
        return (signal / (1 + power.masked_fill(view.mine, 0).sum(-2))).log1p(), stations.weights


HEARD, SEEN = 3, 9
"""Features of what was heard and told, and of both and what beams from it do."""


def multipliers(log: Tensor, mine: Tensor) -> Tensor:
    """Multipliers from their logarithms [B, S, K]; none for the own user."""
    return log.clamp(-MOST, MOST).exp().masked_fill(mine, 0)


def message_features(heard: Tensor, told: Tensor, mine: Tensor, slope: float) -> Tensor:
    """Features [B, S, K, 3] of what was heard and told [B, S, K], both over one's own standing, and of the most
    urgent that was heard."""
    among = (2 * slope * heard).masked_fill(mine, -torch.inf) if heard.shape[-1] > 1 else heard
    urgent = among.logsumexp(-1, keepdim=True) / (2 * slope)
    return torch.stack([heard, told.masked_fill(mine, 0), urgent.expand_as(heard)], -1)


def seen_features(view: LocalView, log: Tensor, power: Tensor, heard: Tensor, memory: Tensor) -> Tensor:
    """Features [B, S, K, 6] of beams that deliver `power` [B, S, K], and whatever the filter wrote down."""
    signal, leak = taken(power, view.serves).clamp_min(FAINT), power.masked_fill(view.mine, 0)
    seen = [
        log.masked_fill(view.mine, 0) / 5,
        (leak + FAINT).log() / 5,
        leak.log1p(),
        (signal / view.signal).log(),
        leak.sum(-1, keepdim=True).log1p(),
        memory,
    ]
    return torch.stack([each.expand_as(log) for each in seen], -1)


def filtered(network: GraphFilter, nodes: Tensor, shifts: Tensor) -> Tensor:
    """A filter over the users of each base station, in the precision of its features."""
    found: Tensor = call_like(network, nodes, nodes.flatten(0, 1), shifts.flatten(0, 1))
    return found.unflatten(0, nodes.shape[:2])


def formed(stations: BaseStations, priced: Priced) -> Tensor:
    """Beams [B, S, N] within the power of each base station; none from one without a channel to its user."""
    W = (stations.H.mH @ priced.coefficients.unsqueeze(-1)).squeeze(-1)
    norm = torch.linalg.vector_norm(W, dim=-1, keepdim=True)
    return W * (priced.share * stations.power.unsqueeze(-1)).sqrt() / torch.where(norm > 0, norm, 1)


class SumRateInterference(InterferenceMultipliers):
    """Weighted sum rate, decentralised; O(K^2 N) once and O(K^3) a base station."""

    capabilities = (Capability(SumRate, (Form.INTERFERENCE,), needs=(PerTransmitterPower,)),)
    model = "interference-sum-rate"
    slope = 1.0

    def standing(self, view: LocalView) -> Tensor:
        return (view.weights * view.signal / (1 + view.signal)).log()

    def further(self, view: LocalView, priced: Priced, backhaul: Backhaul) -> Priced:
        """WMMSE, of which no step lowers the sum rate."""
        c = priced.share.sqrt() * priced.coefficients
        for _ in range(self.rounds - 1):
            signal, suffered = told_and_heard(view, received(view.gram, c), backhaul)
            q = view.weights * signal / ((1 + suffered) * (1 + suffered + signal))
            c = least_squares(
                view.gram, asked(view, q, backhaul), view.weights * signal.sqrt() / (1 + suffered), view.serves
            )
        share = (c.conj() * (view.gram @ c.unsqueeze(-1)).squeeze(-1)).real.sum(-1, keepdim=True)
        return Priced(priced.multipliers, c, share.clamp(0, 1))

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the mean logarithm of the weighted sum rate, so that equal shares count alike whatever the SNR."""
        rate, weights = self.rates(instance)
        total = (weights * rate).sum(-1)
        return -total.clamp_min(1e-6).log().mean(), {"sum_rate": total.detach().mean()}


class MaxMinInterference(InterferenceMultipliers):
    """Least weighted rate, decentralised."""

    capabilities = (Capability(MinRate, (Form.INTERFERENCE,), needs=(PerTransmitterPower,)),)
    model = "interference-max-min"
    slope = -2.0

    def standing(self, view: LocalView) -> Tensor:
        return (view.weights * view.signal.log1p()).log()

    def further(self, view: LocalView, priced: Priced, backhaul: Backhaul) -> Priced:
        """Prices that rise where the rate is below the others', and beams that balance them.

        In every round base stations tell the logarithm of the rate that their user has, and in the first of these what
        price the learned multipliers imply for it. So all of them know all prices and change them alike: in proportion
        to how far a rate is from their mean, by steps that shorten where it goes past that. What the multipliers of a
        base station had beyond prices that all agree on is its habit; it fades, and what is left is the optimum.
        """
        log = torch.where(view.mine, 0, priced.multipliers.clamp_min(LOWEST).log())
        leak = (priced.multipliers * received(view.gram, priced.coefficients)).sum(-1, keepdim=True)
        c, share = priced.coefficients, priced.share
        haste = torch.full_like(log, HASTE)
        prices = habit = last = torch.zeros_like(log)
        for number in range(self.rounds - 1):
            signal, suffered = told_and_heard(view, share * received(view.gram, c), backhaul)
            rate = (view.weights * (signal / (1 + suffered)).log1p()).clamp_min(LOWEST).log()
            short = centred(asked(view, -rate, backhaul))
            if number:
                haste = (haste * torch.where(short * last < 0, SLOWER, FASTER)).clamp_max(HASTE)
                prices, last, habit = prices + haste * short, short, FADE**number * habit
            else:
                mine = ((1 + leak) / (1 + suffered)).log()
                prices = asked(view, mine - (log.sum(-1, keepdim=True) + mine) / log.shape[-1], backhaul)
                habit = log - prices + taken(prices, view.serves) - mine
                prices, last = prices + HASTE * short, short
            prices = centred(prices).clamp(-MOST, MOST)
            used = torch.where(view.mine, prices, prices + habit)
            c, priced_power = balancing(view.gram, used.exp(), suffered, view.serves)
            share = torch.where(priced_power, 1, share)
        return Priced(priced.multipliers, c, share)

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the mean logarithm of a soft least weighted rate, ever less soft."""
        rate, weights = self.rates(instance)
        log = (weights.clamp_min(LEAST_WEIGHT) * rate).clamp_min(1e-6).log()
        soft = sum(share * t * (-log / t).logsumexp(-1).mean() for t, share in SOFT.items())
        assert isinstance(soft, Tensor)
        return soft, {"least": log.detach().amin(-1).mean()}


def centred(values: Tensor) -> Tensor:
    """Values [B, S, K] less their mean over the users."""
    return values - values.mean(-1, keepdim=True)


def told_and_heard(view: LocalView, power: Tensor, backhaul: Backhaul) -> tuple[Tensor, Tensor]:
    """Signal and interference [B, S, 1] at the own user, once all have told what they cause [B, S, K]."""
    return taken(power, view.serves), backhaul.exchange(power).sum(-1, keepdim=True)


def asked(view: LocalView, price: Tensor, backhaul: Backhaul) -> Tensor:
    """Prices [B, S, K] of all users, once all have told theirs [B, S, 1]."""
    heard = backhaul.exchange(price.expand(-1, -1, view.gram.shape[-1]))
    return torch.where(view.mine, price, heard)


PROBLEMS = {SumRateInterference: "sum-rate", MaxMinInterference: "max-min"}
