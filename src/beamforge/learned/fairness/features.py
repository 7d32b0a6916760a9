"""Inputs of the filter of fair multipliers, from the Gram matrix and from weighted SLNR at a price of fairness."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.structure import equal_ridge_coefficients
from beamforge.core.constraints import EqualPower, jain_index
from beamforge.core.network import Network, others, own, spectral_efficiency, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem

FEATURES = 16
SHIFTS = 6
"""Features of each user, and shifts between users."""

EXPONENT_SLOPE = 0.8
"""Exponent of the weighted SLNR that is corrected, per price of fairness in sum rates of the uplink."""

MAX_EXPONENT = 3.0
"""Largest exponent of that weighted SLNR."""

MAX_PRICE = 7.0
"""Largest price of fairness in training, in sum rates of the uplink; in the features, higher prices are cut to it."""


class Channels(NamedTuple):
    """H [B, K, N] in units of noise and power, its Gram matrix [B, K, K], and the features of that."""

    H: Tensor
    gram: Tensor
    features: Features


def prepare_channels(problem: Problem, observation: Observation) -> Channels:
    """The channels of a problem in which every beam has the same power."""
    H = scaled_channel(observation.network, problem.get(EqualPower).limit)
    gram = H @ H.mH
    return Channels(H, gram, observe(gram))


def scaled_channel(network: Network, power: Tensor) -> Tensor:
    """Channels [B, K, N] in units where the noise, and the power ``P/K`` of every beam, are one."""
    scale = (power.unsqueeze(-1) / network.users / network.noise).sqrt()
    return network.channel * scale.unsqueeze(-1)


def rates(gram: Tensor, X: Tensor) -> Tensor:
    """Rates [B, K] in bit/s/Hz with the beams ``H^H X``."""
    return rates_of(squared_magnitude(gram @ X))


def rates_of(power: Tensor) -> Tensor:
    """Rates [B, K] in bit/s/Hz from received powers [B, K, K] in units of the noise."""
    return spectral_efficiency(own(power) / (others(power) + 1))


def objective(rate: Tensor, price: Tensor) -> Tensor:
    """Sum rate and priced fairness [B] of rates [B, K]."""
    return rate.sum(-1) + price * jain_index(rate)


class Features(NamedTuple):
    """Inputs that depend on the channels alone: features [B, K, 8] and shifts [B, 4, K, K].

    gain  gains of the channels [B, K].
    rate  sum rate [B] of the uplink with the same powers, the unit of prices.
    """

    nodes: Tensor
    shifts: Tensor
    gain: Tensor
    rate: Tensor


def observe(gram: Tensor) -> Features:
    """Features and shifts of a Gram matrix, which do not depend on the price of fairness.

    Most come from ``R = (I + G)^-1``: ``-log2 R_uu`` is user u's rate in the uplink with linear receivers.
    """
    K, gain = gram.shape[-1], own(gram).real
    eps, tiny = torch.finfo(gain.dtype).eps, torch.finfo(gain.dtype).tiny ** 0.5
    factor, _ = torch.linalg.cholesky_ex(gram + torch.diag_embed(1 + 4 * eps * gain))
    R = torch.cholesky_inverse(factor)
    kept = own(R).real.clamp_min(tiny)
    uplink = -kept.log2().clamp_max(0)
    scale = torch.where(gain > 0, gain, torch.inf).rsqrt()
    alike = squared_magnitude(gram * scale.unsqueeze(-1) * scale.unsqueeze(-2))
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
    return Features(nodes, shifts, gain, uplink.sum(-1))


class PricedFeatures(NamedTuple):
    """All inputs of the filter at a price of fairness, and the weighted SLNR that it corrects, with ridges of one.

    nodes   features [B, K, 16].
    shifts  [B, 6, K, K].
    mu      prices of interference of weighted SLNR [B, K].
    X       coefficients of its beams [B, K, K].
    rate    its rates [B, K].
    """

    nodes: Tensor
    shifts: Tensor
    mu: Tensor
    X: Tensor
    rate: Tensor


def features_at(gram: Tensor, features: Features, price: Tensor) -> PricedFeatures:
    """Features at a price of fairness [B]: weighted SLNR with an exponent that rises with the price, and `marginal`."""
    K, tiny = gram.shape[-1], torch.finfo(price.dtype).tiny ** 0.5
    share = (price / features.rate.clamp_min(1e-3)).clamp_max(MAX_PRICE).unsqueeze(-1)
    steep = (EXPONENT_SLOPE * share).clamp_max(MAX_EXPONENT)
    weakness = torch.where(features.gain > 0, -steep * features.gain.clamp_min(tiny).log(), -1 / tiny)
    mu = K * torch.softmax(weakness, -1).clamp_min(tiny)
    X = equal_ridge_coefficients(gram, mu)
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
    return PricedFeatures(torch.cat([features.nodes, nodes], -1), torch.cat([features.shifts, shifts], 1), mu, X, rate)


def marginal(power: Tensor, price: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rates R [B, K] of received powers P [B, K, K] in units of the noise, and the derivatives of ``S + lambda J``.

    The derivative by rate u is ``a_u = 1 + lambda dJ/dR_u``. With I the interference and noise and T = I + P_uu, the
    derivatives by interference (negated) and by the logarithm of a beam's power, both times ln 2, are
    ``mu_u = a_u (1/I_u - 1/T_u)`` and ``nu_u = a_u P_uu / T_u - sum_{l != u} mu_l P_lu``. Returns R, a, mu, nu. On the
    frontier, mu and nu are the multipliers of the beams.
    """
    K, tiny = power.shape[-1], torch.finfo(price.dtype).tiny ** 0.5
    leaked = power.masked_fill(torch.eye(K, dtype=torch.bool, device=power.device), 0)
    signal, disturbed = own(power), leaked.sum(-1) + 1
    whole = signal + disturbed
    rate = spectral_efficiency(signal / disturbed)
    total, square = rate.sum(-1, keepdim=True), rate.square().sum(-1, keepdim=True).clamp_min(tiny)
    worth = 1 + price.unsqueeze(-1) * 2 * total / (K * square) * (1 - total * rate / square)
    mu = worth * (signal / whole) / disturbed
    nu = worth * signal / whole - (mu.unsqueeze(-1) * leaked).sum(-2)
    return rate, worth, mu, nu
