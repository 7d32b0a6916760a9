"""Methods by name. A method is one line here: its name, and the solver classes behind it, first fit first.

The order of `METHODS` is the order of recommendation: the first that serves a question is its default.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from beamforge.classical.duality.max_min import MaxMin
from beamforge.classical.duality.min_power import Duality
from beamforge.classical.duality.power_limited import PowerLimitedMaxMin, PowerLimitedMinPower
from beamforge.classical.fairness.pareto import Pareto
from beamforge.classical.isac.null_space import NullSpaceSensing
from beamforge.classical.isac.sdr import SensingSDR
from beamforge.classical.isac.wmmse import SensingWMMSE
from beamforge.classical.linear import MRT, RZF, ZF, WeightedSLNR
from beamforge.classical.links.balancing import FoschiniMiljanic, PerronFrobenius
from beamforge.classical.links.branch_and_bound import LinkBranchAndBound
from beamforge.classical.links.limited_wmmse import LimitedLinkWMMSE, LimitedManyStarts
from beamforge.classical.links.many_starts import ManyStarts
from beamforge.classical.links.mm_admm import MMADMM
from beamforge.classical.links.quasi_inverse import QuasiInverse
from beamforge.classical.links.sca import SuccessiveGP
from beamforge.classical.links.wmmse import LinkWMMSE
from beamforge.classical.sum_rate.block_diagonalisation import RegularisedBlockDiagonalisation
from beamforge.classical.sum_rate.branch_and_bound import BranchAndBound
from beamforge.classical.sum_rate.fastfp import FastFP
from beamforge.classical.sum_rate.mimo_wmmse import ReducedMimoWMMSE
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
from beamforge.classical.sum_rate.wmmse import MulticellWMMSE
from beamforge.core.capability import describe
from beamforge.core.errors import ConfigError, UnsupportedProblem, unknown
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.settings import convert
from beamforge.core.solver import Solver
from beamforge.learned.fairness.multipliers import FairMultipliers
from beamforge.learned.fairness.wit import WiT
from beamforge.learned.links.gnn import GNN
from beamforge.learned.links.neural_sum_rate import NeuralSumRate
from beamforge.learned.links.neural_sum_rate_shared import NeuralSumRateShared
from beamforge.learned.links.td3 import TD3
from beamforge.learned.multipliers.sum_rate import SumRateMultipliers

METHODS: dict[str, tuple[type[Solver], ...]] = {
    "perron-frobenius": (PerronFrobenius,),
    "duality": (Duality, PowerLimitedMinPower, MaxMin, PowerLimitedMaxMin),
    "foschini-miljanic": (FoschiniMiljanic,),
    "wmmse": (ReducedWMMSE, LinkWMMSE, LimitedLinkWMMSE, MulticellWMMSE, ReducedMimoWMMSE),
    "pareto": (Pareto,),
    "multipliers": (SumRateMultipliers, FairMultipliers),
    "global": (LinkBranchAndBound, ManyStarts, LimitedManyStarts),
    "neural-sum-rate-shared": (NeuralSumRateShared,),
    "neural-sum-rate": (NeuralSumRate,),
    "gnn": (GNN,),
    "td3": (TD3,),
    "mm-admm": (MMADMM,),
    "sca": (SuccessiveGP,),
    "quasi-inverse": (QuasiInverse,),
    "fastfp": (FastFP,),
    "rzf": (RZF, RegularisedBlockDiagonalisation),
    "slnr": (RZF,),
    "wslnr": (WeightedSLNR,),
    "wit": (WiT,),
    "zf": (ZF,),
    "mrt": (MRT,),
    "branch-and-bound": (BranchAndBound,),
    "isac-wmmse": (SensingWMMSE,),
    "isac-sdr": (SensingSDR,),
    "rzf-null-space": (NullSpaceSensing,),
}

MODELS: dict[str, type[Solver]] = {
    "multipliers": SumRateMultipliers,
    "fair-multipliers": FairMultipliers,
    "wit": WiT,
    "neural-sum-rate": NeuralSumRate,
    "neural-sum-rate-shared": NeuralSumRateShared,
    "gnn": GNN,
    "td3": TD3,
}
"""What can be trained, by the name that recipes and headers of weights give it; a method may have one per problem."""


def methods_for(problem: Problem, network: Network) -> list[str]:
    """Names of the methods that serve a question, the recommended one first."""
    return [name for name, kinds in METHODS.items() if any(kind.supports(problem, network) for kind in kinds)]


def create(
    problem: Problem, network: Network, method: str | None = None, settings: Mapping[str, Any] | None = None
) -> Solver:
    """The solver behind a method's name for a problem and network; the recommended one where no name is given.

    Raises `ConfigError` for an unknown name or setting (with the nearest known one) and `UnsupportedProblem`, with the
    methods that would do, for a pair that does not fit.
    """
    suitable = methods_for(problem, network)
    if method is None and suitable:
        method = suitable[0]
    if method is not None and method not in METHODS:
        raise ConfigError(unknown("method", method, METHODS))
    if method not in suitable:
        for kind in METHODS.get(method or "", ()) if "checkpoint" in (settings or {}) else ():
            if (trained := configure(kind, settings or {}, method)).fits(problem, network):
                return trained
        would = f"methods that do: {', '.join(suitable)}" if suitable else "no method does"
        asks = {kind.scope for kind in METHODS.get(method or "", ()) if kind.scope}
        name = " ".join([method or "beamforge", *(f"({words})" for words in sorted(asks))])
        raise UnsupportedProblem(f"{name} does not serve {describe(problem, network)}; {would}")
    kind = next(kind for kind in METHODS[method] if kind.supports(problem, network))
    return configure(kind, settings or {}, method)


def trainable(model: str, settings: Mapping[str, Any]) -> Solver:
    """A new copy of a model, to be trained; `ConfigError` for a name or setting that there is none of."""
    if model not in MODELS:
        raise ConfigError(unknown("model", model, MODELS))
    plain = {name: value if isinstance(value, list) else str(value) for name, value in settings.items()}
    return configure(MODELS[model], plain).requires_grad_()


def configure(kind: type[Solver], settings: Mapping[str, Any], method: str | None = None) -> Solver:
    """A solver with the given settings; values may be strings, read by the annotations of the constructor."""
    known = {name: p for name, p in inspect.signature(kind.__init__).parameters.items() if name != "self"}
    known = {name: p for name, p in known.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    hints = get_type_hints(kind.__init__)
    values = {}
    for name, value in settings.items():
        if name not in known and name == "weights" and "checkpoint" in known:
            raise ConfigError(f"trained weights are named by checkpoint, got weights = {value!r}; weights are of rates")
        if name not in known:
            raise ConfigError(unknown(f"setting of {method or kind.__name__}", name, known))
        values[name] = convert(name, value, hints[name])
    return kind(**values)
