"""Hybrid beams of least power: analog codewords chosen one RF chain after another, and optimal digital beams.

Source: G. Hegde, Y. Cheng, M. Pesavento, "Hybrid beamforming for large-scale MIMO systems using uplink-downlink
duality", IEEE ICASSP 2017, Algorithm 2. The bounds that leave most codewords out are ours.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.hybrid.codewords import Codewords
from beamforge.classical.hybrid.digital import Digital, digital_beams
from beamforge.classical.hybrid.sweep import sweep
from beamforge.core.beams import Factors
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import SinrAtLeast, TotalPower
from beamforge.core.errors import ConfigError
from beamforge.core.evaluate import TOLERANCE
from beamforge.core.hybrid import AnalogCodebook, BasebandPower, MeanSinrOutage, distinct
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver
from beamforge.core.utilities import TransmitPower

GAIN = 1e-9
"""Least relative decrease of the power for which a codeword is replaced."""


class Selection(NamedTuple):
    """Chosen codewords [B, M], and how they were found.

    q      uplink powers near those of the solution [B, K].
    made   number of selections [B].
    trace  power before the first and after every selection [B, selections + 1], infinite where infeasible.
    """

    codeword: Tensor
    q: Tensor
    made: Tensor
    trace: Tensor


class HybridSolver(Solver):
    """Base of methods that choose analog beams from a codebook and compute optimal digital beams for them.

    rf_chains  M, at most the number of antennas and of codewords.

    An instance is INFEASIBLE if no digital beams meet the targets with the analog beams found, or if their radiated
    power exceeds the limit. With fewer chains than users this is common: more chains or lower targets are the remedy.
    With a mean outage, beams beyond the power limit are scaled to it instead.
    """

    tried_on = (3, 8)

    def __init__(self, rf_chains: int = 5) -> None:
        super().__init__()
        if rf_chains < 1:
            raise ConfigError(f"rf_chains must be at least 1, got {rf_chains}")
        self.rf_chains = rf_chains

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        network, codebook = observation.network, problem.get(AnalogCodebook).codebook
        if self.rf_chains > min(codebook.shape[-2:]):
            most = f"the {codebook.shape[-2]} antennas and the {codebook.shape[-1]} codewords"
            raise ConfigError(f"rf_chains must be at most the number of {most}, got {self.rf_chains}")
        targets = self.targets(problem, observation).double()
        radiated = type(problem.maximise) is TransmitPower
        H = network.whitened().channel.to(torch.complex128)
        book = distinct(codebook).to(torch.complex128)
        with torch.no_grad():
            chosen = self.choose(H.detach(), book, targets, radiated=radiated)
        A = book.expand(len(H), -1, -1).gather(2, chosen.codeword.unsqueeze(1).expand(-1, book.shape[1], -1))
        found = digital_for(H, A, targets, chosen.q, radiated=radiated)
        return self.solution(problem, network.H.dtype, A, chosen, found)

    def targets(self, problem: Problem, observation: Observation) -> Tensor:
        """SINR targets [B, K] that the beams meet on the channels of the observation."""
        return sinr_targets(problem)

    def choose(self, H: Tensor, codebook: Tensor, targets: Tensor, *, radiated: bool) -> Selection:
        """Codewords for channels [B, K, N] in units of the noise."""
        raise NotImplementedError

    def solution(self, problem: Problem, dtype: torch.dtype, A: Tensor, chosen: Selection, found: Digital) -> Solution:
        """The solution, flagged infeasible where the digital beams are, or where targets need too much power.

        A mean outage may be met although some instances miss targets: there, too much power is scaled to the limit.
        """
        p, feasible = found.p, found.feasible
        if limit := problem.find(TotalPower):
            W = A @ (found.beams * p.sqrt().unsqueeze(-2))
            share = (W.real.square() + W.imag.square()).sum((-2, -1)) / limit.limit
            if problem.find(MeanSinrOutage):
                p = p / share.clamp_min(1).unsqueeze(-1)
            else:
                feasible = feasible & (share <= 1 + TOLERANCE[dtype.to_real()])
        factors = Factors(A.to(dtype), found.beams.to(dtype), p.to(dtype.to_real()), chosen.codeword)
        status = torch.where(feasible, int(Status.CONVERGED), int(Status.INFEASIBLE))
        last = torch.minimum(chosen.trace[:, -1], found.cost.detach()).unsqueeze(1)
        trace = torch.cat([chosen.trace[:, :-1], last], 1)
        return Solution.hybrid(factors, status, chosen.made, trace.to(dtype.to_real()))


class GreedyHybrid(HybridSolver):
    """Analog codewords chosen one RF chain after another, each the cheapest of all while the others are kept.

    ::

        minimise |W|^2 (or |B diag(sqrt p)|^2)   subject to   SINR_k >= target_k,  W = A B diag(sqrt p)

    Selection i replaces the codeword of chain ``i mod M`` by that of least power (`sweep`), with the optimal digital
    beams for each (`digital_beams`); the power never rises. The first codewords are the M linearly independent ones of
    largest ``a^H (sum_k h_k h_k^H / |h_k|^2) a``. An instance stops when no chain changes in a full cycle. With a mean
    outage instead of targets, the channels are taken as exact; `HybridMargin` takes their error into account.

    selections  at most so many replacements.

    Derivatives are those of the digital beams for the codewords chosen.

    >>> from beamforge.core.network import Network
    >>> network = Network.broadcast(torch.eye(2, 6, dtype=torch.complex128), noise=1.0)
    >>> problem = Problem(TransmitPower(), (SinrAtLeast(3.0), AnalogCodebook(torch.eye(6, dtype=torch.complex128))))
    >>> solution = GreedyHybrid(rf_chains=2).solve(problem, network)
    >>> sorted(solution.factors.codeword.tolist()), solution.factors.power.round(decimals=6).tolist()
    ([0, 1], [3.0, 3.0])
    """

    capabilities = tuple(
        Capability(
            power,
            (Form.BROADCAST,),
            needs=(AnalogCodebook,),
            needs_one_of=(SinrAtLeast, MeanSinrOutage),
            allows=(TotalPower,),
        )
        for power in (TransmitPower, BasebandPower)
    )

    def __init__(self, rf_chains: int = 5, selections: int = 10) -> None:
        super().__init__(rf_chains)
        if selections < 1:
            raise ConfigError(f"selections must be at least 1, got {selections}")
        self.selections = selections

    def choose(self, H: Tensor, codebook: Tensor, targets: Tensor, *, radiated: bool) -> Selection:
        return greedy_codewords(H, codebook, targets, self.rf_chains, self.selections, radiated=radiated)


def sinr_targets(problem: Problem) -> Tensor:
    """The targets [B, K] of a bound problem, as a constraint on each instance or on the mean outage."""
    outage = problem.find(MeanSinrOutage)
    target: Tensor = problem.get(SinrAtLeast).target if outage is None else outage.target
    return target


def greedy_codewords(
    H: Tensor, codebook: Tensor, targets: Tensor, chains: int, selections: int, *, radiated: bool = True
) -> Selection:
    """Codewords of little power for channels H [B, K, N] in units of the noise (rows h_k^H), codebook [B, N, C] or
    [1, N, C] and targets [B, K]; all in double precision."""
    norm = torch.linalg.vector_norm(H, dim=-1).square()
    gain = torch.where(norm > 0, norm, 1)
    words = Codewords.of(H, codebook)
    size = words.overlap.diagonal(dim1=1, dim2=2).real
    score = ((words.heard.real.square() + words.heard.imag.square()) / gain.unsqueeze(-1)).sum(1) / size
    codeword = words.first(score, chains)
    cost = torch.full_like(norm[:, 0], torch.inf)
    q = 4 * targets / gain
    made, quiet = torch.zeros_like(codeword[:, 0]), torch.zeros_like(codeword[:, 0])
    trace = [cost.clone()]
    for selection in range(selections):
        rows = (quiet < chains).nonzero().squeeze(-1)
        if not len(rows):
            break
        chain = selection % chains
        book = words.overlap if len(words.overlap) == 1 else words.overlap[rows]
        base, added = Codewords(words.heard[rows], book).seen_without(codeword[rows], chain, radiated=radiated)
        known = torch.isfinite(cost[rows])
        added[known.nonzero().squeeze(-1), :, codeword[rows, chain][known]] = torch.nan
        found = sweep(base, added, targets[rows], q[rows], cost[rows])
        better = found.cost < cost[rows] * (1 - GAIN)
        changed = better & (found.candidate != codeword[rows, chain])
        cost[rows] = torch.minimum(found.cost, cost[rows])
        q[rows] = torch.where(better.unsqueeze(1), found.q, q[rows])
        codeword[rows, chain] = torch.where(better, found.candidate, codeword[rows, chain])
        made[rows] += 1
        quiet[rows] = torch.where(changed, 0, quiet[rows] + 1)
        trace.append(cost.clone())
    trace += trace[-1:] * (selections + 1 - len(trace))
    return Selection(codeword, q, made, torch.stack(trace, -1))


def digital_for(H: Tensor, A: Tensor, targets: Tensor, start: Tensor, *, radiated: bool) -> Digital:
    """Optimal digital beams for channels H [B, K, N] behind analog beams A [B, N, M], of radiated or baseband power."""
    seen = (H @ A).conj()
    G = seen.unsqueeze(-1) * seen.conj().unsqueeze(-2)
    D = A.mH @ A if radiated else torch.eye(A.shape[-1], dtype=A.dtype, device=A.device).expand(len(A), -1, -1)
    return digital_beams(G, G, D, targets, start)
