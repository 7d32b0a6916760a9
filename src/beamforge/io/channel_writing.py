"""Writes instances as channel files; reading such a file gives the same instances."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from beamforge.core.errors import ChannelFileError
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.streams import NO_DATA
from beamforge.io.writers import open_writer


def write_channels(path: str | Path, instance: Instance, **meta: Any) -> None:
    """Write a batch [B] of instances as `.npz` or `.h5`; `meta` is stored as JSON. No incomplete file remains.

    Raises `ChannelFileError` if the path cannot be written, or if a channel file cannot represent the instances.
    """
    rows = channel_arrays(instance)
    shared = shared_arrays(rows)
    rows = {name: value for name, value in rows.items() if name not in shared}
    count = instance.truth.batch_shape[0]
    with open_writer(path, count, sum(value.nbytes for value in rows.values()) // count) as writer:
        writer.append(rows)
        writer.finish(**shared, **axes_entry(instance), meta=json.dumps(meta))


def axes_entry(instance: Instance) -> dict[str, str]:
    """The key `axes` of a file, if it is needed."""
    truth = instance.truth
    if truth.receive_antennas == 1:
        return {}
    return {"axes": "BKMN" if truth.transmitters == 1 else "BTKMN"}


def channel_arrays(instance: Instance) -> dict[str, np.ndarray]:
    """The arrays of a batch [B] of instances by the keys of a file; the first axis of each is B.

    A single-antenna network of real amplitudes, in which transmitter k serves user k, is stored as its gains G.
    """
    truth, context = instance.truth, dict(instance.context)
    if len(truth.batch_shape) != 1:
        raise ChannelFileError(f"instances must have one batch dimension, got {tuple(truth.batch_shape)}")
    alone = torch.arange(truth.users, device=truth.H.device)
    single = truth.antennas == truth.receive_antennas == 1 and truth.transmitters == truth.users == truth.streams.count
    gains = single and bool((truth.streams.transmitter == alone).all() and (truth.H.imag == 0).all())
    found: dict[str, Tensor] = {}
    if gains:
        found["G"] = truth.gains
    else:
        found["H"] = in_file_order(instance, truth.H)
        if instance.observation.network is not truth:
            found["H_estimate"] = in_file_order(instance, instance.observation.network.H)
        if truth.transmitters > 1:
            found["serving"] = truth.streams.transmitter
        found |= stream_rows(truth)
    each = truth.transmitters > 1 and not gains
    if each and "p_max" in context:
        raise ChannelFileError(
            "p_max of a file must be the limit of each transmitter, got an instance with a limit on the total power"
        )
    if each and "p_max_transmitter" in context:
        context["p_max"] = context.pop("p_max_transmitter")
    found |= {"noise": truth.noise, **context, **instance.labels}
    return {name: value.resolve_conj().detach().cpu().numpy() for name, value in found.items()}


def stream_rows(network: Network) -> dict[str, Tensor]:
    """``stream_user`` [B, D], -1 for a stream without data, and with several transmitters ``serving`` [B, D].

    Empty if users have single antennas and one stream each, in order: this is the default of a file without these keys.
    """
    streams = network.streams
    if streams.user is None and streams.count == network.users and network.receive_antennas == 1:
        return {}
    data = streams.data_of(network.users)
    rows = {"stream_user": torch.where(data.any(-2), data.int().argmax(-2), NO_DATA)}
    return rows | ({"serving": streams.transmitter} if network.transmitters > 1 else {})


def in_file_order(instance: Instance, H: Tensor) -> Tensor:
    """Channels [B, T, K M, N] as [B, K, N], [B, T, K, N], [B, K, M, N] or [B, T, K, M, N]."""
    truth = instance.truth
    if truth.receive_antennas > 1:
        H = H.unflatten(2, (truth.users, truth.receive_antennas))
    return H.squeeze(1) if truth.transmitters == 1 else H


def shared_arrays(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Noise and power limit as scalars, if they are the same for all instances and users; a common codebook."""
    same = [name for name in ("noise", "p_max") if name in arrays and (arrays[name] == arrays[name].flat[0]).all()]
    found: dict[str, Any] = {name: arrays[name].flat[0] for name in same}
    codebook = arrays.get("codebook")
    return found if codebook is None or (codebook != codebook[0]).any() else found | {"codebook": codebook[0]}
