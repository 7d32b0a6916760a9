"""The signal model against its definition in NumPy, and the refusal of wrong input."""

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


def test_power_is_counted_at_the_transmitter_that_sends_it():
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


def test_interference_80_db_below_the_signal_is_not_lost_to_rounding():
    H = torch.eye(2, dtype=torch.complex64)
    W = torch.tensor([[1e4, 1.0], [0.0, 1e-4]], dtype=torch.complex64)
    sinr = Network.broadcast(H, 1e-6).sinr(W)
    np.testing.assert_allclose(sinr[0], 1e8 / (1 + 1e-6), rtol=1e-5)


def several_antennas(K=3, M=2, N=4, T=1, user=None, serving=None, batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    H = torch.randn(batch, T, K * M, N, dtype=torch.complex128, generator=generator)
    noise = 10 ** (4 * torch.rand(batch, K, dtype=torch.float64, generator=generator) - 3)
    if T == 1:
        network = Network.broadcast(H[:, 0], noise, stream_user=user, receive_antennas=M)
    else:
        network = Network.multicell(H, noise, serving, user, M)
    W = torch.randn(batch, N, network.streams.count, dtype=torch.complex128, generator=generator)
    return network, W


def rate_by_hand(network, W, b):
    """``log2 det(I + S S^H (s2 I + I I^H)^-1)`` of every user, from the data of the network."""
    K, M = network.users, network.receive_antennas
    H, noise, sender = (np.asarray(x[b]) for x in (network.H, network.noise, network.streams.transmitter))
    D, beams, found = len(sender), np.asarray(W[b]), []
    user = np.where(np.arange(D) < K, np.arange(D), -1) if network.streams.user is None else network.streams.user[b]
    for k in range(K):
        A = np.stack([H[sender[d], k * M : (k + 1) * M] @ beams[:, d] for d in range(D)], 1)
        S, others = A[:, np.asarray(user) == k], A[:, np.asarray(user) != k]
        C = others @ others.conj().T + noise[k] * np.eye(M)
        found.append(np.linalg.slogdet(np.eye(M) + np.linalg.solve(C, S @ S.conj().T))[1] / np.log(2))
    return np.array(found)


RECEIVERS = {
    "as many antennas as streams": {},
    "more receive than transmit antennas": {"M": 5, "N": 3},
    "overloaded": {"K": 6, "N": 3},
    "one user": {"K": 1, "M": 3},
    "streams of some users, out of order": {"user": torch.tensor([2, 0, 2, 0])},
    "a sensing stream in between": {"user": torch.tensor([0, -1, 1, 2])},
    "several streams for single antennas": {"M": 1, "user": torch.tensor([1, 1, 0, 2, 0])},
    "several transmitters": {"T": 2, "user": torch.tensor([0, 1, 2, 2, -1]), "serving": torch.tensor([0, 1, 1, 0, 1])},
    "several transmitters, streams in the default order": {"T": 2, "serving": torch.tensor([0, 1, 1, 0])},
}


@pytest.mark.parametrize("case", RECEIVERS.values(), ids=RECEIVERS)
def test_a_rate_is_its_definition(case):
    network, W = several_antennas(**case)
    expected = np.stack([rate_by_hand(network, W, b) for b in range(3)])
    np.testing.assert_allclose(network.rate(W), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(network.sinr(W), 2**expected - 1, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(network.whitened().rate(W), expected, rtol=1e-9, atol=1e-12)
    single = Network(network.H.to(torch.complex64), network.noise.float(), network.streams, network.receive_antennas)
    np.testing.assert_allclose(single.rate(W.to(torch.complex64)), expected, rtol=2e-4, atol=2e-5)


def test_by_default_a_user_has_as_many_streams_as_its_channel_can_carry():
    network, _ = several_antennas(K=2, M=3, N=2)
    assert network.streams.user[0].tolist() == [0, 0, 1, 1] and network.users == 2
    assert network.streams.transmitter[0].tolist() == [0, 0, 0, 0]
    sensing = Network.broadcast(network.H[:, 0], 0.1, sensing_streams=1, receive_antennas=3)
    assert sensing.streams.user[0].tolist() == [0, 0, 1, 1, -1]
    assert Network.broadcast(network.H[:, 0], 0.1).streams.user is None


def test_strong_interference_in_one_direction_leaves_the_rate_of_the_other_in_single_precision():
    H = torch.eye(4, dtype=torch.complex64)  # two users; the second's beam is 90 dB above the noise at the first
    H[0, 2] = H[1, 2] = 3e4
    network = Network.broadcast(H, 1.0, stream_user=torch.tensor([0, 1]), receive_antennas=2)
    W = torch.zeros(4, 2, dtype=torch.complex64)
    W[0, 0], W[1, 0], W[2, 1] = 1.0, -1.0, 1.0  # the first user's signal is orthogonal to the interference
    np.testing.assert_allclose(network.rate(W), [np.log2(3), 1.0], rtol=1e-3)


def test_users_without_a_channel_have_rate_zero_and_finite_derivatives():
    network, W = several_antennas(K=2, M=2, N=3)
    H = network.H.clone()
    H[:, :, :2] = 0
    silent = Network(H.requires_grad_(), network.noise, network.streams, 2)
    rate = silent.rate(W * torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert (rate[:, 0] == 0).all() and (rate[:, 1] > 0).all()
    (slope,) = torch.autograd.grad(rate.sum(), H)
    assert torch.isfinite(torch.view_as_real(slope)).all()


@pytest.mark.parametrize("case", RECEIVERS.values(), ids=RECEIVERS)
def test_derivatives_of_rates_agree_with_finite_differences(case):
    network, W = several_antennas(**case)
    direction = torch.randn(W.shape, dtype=W.dtype, generator=torch.Generator().manual_seed(1))
    step = torch.zeros(3, 1, 1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(network.rate(W + step * direction).sum(), step)
    expected = sum((network.rate(W + h * direction).sum(-1) / (2 * h) for h in (1e-5, -1e-5)), torch.zeros(3))
    torch.testing.assert_close(slope.flatten(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", RECEIVERS.values(), ids=RECEIVERS)
def test_amplitudes_and_their_adjoint_agree(case):
    network, W = several_antennas(**case)
    A = network.apply(W)
    assert A.shape == (3, network.users * network.receive_antennas, network.streams.count)
    other = torch.randn(A.shape, dtype=A.dtype, generator=torch.Generator().manual_seed(1))
    at_users, at_transmitter = (other.conj() * A).sum((-2, -1)), (network.adjoint(other).conj() * W).sum((-2, -1))
    torch.testing.assert_close(at_users, at_transmitter)


def test_a_unitary_transform_of_a_user_s_antennas_changes_no_rate():
    network, W = several_antennas(K=2, M=3, N=4)
    Q, _ = torch.linalg.qr(torch.randn(3, 2, 3, 3, dtype=W.dtype, generator=torch.Generator().manual_seed(1)))
    turned = (Q @ network.H[:, 0].unflatten(1, (2, 3))).flatten(1, 2).unsqueeze(1)
    torch.testing.assert_close(Network(turned, network.noise, network.streams, 3).rate(W), network.rate(W))


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
        (
            lambda: Network.interference(torch.ones(2, 3, 4, dtype=torch.complex64), 0.1),
            "one transmitter for each user",
        ),
        (lambda: Network.multicell(torch.ones(2, 3, 4, dtype=torch.complex64), 0.1, torch.tensor([0, 1, 2])), "0..1"),
        (lambda: Network.multicell(torch.ones(2, 3, 4, dtype=torch.complex64), 0.1, torch.tensor([0, 1])), "serving"),
        (lambda: Network.broadcast(torch.ones(3, 4) + 0j, 0.1, receive_antennas=2), "divisor of the 3 rows"),
        (lambda: Network.broadcast(torch.ones(3, 4) + 0j, 0.1, receive_antennas=0), "positive divisor"),
        (lambda: Network.broadcast(torch.ones(4, 4) + 0j, 0.1, stream_user=torch.tensor([0, 4])), "-1..3"),
        (lambda: Network.broadcast(torch.ones(4, 4) + 0j, 0.1, stream_user=torch.tensor([0.0, 1.0])), "integers"),
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
