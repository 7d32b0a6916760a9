"""The signal model against NumPy written from the definition, and hostile input at the door."""

import numpy as np
import pytest
import torch

from beamforge import Network, ShapeError


def random_network(T=2, K=3, N=4, batch=(5,), serving=(1, 0, 1), seed=0):
    generator = torch.Generator().manual_seed(seed)
    H = torch.randn(*batch, T, K, N, dtype=torch.complex128, generator=generator)
    noise = torch.rand(*batch, K, dtype=torch.float64, generator=generator) + 0.1
    W = torch.randn(*batch, N, len(serving), dtype=torch.complex128, generator=generator)
    return Network.multicell(H, noise, torch.tensor(serving)), W


def sinr_by_hand(network, W, b):
    H, noise, serving = (np.asarray(x[b]) for x in (network.H, network.noise, network.streams.transmitter))
    beams, found = np.asarray(W[b]), []
    for k in range(H.shape[1]):
        power = [abs(H[serving[d], k] @ beams[:, d]) ** 2 for d in range(len(serving))]
        found.append(power[k] / (sum(power) - power[k] + noise[k]))
    return np.array(found)


@pytest.mark.parametrize(("T", "serving"), [(1, (0, 0, 0)), (2, (1, 0, 1)), (3, (0, 1, 2)), (2, (0, 1, 1, 0, 0))])
def test_sinr_is_its_definition(T, serving):
    network, W = random_network(T=T, serving=serving)
    for b in range(5):
        np.testing.assert_allclose(network.sinr(W)[b], sinr_by_hand(network, W, b), rtol=1e-9)
    np.testing.assert_allclose(network.rate(W), np.log2(1 + np.asarray(network.sinr(W))), rtol=1e-12)


def test_power_is_counted_where_it_is_sent():
    network, W = random_network(T=2, serving=(1, 0, 1))
    power = (W.abs() ** 2).numpy()
    np.testing.assert_allclose(network.antenna_power(W)[:, 1], power[..., 0] + power[..., 2], rtol=1e-12)
    np.testing.assert_allclose(network.transmit_power(W)[:, 0], power[..., 1].sum(-1), rtol=1e-12)


def test_whitening_keeps_every_sinr():
    network, W = random_network()
    torch.testing.assert_close(network.whitened().sinr(W), network.sinr(W))


def test_power_gains_become_amplitudes_of_the_right_pair():
    G = torch.tensor([[1.0, 0.2], [0.3, 2.0]], dtype=torch.float64)
    network = Network.power_control(G, 0.5)
    p = torch.tensor([0.7, 0.4], dtype=torch.float64)
    sinr = network.sinr(p.sqrt().to(torch.complex128).unsqueeze(0))
    expected = [0.7 / (0.2 * 0.4 + 0.5), 2.0 * 0.4 / (0.3 * 0.7 + 0.5)]
    np.testing.assert_allclose(sinr, expected, rtol=1e-12)
    torch.testing.assert_close(network.gains, G)


def test_interference_is_not_lost_beside_a_signal_80_db_above_it():
    H = torch.eye(2, dtype=torch.complex64)
    W = torch.tensor([[1e4, 1.0], [0.0, 1e-4]], dtype=torch.complex64)
    sinr = Network.broadcast(H, 1e-6).sinr(W)
    np.testing.assert_allclose(sinr[0], 1e8 / (1 + 1e-6), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Network.broadcast(torch.ones(3, 4), 0.1), "complex"),
        (lambda: Network.broadcast(torch.ones(4, dtype=torch.complex64), 0.1), "H must be"),
        (lambda: Network.broadcast(torch.ones(0, 3, 4, dtype=torch.complex64), 0.1), "non-empty"),
        (lambda: Network.broadcast(torch.ones(3, 4, dtype=torch.complex64), 0.0), "positive"),
        (lambda: Network.broadcast(torch.ones(3, 4, dtype=torch.complex64), -1.0), "positive"),
        (lambda: Network.broadcast(torch.ones(3, 4, dtype=torch.complex64), float("nan")), "positive"),
        (lambda: Network.broadcast(torch.ones(3, 4, dtype=torch.complex64), torch.ones(4)), "broadcast"),
        (lambda: Network.broadcast(torch.ones(3, 4, dtype=torch.complex64), torch.ones(3).double()), "float32"),
        (lambda: Network.interference(torch.ones(2, 3, 4, dtype=torch.complex64), 0.1), "transmitter a user"),
        (lambda: Network.multicell(torch.ones(2, 3, 4, dtype=torch.complex64), 0.1, torch.tensor([0, 1, 2])), "0..1"),
        (lambda: Network.multicell(torch.ones(2, 3, 4, dtype=torch.complex64), 0.1, torch.tensor([0, 1])), "serving"),
        (lambda: Network.power_control(torch.ones(2, 3), 0.1), "G must be"),
        (lambda: Network.power_control(-torch.ones(2, 2), 0.1), "negative"),
        (lambda: Network.power_control(torch.ones(2, 2, dtype=torch.complex64), 0.1), "real"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(make, words):
    with pytest.raises(ShapeError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_beams_of_the_wrong_shape_are_refused():
    network, _ = random_network()
    with pytest.raises(ShapeError, match=r"W must be \[\.\.\., 4, 3\]"):
        network.rate(torch.ones(5, 3, 4, dtype=torch.complex128))
