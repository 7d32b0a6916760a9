"""Methods by name. A method is one line here: its name and its solver classes; the first class that fits is used.

`METHODS` is in order of recommendation: the first method that supports a problem and network is the default.
"""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Collection, Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, get_type_hints

from beamforge.classical.duality.max_min import MaxMin
from beamforge.classical.duality.min_power import Duality
from beamforge.classical.duality.power_limited import PowerLimitedMaxMin, PowerLimitedMinPower
from beamforge.classical.fairness.pareto import Pareto
from beamforge.classical.hybrid.exhaustive import ExhaustiveHybrid
from beamforge.classical.hybrid.greedy import GreedyHybrid
from beamforge.classical.hybrid.margin import HybridMargin
from beamforge.classical.interference.linear import LocalMRT, LocalSLNR, LocalZF
from beamforge.classical.interference.pareto_boundary import ParetoBoundary
from beamforge.classical.interference.zhang_cui import ZhangCuiMaxMin, ZhangCuiSumRate
from beamforge.classical.isac.null_space import NullSpaceSensing
from beamforge.classical.isac.sdr import SensingSDR
from beamforge.classical.isac.wmmse import SensingWMMSE
from beamforge.classical.linear import MRT, RZF, ZF, WeightedSLNR
from beamforge.classical.links.balancing import FoschiniMiljanic, PerronFrobenius
from beamforge.classical.links.branch_and_bound import LinkBranchAndBound
from beamforge.classical.links.limited_many_starts import LimitedManyStarts
from beamforge.classical.links.limited_wmmse import LimitedLinkWMMSE
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
from beamforge.decentralised.solver import DecentralisedSolver
from beamforge.learned.fairness.multipliers import FairMultipliers
from beamforge.learned.fairness.wit import WiT
from beamforge.learned.hybrid.full_digital import FullDigitalGCN
from beamforge.learned.hybrid.gcn import HybridFCN, HybridGCN
from beamforge.learned.hybrid.two_stage import Hybrid2GCN
from beamforge.learned.interference.centralised import DirectBeamLearning, NaiveFeatureLearning
from beamforge.learned.interference.itnet_dualnet import MaxMinITNet, SumRateITNet
from beamforge.learned.interference.multipliers import MaxMinInterference, SumRateInterference
from beamforge.learned.isac.dnn import IsacDNN
from beamforge.learned.isac.multipliers import SensingMultipliers
from beamforge.learned.isac.sao import SAOIsac
from beamforge.learned.l2o.bicnn import BiCNN
from beamforge.learned.l2o.graph_transformer import GraphTransformer
from beamforge.learned.l2o.hpe_transformer import HPETransformer
from beamforge.learned.l2o.masked_transformer import MTSAO, DTSAOLift, MTSAOLift
from beamforge.learned.l2o.rnn_optimizer import RNNOptimizer
from beamforge.learned.links.gnn import GNN
from beamforge.learned.links.neural_sum_rate import NeuralSumRate
from beamforge.learned.links.neural_sum_rate_shared import NeuralSumRateShared
from beamforge.learned.links.td3 import TD3
from beamforge.learned.multipliers.sum_rate import SumRateMultipliers

GROUP = "beamforge.methods"
"""Entry points by which installed packages add methods: a name, and a solver class or a tuple of solver classes."""


def installed(known: Collection[str]) -> dict[str, tuple[type[Solver], ...]]:
    """Methods of installed packages; one that has a known name, or cannot be imported, is left out with a warning.

    In the `pyproject.toml` of such a package::

        [project.entry-points."beamforge.methods"]
        my-method = "my_package:MyMethod"
    """
    found: dict[str, tuple[type[Solver], ...]] = {}
    for entry in entry_points(group=GROUP):
        try:
            loaded = entry.load()
            kinds = loaded if isinstance(loaded, tuple) else (loaded,)
            wrong = "its name is taken" if entry.name in known else ""
            wrong = wrong or ("" if all(issubclass(kind, Solver) for kind in kinds) else "it is no Solver class")
        except Exception as error:  # whatever a foreign package raises must not stop the other methods
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            warnings.warn(f"method {entry.name!r} of {entry.value!r} is left out: {wrong}", stacklevel=2)
        else:
            found[entry.name] = kinds
    return found


