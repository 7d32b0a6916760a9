"""Learn the multipliers, let algebra make the beams: this library's own method for sum rate and fairness together.

On the frontier between sum rate and Jain's index every beam has the form ``(sum_l mu_l h_l h_l^H + nu_u I)^-1 h_u``:
mu prices interference, nu prices power. A graph filter over users looks at the K x K Gram matrix and at the price of
fairness, and predicts these 2K numbers; so one small network serves the whole frontier, any number of users and any
number of antennas. Training differentiates through the algebra, on rate and fairness themselves, without labels.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from beamforge import batching
from beamforge.classical.fairness import FairnessSolver, fair, least
from beamforge.classical.power import equal_power
from beamforge.classical.structure import coefficients, even_coefficients, unit
from beamforge.constraints import EqualPower, MeanJainAtLeast, jain_index
from beamforge.errors import ConfigError
from beamforge.instance import Instance
from beamforge.learned.graph_filter import GraphFilter
from beamforge.network import Network, others, own, squared_magnitude
from beamforge.problem import Problem
from beamforge.solver import Solution
from beamforge.training.weights import load
from beamforge.utilities import SumRate

FEATURES = 16
SHIFTS = 6

LIMIT = 8.0
"""Largest correction in nats that the filter can make to a multiplier."""

STEEPNESS = 0.8
"""Exponent of the weighted SLNR that is corrected, at a price of fairness equal to the sum rate."""

STEEPEST = 3.0
"""Its largest exponent."""

DEAREST = 7.0
"""Largest price of fairness in training, in sum rates of the uplink; what is dearer is seen as this."""

SAMPLES, ROUGH, LOOKS = (32, 256), 0.002, 5
"""Where a price is found for a large batch: instances that tell it roughly, to what accuracy, and looks at all."""

MARGIN = 1e-3
"""By how much the mean of Jain's index may be more than is asked for there."""

PIECE = 512
"""Instances that pass the filter at once."""


