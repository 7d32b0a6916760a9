"""Learned multipliers for interference channels: local channel knowledge and one number per message.

Base station k uses a beam of the form of all Pareto-optimal beams, in units of noise and power limit::

    w_k = sqrt(s_k) unit((sum_{j != k} mu_kj h_kj h_kj^H + I)^-1 h_kk)

A graph filter over the users, whose input is the K x K Gram matrix, computes the messages to the other base stations. A
second filter, with the received messages as additional input, computes the multipliers mu_kj of the interference at the
other users and the share s_k of the power. The network does not depend on N, K is arbitrary, all base stations have the
same weights, and an exchange is K(K-1) scalars.

Source: the form of the beams is that of R. Zhang, S. Cui, "Cooperative interference management with MISO beamforming",
IEEE Trans. Signal Process. 58 (2010); one scalar a pair of base stations is the exchange of M. Kim, H. Lee, M. Kim,
I. Lee, "Deep learning based decentralized beamforming methods for multi-antenna interference channels", IEEE Access 11
(2023). New here: learned messages, and multipliers as corrections of a closed form.
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
"""Largest corrections in nats of a message and of a multiplier, and largest multiplier in nats."""

HASTE, SLOWER, FASTER = 4.0, 0.5, 1.2
"""Largest exponent of the price update, and its factors where the rate deviation changes sign and where it does not."""

FADE = 0.99
"""Decay factor of the deviation from common prices in a round, to the power of the previous rounds."""

LOWEST = 1e-9
"""Smallest rate or multiplier in logarithms."""

SOFT = {0.1: 0.2, 0.03: 0.3, 0.01: 0.5}
"""Smoothing parameters of the soft minimum in the loss, in nats of the logarithm of the rate, and their weights."""

FULL, SPARE = 4.0, 12.0
"""Logit of the uncorrected share of the power, and the largest correction of the logit."""


class Priced(NamedTuple):
    """Multipliers mu [B, S, K], zero at the own user; coefficients c [B, S, K] of the corresponding unit-norm beams
    ``H^H c``; and the share [B, S, 1] of the power limit."""

    multipliers: Tensor
    coefficients: Tensor
    share: Tensor


class InterferenceMultipliers(DecentralisedSolver):
    """Base of the two utilities, which differ in the closed form that the first message corrects.

    rounds         rounds of messages. The first is one exchange. Each further round is two exchanges, of interference
                   powers and of interference prices; for max-min the first further round is three. With more users than
                   antennas, derivatives with respect to the channels are those of one round.
    checkpoint     "shipped", "random" (untrained), or a file written by `beamforge train`; only random weights are
                   trainable, unless `requires_grad_` is called.
    width, layers  size of the graph filters, for random weights.
    """

    model: ClassVar[str]
    slope: ClassVar[float]
    """Factor between received messages and log multipliers, before corrections."""

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
        """Uncorrected message [B, S, 1] in nats, from local knowledge."""
        raise NotImplementedError

    def beams(self, stations: BaseStations, backhaul: Backhaul) -> Tensor:
        view = LocalView.of(stations)
        priced = self.priced(view, backhaul)
        if self.rounds > 1:  # double precision for eigenvalues with many users and few antennas
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
"""Numbers of additional features of the second filter (messages) and of the third (messages and beams)."""


def multipliers(log: Tensor, mine: Tensor) -> Tensor:
    """Multipliers from their logarithms [B, S, K]; zero for the own user."""
    return log.clamp(-MOST, MOST).exp().masked_fill(mine, 0)


def message_features(heard: Tensor, told: Tensor, mine: Tensor, slope: float) -> Tensor:
    """Features [B, S, K, 3]: received and sent messages [B, S, K], both relative to the own uncorrected message, and
    the soft maximum of the received ones, or minimum with negative `slope`."""
    among = (2 * slope * heard).masked_fill(mine, -torch.inf) if heard.shape[-1] > 1 else heard
    urgent = among.logsumexp(-1, keepdim=True) / (2 * slope)
    return torch.stack([heard, told.masked_fill(mine, 0), urgent.expand_as(heard)], -1)


def seen_features(view: LocalView, log: Tensor, power: Tensor, heard: Tensor, memory: Tensor) -> Tensor:
    """Features [B, S, K, 6] of beams with received powers [B, S, K], and the memory output of the second filter."""
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
    """Apply a filter over the users at each base station, in the precision of the features."""
    found: Tensor = call_like(network, nodes, nodes.flatten(0, 1), shifts.flatten(0, 1))
    return found.unflatten(0, nodes.shape[:2])


def formed(stations: BaseStations, priced: Priced) -> Tensor:
    """Beams [B, S, N] within the power limits; zero for a base station without a channel to its user."""
    W = (stations.H.mH @ priced.coefficients.unsqueeze(-1)).squeeze(-1)
    norm = torch.linalg.vector_norm(W, dim=-1, keepdim=True)
    return W * (priced.share * stations.power.unsqueeze(-1)).sqrt() / torch.where(norm > 0, norm, 1)


class SumRateInterference(InterferenceMultipliers):
    """Weighted sum rate, decentralised; O(K^2 N) once and O(K^3) per base station and round."""

    capabilities = (Capability(SumRate, (Form.INTERFERENCE,), needs=(PerTransmitterPower,)),)
    model = "interference-sum-rate"
    slope = 1.0

    def standing(self, view: LocalView) -> Tensor:
        return (view.weights * view.signal / (1 + view.signal)).log()

    def further(self, view: LocalView, priced: Priced, backhaul: Backhaul) -> Priced:
        """WMMSE steps, which do not decrease the sum rate."""
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
        """Negative mean logarithm of the weighted sum rate, for which relative gains count equally at any SNR."""
        rate, weights = self.rates(instance)
        total = (weights * rate).sum(-1)
        return -total.clamp_min(1e-6).log().mean(), {"sum_rate": total.detach().mean()}


class MaxMinInterference(InterferenceMultipliers):
    """Max-min weighted rate, decentralised."""

    capabilities = (Capability(MinRate, (Form.INTERFERENCE,), needs=(PerTransmitterPower,)),)
    model = "interference-max-min"
    slope = -2.0

    def standing(self, view: LocalView) -> Tensor:
        return (view.weights * view.signal.log1p()).log()

    def further(self, view: LocalView, priced: Priced, backhaul: Backhaul) -> Priced:
        """Price updates that increase the price of users with a rate below the mean, and balancing beams.

        In every round base stations send the logarithm of the rate of their user, and in the first further round also
        the price implied by the learned multipliers. All base stations thus know all prices and update them
        identically, in proportion to the deviation of the log rate from the mean, with a step size that is reduced when
        the deviation changes sign. The deviation of a base station's multipliers from the common prices decays over the
        rounds, and the limit is the optimum.
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
        """Negative mean logarithm of the soft minimum of the weighted rates, for several smoothing parameters."""
        rate, weights = self.rates(instance)
        log = (weights.clamp_min(LEAST_WEIGHT) * rate).clamp_min(1e-6).log()
        soft = sum(share * t * (-log / t).logsumexp(-1).mean() for t, share in SOFT.items())
        assert isinstance(soft, Tensor)
        return soft, {"least": log.detach().amin(-1).mean()}


def centred(values: Tensor) -> Tensor:
    """Values [B, S, K] minus their mean over the users."""
    return values - values.mean(-1, keepdim=True)


def told_and_heard(view: LocalView, power: Tensor, backhaul: Backhaul) -> tuple[Tensor, Tensor]:
    """Signal and interference [B, S, 1] at the own user, by an exchange of the received powers [B, S, K]."""
    return taken(power, view.serves), backhaul.exchange(power).sum(-1, keepdim=True)


def asked(view: LocalView, price: Tensor, backhaul: Backhaul) -> Tensor:
    """Prices [B, S, K] of all users, by an exchange of the own prices [B, S, 1]."""
    heard = backhaul.exchange(price.expand(-1, -1, view.gram.shape[-1]))
    return torch.where(view.mine, price, heard)


PROBLEMS = {SumRateInterference: "sum-rate", MaxMinInterference: "max-min"}
