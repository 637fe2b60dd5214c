"""MARS: routers, their losses, the sampler, and experts that are not computed."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
from networks import CHANNELS, CLASSES, close, labels, small, windows  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from mmedge.edge.models.mars import Experts, Mars, MarsConfig  # noqa: E402
from mmedge.edge.models.network import withheld  # noqa: E402
from mmedge.edge.models.routing import imitation, load, load_balance, noise_ranking, sparse_softmax  # noqa: E402

SENSORS = tuple(CHANNELS)
OPTIONS = {"experts": 6, "top_k": 2, "hidden": 5}
LN2 = math.log(2)


def mars(**options: object) -> Mars:
    network = small("mars", **{**OPTIONS, **options})
    assert isinstance(network, Mars)
    return network


def test_nothing_lacks_in_the_full_pattern() -> None:
    network = mars().requires_grad_(False)
    data, valid = windows()
    features = network.encoder.encode(data, valid)
    every = torch.ones(2, 3, dtype=torch.bool)
    (_, full), (_, part) = network._fused(features), network._fused(network._kept(features, every))
    assert torch.equal(full, part)
    logits, _ = network.residual_router(full - part)
    assert not logits.any()
    assert set(network.losses(data, valid, labels("map"), every)) == {"task"}


def test_a_masked_feature_is_a_sensor_left_out() -> None:
    network = mars().requires_grad_(False)
    data, valid = windows()
    kept = torch.tensor([[True, False, False], [False, True, True]])
    features = network.encoder.encode(data, valid)
    part, _ = network._fused(network._kept(features, kept))
    again, _ = network._fused(network.encoder.encode(data, withheld(valid, kept, SENSORS)))
    close(part, again)


def test_equal_noise_costs_log_2_and_ranked_noise_less() -> None:
    clean, guess = torch.randn(9, 6), torch.randn(9, 6)
    close(noise_ranking(clean, guess, torch.full((9, 6), 0.7), 3), torch.tensor(LN2), 1e-6)
    differ = (clean.softmax(-1) - guess.softmax(-1)).abs()
    rank = differ.argsort(-1).argsort(-1).float()
    assert noise_ranking(clean, guess, 0.1 + rank, 3) < LN2 < noise_ranking(clean, guess, 6.1 - rank, 3)


def test_noise_ranking_looks_at_chosen_experts_alone() -> None:
    clean, guess = torch.tensor([[3.0, 2.0, 0.0, 0.0]]), torch.tensor([[3.0, 0.0, 2.0, 0.0]])
    sigma = torch.tensor([[0.5, 0.6, 0.7, 0.8]], requires_grad=True)
    noise_ranking(clean, guess, sigma, 2).backward()
    assert sigma.grad is not None
    assert (sigma.grad != 0).tolist() == [[True, True, True, False]]


def test_noise_ranking_by_hand() -> None:
    clean, guess = torch.tensor([[2.0, 1.0, -1.0]]), torch.tensor([[1.0, 2.0, -4.0]])
    sigma = torch.tensor([[0.5, 0.9, 3.0]])
    p, q = clean.softmax(-1)[0], guess.softmax(-1)[0]
    order = sorted((0, 1), key=lambda j: -abs(float(p[j] - q[j])))
    step = 2 * math.log(float(sigma[0, order[1]])) - 2 * math.log(float(sigma[0, order[0]]))
    close(noise_ranking(clean, guess, sigma, 2), torch.tensor(math.log1p(math.exp(step))), 1e-6)


def test_imitation_does_not_teach_the_teacher() -> None:
    teacher, guess = (torch.randn(5, 4, requires_grad=True) for _ in range(2))
    imitation(teacher, guess).backward()
    assert teacher.grad is None
    assert guess.grad is not None
    p, q = teacher.softmax(-1), guess.softmax(-1)
    close(imitation(teacher, guess), (p * (p / q).log()).sum(-1).mean(), 1e-6)


def test_imitation_does_not_reach_the_residual_router() -> None:
    network = mars()
    data, valid = windows(batch=4)
    kept = torch.tensor([[True, False, True]] * 4)
    network.losses(data, valid, labels("map", 4), kept)["imitation"].backward()
    assert all(p.grad is None or not p.grad.any() for p in network.residual_router.parameters())
    assert all(p.grad is not None and p.grad.any() for p in network.feature_router.parameters())


def test_the_task_trains_the_residual_router() -> None:
    network = mars()
    data, valid = windows(batch=4)
    kept = torch.tensor([[True, False, True]] * 4)
    network.losses(data, valid, labels("map", 4), kept)["task_incomplete"].backward()
    assert all(p.grad is not None and p.grad.any() for p in network.residual_router.parameters())


def test_incomplete_inputs_teach_the_deployed_router_on_request_alone() -> None:
    data, valid = windows(batch=4)
    kept = torch.tensor([[True, False, True]] * 4)
    assert "task_deployed" not in mars().losses(data, valid, labels("map", 4), kept)
    network = mars(deployed=0.5)
    term = network.losses(data, valid, labels("map", 4), kept)["task_deployed"]
    network.eval()
    logits = network(data, withheld(valid, kept, SENSORS))
    close(term, 0.5 * torch.nn.functional.cross_entropy(logits, labels("map", 4), ignore_index=-1))
    term.backward()
    assert all(p.grad is not None and p.grad.any() for p in network.feature_router.parameters())
    assert all(p.grad is None for p in network.residual_router.parameters())


def test_without_a_residual_one_router_does_everything() -> None:
    network = mars(residual=False)
    data, valid = windows(batch=4)
    kept = torch.tensor([[True, False, True]] * 4)
    terms = network.losses(data, valid, labels("map", 4), kept)
    assert set(terms) == {"task", "task_incomplete", "balance"}
    sum(terms.values()).backward()
    still = {n for n, p in network.named_parameters() if p.grad is None}
    assert still == {n for n, p in network.named_parameters() if not p.requires_grad} | {
        n for n in still if n.startswith("encoder.") and "sar" in n
    }
    assert network.oracle(data, valid, labels("map", 4), kept) is None


def test_load_is_the_probability_of_being_chosen() -> None:
    torch.manual_seed(0)
    clean, sigma, k = torch.tensor([[1.0, 0.2, 0.0, -1.5]]), torch.tensor([[0.6, 0.9, 0.4, 0.7]]), 2
    noisy = clean + torch.randn(1, 4) * sigma
    drawn = noisy.repeat(100_000, 1, 1).squeeze(1)
    for j in range(4):
        again = drawn.clone()
        again[:, j] = clean[0, j] + torch.randn(len(again)) * sigma[0, j]
        often = (again.topk(k).indices == j).any(1).float().mean()
        close(load(clean, noisy, sigma, k)[0, j], often, 0.01)


def test_even_routing_is_balanced() -> None:
    k, sigma = 1, torch.full((4, 4), 0.5)
    even, odd = torch.eye(4) * 5, torch.tensor([[5.0, 0, 0, 0]]).repeat(4, 1)
    assert load_balance(even, even, sigma, k) < 1e-6 < 1 < load_balance(odd, odd, sigma, k)


def test_chosen_experts_equal_all_of_them_weighted() -> None:
    torch.manual_seed(0)
    experts = Experts(MarsConfig(experts=6, hidden=5), 8).requires_grad_(False)
    for p in experts.parameters():
        torch.nn.init.normal_(p)
    z, routing = torch.randn(3, 8, 7, 9), torch.randn(3, 6)
    weight, which = sparse_softmax(routing, 2)
    dense = torch.zeros(3, 6).scatter(1, which, weight)
    expected = experts.weighted(z, dense[..., None, None].expand(-1, -1, 7, 9))
    close(experts.chosen(z, which, weight), expected, 1e-4)
    one = torch.relu(torch.einsum("hd,bdxy->bhxy", experts.first[4], z) + experts.first_bias[4][:, None, None])
    one = torch.einsum("dh,bhxy->bdxy", experts.second[4], one) + experts.second_bias[4][:, None, None]
    close(experts.chosen(z, torch.full((3, 1), 4), torch.ones(3, 1)), one, 1e-4)


def test_only_the_chosen_experts_are_computed() -> None:
    cost = {}
    for experts, k in ((4, 2), (16, 2), (16, 4)):
        network = mars(experts=experts, top_k=k).requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            network.experts.chosen(torch.randn(1, 8, 32, 32), torch.arange(k)[None], torch.ones(1, k))
        cost[experts, k] = counter.get_total_flops()
    assert cost[4, 2] == cost[16, 2] == cost[16, 4] / 2


def test_pixels_are_routed_one_by_one() -> None:
    network = mars(routing="pixel").requires_grad_(False)
    assert not network.sees_whole_window
    data, valid = windows(side=64)
    before = network(data, valid)
    data["optical"][..., 0] += 9
    assert torch.equal(network(data, valid)[..., 32:], before[..., 32:])


def test_the_sampler_prefers_patterns_on_which_the_routers_differ() -> None:
    network = mars(guided_from=2)
    assert network.pattern_weights() is None
    for agree in (0.2, 0.9):
        network.agreement[1:7] = torch.tensor([agree, 1, 1, 1, 1, 0]) * 10
        network.drawn[1:7] = torch.tensor([10, 10, 10, 10, 10, 0])
        network.end_epoch()
    weights = network.pattern_weights()
    assert weights is not None
    assert set(weights) == {("optical",), ("sar",), ("elevation",), *[c for c in weights if len(c) == 2]}
    assert len(weights) == 6
    assert abs(sum(weights.values()) - 1) < 1e-6
    assert max(weights, key=lambda c: weights[c]) == ("optical",)
    expected = torch.softmax(torch.tensor([0.1, 0, 0, 0, 0, 0.02]) / network.config.temperature, 0).clamp(min=0.03)
    close(torch.tensor(list(weights.values())).sort().values, (expected / expected.sum()).sort().values, 1e-6)


def test_discrepancy_is_counted_for_the_pattern_that_was_drawn() -> None:
    network = mars()
    data, valid = windows(batch=3)
    valid["elevation"][2] = False  # this example never had it: what is left of it is optical alone
    kept = torch.tensor([[True, True, False], [True, True, True], [True, False, True]])
    network.losses(data, valid, labels("map", 3), kept)
    assert network.drawn.tolist() == [0, 1, 0, 1, 0, 0, 0, 0]
    assert (network.agreement <= network.drawn).all()


def test_the_oracle_routes_by_the_residual_where_something_lacks() -> None:
    network = mars().requires_grad_(False)
    data, valid = windows()
    kept = torch.tensor([[True, False, False], [True, True, True]])
    found = network.oracle(data, valid, labels("map"), kept)
    plain = network(data, withheld(valid, kept, SENSORS))
    assert found is not None
    assert found.shape == (2, CLASSES, 32, 32)
    close(found[1], plain[1])
    assert not torch.equal(found[0], plain[0])


def test_a_window_has_no_pixels_to_route() -> None:
    with pytest.raises(ValueError, match="routing"):
        Mars(mars().encoder, CLASSES, "window", MarsConfig(routing="pixel"))