METHODS: dict[str, tuple[type[Solver], ...]] = {
    "perron-frobenius": (PerronFrobenius,),
    "duality": (Duality, PowerLimitedMinPower, MaxMin, PowerLimitedMaxMin),
    "foschini-miljanic": (FoschiniMiljanic,),
    "wmmse": (ReducedWMMSE, LinkWMMSE, LimitedLinkWMMSE, MulticellWMMSE, ReducedMimoWMMSE),
    "pareto": (Pareto,),
    "isac-wmmse": (SensingWMMSE,),
    "multipliers": (SumRateMultipliers, FairMultipliers, SumRateInterference, MaxMinInterference, SensingMultipliers),
    "global": (LinkBranchAndBound, ManyStarts, LimitedManyStarts),
    "neural-sum-rate-shared": (NeuralSumRateShared,),
    "neural-sum-rate": (NeuralSumRate,),
    "gnn": (GNN,),
    "td3": (TD3,),
    "mm-admm": (MMADMM,),
    "sca": (SuccessiveGP,),
    "quasi-inverse": (QuasiInverse,),
    "fastfp": (FastFP,),
    "pareto-boundary": (ParetoBoundary,),
    "zhang-cui": (ZhangCuiSumRate, ZhangCuiMaxMin),
    "rzf": (RZF, RegularisedBlockDiagonalisation),
    "slnr": (RZF, LocalSLNR),
    "wslnr": (WeightedSLNR,),
    "wit": (WiT,),
    "mt-sao-lift": (MTSAOLift,),
    "mt-sao": (MTSAO,),
    "dt-sao-lift": (DTSAOLift,),
    "hpe-transformer": (HPETransformer,),
    "graph-transformer": (GraphTransformer,),
    "rnn-optimizer": (RNNOptimizer,),
    "bicnn": (BiCNN,),
    "zf": (ZF, LocalZF),
    "mrt": (MRT, LocalMRT),
    "branch-and-bound": (BranchAndBound,),
    "itnet-dualnet": (SumRateITNet, MaxMinITNet),
    "nfl": (NaiveFeatureLearning,),
    "dbl": (DirectBeamLearning,),
    "sao-isac": (SAOIsac,),
    "isac-sdr": (SensingSDR,),
    "isac-dnn": (IsacDNN,),
    "rzf-null-space": (NullSpaceSensing,),
    "hybrid-margin": (HybridMargin,),
    "greedy-hybrid": (GreedyHybrid,),
    "exhaustive-hybrid": (ExhaustiveHybrid,),
    "hybrid-gcn": (HybridGCN,),
    "hybrid-fcn": (HybridFCN,),
    "fulldigital-gcn": (FullDigitalGCN,),
    "hybrid-2gcn": (Hybrid2GCN,),
}

METHODS |= installed(METHODS)

MODELS: dict[str, type[Solver]] = {
    "multipliers": SumRateMultipliers,
    "fair-multipliers": FairMultipliers,
    "isac-multipliers": SensingMultipliers,
    "interference-sum-rate": SumRateInterference,
    "interference-max-min": MaxMinInterference,
    "wit": WiT,
    "neural-sum-rate": NeuralSumRate,
    "neural-sum-rate-shared": NeuralSumRateShared,
    "gnn": GNN,
    "td3": TD3,
    "itnet-dualnet-sum-rate": SumRateITNet,
    "itnet-dualnet-max-min": MaxMinITNet,
    "nfl": NaiveFeatureLearning,
    "dbl": DirectBeamLearning,
    "mt-sao-lift": MTSAOLift,
    "mt-sao": MTSAO,
    "dt-sao-lift": DTSAOLift,
    "hpe-transformer": HPETransformer,
    "graph-transformer": GraphTransformer,
    "rnn-optimizer": RNNOptimizer,
    "bicnn": BiCNN,
    "sao-isac": SAOIsac,
    "isac-dnn": IsacDNN,
    "hybrid-gcn": HybridGCN,
    "hybrid-fcn": HybridFCN,
    "fulldigital-gcn": FullDigitalGCN,
    "hybrid-2gcn": Hybrid2GCN,
}
"""Trainable models, by their names in recipes and headers of weights; a method may have one model per problem."""