class FairMultipliers(FairnessSolver):
    """Sum rate ``S`` under fairness on a broadcast network, every beam of power P/K; O(K^2 N) once and O(K^3).

    In units where the noise and P/K are one, with mu and nu from the filter::

        w_u ∝ (sum_l mu_l h_l h_l^H + nu_u I)^-1 h_u,     mu_l ∝ |h_l|^(-2 alpha) e^(x_l),     nu_u = e^(y_u)

    so that outputs x, y [B, K] of zero are weighted SLNR, its alpha in proportion to the price lambda of fairness. The
    filter is told lambda; what it predicts is meant to maximise ``S + lambda J``, J Jain's index of the rates. An
    instance on which weighted SLNR has more of that keeps it, so that none is ever worse.

    price          lambda, bit/s/Hz; left out, the least that meets the fairness that the problem asks for.
    weights        "shipped", "random" (untrained), or a file that `beamforge train` wrote; only random ones have
                   gradients, unless asked for by `requires_grad_`.
    width, rounds  of the graph filter, where its weights are random; else they come with the weights.
    """

    serves = fair(EqualPower)
    scope = "rates of equal weight"
    knob = "price"
    ladder = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0)
    accuracy = 1e-9

    def __init__(self, price: float | None = None, weights: str = "shipped", width: int = 40, rounds: int = 3) -> None:
        super().__init__()
        if price is not None and not 0 <= price < math.inf:
            raise ConfigError(f"price must be finite and not negative, got {price:g}")
        if min(width, rounds) < 1:
            raise ConfigError(f"width and rounds must be at least 1, got {width} and {rounds}")
        self.price = price
        name = "fair-multipliers"
        trained = None if weights == "random" else load(name, None if weights == "shipped" else Path(weights))
        try:
            if trained is not None:
                width, rounds = (int(trained.settings[name]) for name in ("width", "rounds"))
            self.filter = GraphFilter(FEATURES, 2, SHIFTS, width, rounds)
            if trained is not None:
                self.load_state_dict(trained.tensors)
                self.requires_grad_(False)
        except (KeyError, ValueError, RuntimeError):
            raise ConfigError(f"weights must fit this version's graph filter, got others in {weights}") from None

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        if not super().supports(problem, network):
            return False
        assert isinstance(problem.maximise, SumRate)
        return bool((torch.as_tensor(problem.maximise.weights) == 1).all())

    def solve_batch(
        self, problem: Problem, instance: Instance, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        mean = problem.find(MeanJainAtLeast)
        if self.price is None and mean is not None:
            if (quick := self.for_many(mean.limit, problem, instance)) is not None:
                return quick
        return super().solve_batch(problem, instance, start, generator)

    def solve_at(self, problem: Problem, instance: Instance, knob: Tensor, start: Tensor | None) -> Solution:
        channels = see(problem, instance)
        return formed(problem, instance, channels, self.best(channels, knob)[0])

    def jain(self, problem: Problem, instance: Instance, knob: Tensor, start: Tensor | None) -> Tensor:
        return jain_index(self.best(see(problem, instance), knob)[1])

    def for_many(self, limit: Tensor, problem: Problem, instance: Instance) -> Solution | None:
        """A large batch at the least price for its mean, nearly; None where it is small, or the quick way fails.

        A few instances tell the price roughly; more of them, and then all, put it right along the secant. The last look
        at all of them is the solution; derivatives take its price for given.
        """
        few, more = (len(limit) // size for size in SAMPLES)
        if more < 2 or (limit != limit[0]).any():
            return None
        channels, aim = see(problem, instance), limit[:1] + MARGIN / 2

        def seen(price: Tensor, every: int) -> tuple[Tensor, Tensor]:
            """Beams for one in so many instances, and by how much the mean [1] of their fairness is above the aim."""
            some = batching.take(channels, slice(None, None, every))
            X, rate = self.best(some, price.expand(len(some.gram)))
            return X, jain_index(rate).double().mean().to(price) - aim

        with torch.no_grad():
            rough = least(lambda price: seen(price, few)[1], torch.zeros_like(aim), self.ladder, ROUGH)
            price = rough.knob.clamp_min(1.0)
            slope = (seen(1.05 * price, few)[1] - seen(price, few)[1]) / (0.05 * price)
            if not (rough.met and slope > 0):
                return None
        last = None
        for every in (more, more, *LOOKS * [1]):
            X, gap = seen(price, every)
            if every == 1 and gap.abs() <= MARGIN / 2:
                solution = formed(problem, instance, channels, X)
                return replace(solution, info={self.knob: price.expand_as(limit)})
            if last is not None and last[0] == every:
                secant = (gap - last[2]) / (price - last[1])
                slope = torch.where(secant > 0, secant.clamp(slope / 3, 3 * slope), slope)
            last = every, price, gap
            price = (price - gap / slope).clamp_min(0)
        return None

    def best(self, channels: Channels, price: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients [B, K, K] and rates [B, K] of the predicted beams, or of weighted SLNR where that is better."""
        found = []
        for first in range(0, len(price), PIECE):
            (_, gram, sight), part = batching.take((channels, price), slice(first, first + PIECE))
            view = look(gram, sight, part)
            X = coefficients(gram, *self.predict(view))
            rate = rates(gram, X)
            better = (objective(rate, part) >= objective(view.rate, part)).unsqueeze(-1)
            found.append((torch.where(better.unsqueeze(-1), X, view.X), torch.where(better, rate, view.rate)))
        X, rate = (torch.cat(parts) for parts in zip(*found, strict=True))
        return X, rate

    def predict(self, view: View) -> tuple[Tensor, Tensor]:
        """The corrected prices mu and ridges nu [B, K]."""
        weights = {name: value.to(view.nodes) for name, value in self.filter.state_dict(keep_vars=True).items()}
        corrections = functional_call(self.filter, weights, (view.nodes, view.shifts)).clamp(-LIMIT, LIMIT)
        return view.mu * corrections[..., 0].exp(), corrections[..., 1].exp()

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus ``(S - lambda (1 - J)) / S_0``: S_0 [B] is the uplink's rate, lambda is 0 to 7 of it, mostly little.

        That is of the predicted beams in training, and of the better ones, as in use, in validation.
        """
        H = normalised(instance.seen, instance.context["p_max"])
        with torch.no_grad():
            gram = H @ H.mH
            sight = observe(gram)
            draw = torch.rand(len(gram), generator=generator, dtype=gram.real.dtype, device=gram.device)
            price = DEAREST * draw**1.5 * sight.rate
            view = look(gram, sight, price)
            floor = objective(view.rate, price)
        rate = rates(gram, coefficients(gram, *self.predict(view)))
        value = objective(rate, price)
        value = value if self.training else value.maximum(floor)
        shown = {"rate": rate.sum(-1), "jain": jain_index(rate), "to_slnr": value / floor}
        return -((value - price) / sight.rate).mean(), {name: each.detach().mean() for name, each in shown.items()}


def normalised(network: Network, power: Tensor) -> Tensor:
    """Channels [B, K, N] in units where the noise, and the power ``P/K`` of every beam, are one."""
    scale = (power.unsqueeze(-1) / network.users / network.noise).sqrt()
    return network.channel * scale.unsqueeze(-1)


class Channels(NamedTuple):
    """H [B, K, N] in units of noise and power, its Gram matrix [B, K, K], and what the filter sees of that."""

    H: Tensor
    gram: Tensor
    sight: Sight


def see(problem: Problem, instance: Instance) -> Channels:
    """The channels of a problem in which every beam has the same power."""
    H = normalised(instance.seen, problem.get(EqualPower).limit)
    gram = H @ H.mH
    return Channels(H, gram, observe(gram))


def formed(problem: Problem, instance: Instance, channels: Channels, X: Tensor) -> Solution:
    """Beams ``H^H X`` at the power of each."""
    return Solution.closed_form(equal_power(problem, instance.seen, unit(channels.H.mH @ X)))


def rates(gram: Tensor, X: Tensor) -> Tensor:
    """Rates [B, K] in bit/s/Hz with the beams ``H^H X``."""
    return rates_of(squared_magnitude(gram @ X))


def rates_of(power: Tensor) -> Tensor:
    """Rates [B, K] in bit/s/Hz from received powers [B, K, K] in units of the noise."""
    return torch.log1p(own(power) / (others(power) + 1)) / math.log(2)


def objective(rate: Tensor, price: Tensor) -> Tensor:
    """Sum rate and priced fairness [B] of rates [B, K]."""
    return rate.sum(-1) + price * jain_index(rate)


class Sight(NamedTuple):
    """What the filter sees of the channels alone: features [B, K, 8] and shifts [B, 4, K, K].

    gain  of the channels [B, K].       rate  sum rate [B] of the uplink with the same powers, the measure of prices.
    """

    nodes: Tensor
    shifts: Tensor
    gain: Tensor
    rate: Tensor


def observe(gram: Tensor) -> Sight:
    """Features and shifts of a Gram matrix, whatever the price of fairness.

    Most come from ``R = (I + G)^-1``: ``-log2 R_uu`` is user u's rate in the uplink with linear receivers.
    """
    K, gain = gram.shape[-1], own(gram).real
    eps, tiny = torch.finfo(gain.dtype).eps, torch.finfo(gain.dtype).tiny ** 0.5
    factor, _ = torch.linalg.cholesky_ex(gram + torch.diag_embed(1 + 4 * eps * gain))
    R = torch.cholesky_inverse(factor)
    kept = own(R).real.clamp_min(tiny)
    uplink = -kept.log2().clamp_max(0)
    scale = torch.where(gain > 0, gain, torch.inf).reciprocal()
    alike = squared_magnitude(gram) * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    itself = torch.eye(K, dtype=torch.bool, device=gain.device)
    weak = (alike * gain.clamp_min(tiny).rsqrt().unsqueeze(-2)).masked_fill(itself, 0)
    shifts = torch.stack(
        [
            alike,
            squared_magnitude(R) / (kept.unsqueeze(-1) * kept.unsqueeze(-2)),
            weak / weak.sum(-1, keepdim=True).clamp_min(tiny),
            torch.full_like(alike, 1 / K),
        ],
        1,
    ).masked_fill(itself, 0)
    mean = uplink.mean(-1, keepdim=True)
    nodes = torch.stack(
        [
            gain.clamp_min(1e-6).log() / 5,
            kept.log() / 5,
            (kept * (1 + gain)).log(),
            shifts[:, 0].sum(-1),
            shifts[:, 0].square().sum(-1),
            shifts[:, 1].sum(-1),
            uplink / mean.clamp_min(tiny) - 1,
            (mean / 5).expand_as(gain),
        ],
        -1,
    )
    return Sight(nodes, shifts, gain, uplink.sum(-1))


class View(NamedTuple):
    """What the filter sees at a price of fairness, and corrects: weighted SLNR, whose ridges are one.

    nodes  features [B, K, 16].       mu    prices of interference [B, K].      rate  what it achieves [B, K].
    shifts [B, 6, K, K].              X     its beams' coefficients [B, K, K].
    """

    nodes: Tensor
    shifts: Tensor
    mu: Tensor
    X: Tensor
    rate: Tensor


def look(gram: Tensor, sight: Sight, price: Tensor) -> View:
    """Weighted SLNR whose exponent rises with the price of fairness [B], and the multipliers that its beams ask for."""
    K, tiny = gram.shape[-1], torch.finfo(price.dtype).tiny ** 0.5
    share = (price / sight.rate.clamp_min(1e-3)).clamp_max(DEAREST).unsqueeze(-1)
    steep = (STEEPNESS * share).clamp_max(STEEPEST)
    weakness = torch.where(sight.gain > 0, -steep * sight.gain.clamp_min(tiny).log(), -1 / tiny)
    mu = K * torch.softmax(weakness, -1).clamp_min(tiny)
    X = even_coefficients(gram, mu)
    power = squared_magnitude(gram @ X)
    rate, worth, asked, ridge = marginal(power, price)
    leaked = power.masked_fill(torch.eye(K, dtype=torch.bool, device=power.device), 0)
    heard = leaked / (power.sum(-1, keepdim=True) + 1)
    shifts = torch.stack([heard, (leaked / (power.sum(-2, keepdim=True) + 1)).mT], 1)
    level = ridge.clamp_min(0).mean(-1, keepdim=True) + 0.01
    nodes = torch.stack(
        [
            mu.log() / 5,
            (share - 2).expand_as(mu),
            (1 + 2 * share).log().expand_as(mu),
            jain_index(rate).unsqueeze(-1).expand_as(mu),
            rate / rate.mean(-1, keepdim=True).clamp_min(tiny) - 1,
            worth.clamp(-5, 5) / 2,
            (asked.clamp_min(0) / level / mu + 0.01).log().clamp_max(5) / 2,
            (ridge.clamp_min(0) / level + 0.01).log() / 2,
        ],
        -1,
    )
    return View(torch.cat([sight.nodes, nodes], -1), torch.cat([sight.shifts, shifts], 1), mu, X, rate)


def marginal(power: Tensor, price: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rates R [B, K] of received powers P [B, K, K] in units of the noise, and what ``(S + lambda J) ln 2`` is worth.

    With I the interference and noise and T = I + P_uu: the derivatives ``a_u = 1 + lambda dJ/dR_u`` by rate, minus
    those by interference, ``mu_u = a_u (1/I_u - 1/T_u)``, and those by the power of a beam, ``nu_u = a_u P_uu / T_u -
    sum_{l != u} mu_l P_lu``. On the frontier, mu and nu are the multipliers of the beams themselves.
    """
    K, tiny = power.shape[-1], torch.finfo(price.dtype).tiny ** 0.5
    leaked = power.masked_fill(torch.eye(K, dtype=torch.bool, device=power.device), 0)
    signal, disturbed = own(power), leaked.sum(-1) + 1
    whole = signal + disturbed
    rate = torch.log1p(signal / disturbed) / math.log(2)
    total, square = rate.sum(-1, keepdim=True), rate.square().sum(-1, keepdim=True).clamp_min(tiny)
    worth = 1 + price.unsqueeze(-1) * 2 * total / (K * square) * (1 - total * rate / square)
    mu = worth * (signal / whole) / disturbed
    nu = worth * signal / whole - (mu.unsqueeze(-1) * leaked).sum(-2)
    return rate, worth, mu, nu