def kinds_of(method: str, decentralised: bool = False) -> list[type[Solver]]:
    """The solver classes of a method, or those of them whose base stations decide alone."""
    return [kind for kind in METHODS.get(method, ()) if not decentralised or issubclass(kind, DecentralisedSolver)]


def name_of(kind: type[Solver]) -> str:
    """The name of the method of a solver class, or the name of the class."""
    return next((name for name, kinds in METHODS.items() if kind in kinds), kind.__name__)


def methods_for(problem: Problem, network: Network, *, decentralised: bool = False) -> list[str]:
    """Names of the (decentralised) methods that support a problem and network, the recommended one first."""
    return [name for name in METHODS if any(kind.supports(problem, network) for kind in kinds_of(name, decentralised))]


def create(
    problem: Problem,
    network: Network,
    method: str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    decentralised: bool = False,
) -> Solver:
    """The solver of a method for a problem and network; by default that of the recommended method.

    decentralised  whether it must be a `DecentralisedSolver`, whose base stations decide alone.

    Raises `ConfigError` for an unknown name or setting, with the nearest known one, and `UnsupportedProblem`, with the
    methods that support the problem and network, if this one does not.
    """
    kind = chosen(problem, network, method, settings, decentralised=decentralised)
    return configure(kind, settings or {}, method)


def chosen(
    problem: Problem,
    network: Network,
    method: str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    decentralised: bool = False,
) -> type[Solver]:
    """The solver class of `create`."""
    method = method or next(iter(methods_for(problem, network, decentralised=decentralised)), None)
    if method is not None and method not in METHODS:
        raise ConfigError(unknown("method", method, METHODS))
    kinds = kinds_of(method or "", decentralised)
    for kind in kinds:
        if kind.supports(problem, network):
            return kind
    for kind in kinds if "checkpoint" in (settings or {}) else ():
        if configure(kind, settings or {}, method).fits(problem, network):
            return kind
    suitable = methods_for(problem, network, decentralised=decentralised)
    would = f"methods that do: {', '.join(suitable)}" if suitable else "no method does"
    asks = {kind.scope for kind in kinds if kind.scope}
    name = " ".join([method or "beamforge", *(f"({words})" for words in sorted(asks))])
    alone = " with base stations that decide alone" if decentralised else ""
    raise UnsupportedProblem(f"{name} does not serve {describe(problem, network)}{alone}; {would}")


def trainable(model: str, settings: Mapping[str, Any]) -> Solver:
    """A new model to be trained; raises `ConfigError` for an unknown name or setting."""
    if model not in MODELS:
        raise ConfigError(unknown("model", model, MODELS))
    plain = {name: value if isinstance(value, list) else str(value) for name, value in settings.items()}
    return configure(MODELS[model], plain).requires_grad_()


def remembered(kind: type[Solver], settings: Mapping[str, Any], method: str | None = None) -> Solver:
    """`configure`, but a later call with the same settings in the same thread gets the same solver.

    A loop over single channels thus builds a network and reads its weights once. Solvers with weights of a file, which
    may change, or with random weights are new at every call.
    """
    named = tuple(sorted(settings.items()))
    if "checkpoint" in settings or not all(isinstance(value, str | int | float | None) for _, value in named):
        return configure(kind, settings, method)
    key: Any = (kind, method, tuple((*each, type(each[1])) for each in named), threading.get_ident())
    return _remembered(key)


@lru_cache(maxsize=64)
def _remembered(key: Any) -> Solver:
    kind, method, settings, _ = key
    return configure(kind, {name: value for name, value, _ in settings}, method)


def configure(kind: type[Solver], settings: Mapping[str, Any], method: str | None = None) -> Solver:
    """A solver with the given settings; strings are converted by the annotations of the constructor.

    Raises `ConfigError` for an unknown setting, with the nearest known one.
    """
    known = {name: p for name, p in inspect.signature(kind.__init__).parameters.items() if name != "self"}
    known = {name: p for name, p in known.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    hints = get_type_hints(kind.__init__)
    values = {}
    for name, value in settings.items():
        if name not in known and name == "weights" and "checkpoint" in known:
            raise ConfigError(f"trained weights must be given as checkpoint, got weights = {value!r} (rate weights)")
        if name not in known:
            raise ConfigError(unknown(f"setting of {method or kind.__name__}", name, known))
        values[name] = convert(name, value, hints[name])
    return kind(**values)
