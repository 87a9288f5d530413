"""The simulated device refuses what CUDA refuses, takes what it takes, and counts."""

import copy
import io

import pytest
import torch
from torch import nn

ELSEWHERE = torch.zeros(4)


def ones(device, *shape):
    return torch.ones(*(shape or (4,)), device=device)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda d: ones(d) + ELSEWHERE,
        lambda d: ones(d, 4, 4) @ ELSEWHERE,
        lambda d: torch.cat([ones(d), ELSEWHERE]),
        lambda d: torch.addmm(torch.tensor(1.0), ones(d, 2, 2), ones(d, 2, 2)),
        lambda d: ones(d).index_select(0, torch.tensor([0])),
        lambda d: ELSEWHERE.index_select(0, torch.tensor([0], device=d)),
        lambda d: ELSEWHERE[torch.tensor([0], device=d)],
        lambda d: ELSEWHERE.scatter_(0, torch.tensor([0], device=d), 1.0),
        lambda d: torch.randn(3, device=d, generator=torch.Generator()),
        lambda d: ones(d).normal_(generator=torch.Generator()),
        lambda d: nn.Linear(4, 2)(ones(d)),
        lambda d: nn.Linear(4, 2).to(d)(ELSEWHERE),
        lambda d: nn.functional.cross_entropy(ones(d, 4, 3), torch.zeros(4, dtype=torch.long)),
    ],
)
def test_tensors_from_two_devices_do_not_meet(break_it, device):
    with pytest.raises(RuntimeError, match="device"):
        break_it(device)


def test_there_is_no_numpy_on_a_device(device):
    with pytest.raises(TypeError, match="numpy"):
        ones(device).numpy()


def test_what_cuda_takes_works(device):
    x = ones(device)
    assert (x + torch.tensor(1.0)).device == x.device  # one number
    assert x[torch.tensor([0, 1])].device == x.device  # positions from the processor
    x[x > 2] = torch.tensor(0.0)
    mirrored = x.to("cpu")
    assert mirrored.device.type == "cpu"
    x[:2].mul_(3)  # a view writes through, and the copy stays
    assert x.tolist() == [3, 3, 1, 1]
    assert mirrored.tolist() == [1, 1, 1, 1]


def test_gradients_copies_and_files(device):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 3)).to(
        device
    )
    plain = copy.deepcopy(net).cpu().eval()
    x = torch.randn(5, 1, 4, 4)
    torch.testing.assert_close(net.eval()(x.to(device)).cpu(), plain(x))
    for each, rows in ((net, x.to(device)), (plain, x)):
        each(rows).square().sum().backward()
    for one, other in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad.cpu(), other.grad)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    assert all(torch.equal(value.cpu(), net.state_dict()[k].cpu()) for k, value in torch.load(file).items())


def test_random_numbers_of_the_device_are_its_own(device):
    torch.manual_seed(3)
    first, plain = torch.randn(3, device=device), torch.randn(3)
    torch.manual_seed(3)
    torch.randn(5)
    assert torch.equal(torch.randn(3, device=device), first)
    assert not torch.equal(torch.randn(3), plain)


def test_waiting_and_transfers_are_counted(counting):
    x = ones(counting.NAME)
    with counting.watched() as seen:
        y = (x * 2 + 1).sum()
    assert seen.counts == {"kernels": 3}
    with counting.watched() as seen:
        float(y)
        x[x > 0]
        x.cpu()
        torch.zeros(10).to(counting.NAME)
    assert seen.counts["syncs"] == 3
    assert (seen.counts["uploads"], seen.counts["uploaded"]) == (1, 40)
    assert (seen.counts["downloads"], seen.counts["downloaded"]) == (1, 16)
    assert seen.lines("syncs") == {"outside": 3}
    with counting.watched() as seen:
        torch.linalg.eigh(torch.eye(3, dtype=torch.float64, device=counting.NAME))
    assert seen.counts["factorised64"] == 1


def test_memory_is_counted_and_short_where_a_limit_is_set(counting):
    with counting.watched() as seen:
        for _ in range(5):
            ones(counting.NAME, 1_000)
    assert seen.peak - counting.STATE.memory.used < 3 * 4_000
    kept = []
    with counting.limited(10_000):
        kept += [ones(counting.NAME, 1_000) for _ in range(2)]
        with pytest.raises(torch.OutOfMemoryError):
            ones(counting.NAME, 1_000)
        kept.pop()
        kept.append(ones(counting.NAME, 1_000))


def test_float64_can_be_missing(counting):
    with counting.without_float64(), pytest.raises(TypeError, match="float64"):
        ones(counting.NAME).double()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_recurrent_cells_are_those_of_the_processor(kind, bias, device):
    torch.manual_seed(0)
    net, x = kind(3, 4, num_layers=2, bidirectional=True, bias=bias).double(), torch.randn(5, 2, 3).double()

    def found(place):
        here = copy.deepcopy(net).to(place)
        rows = x.to(place).requires_grad_()
        value = here(rows)[0].square().sum()
        return [value, *torch.autograd.grad(value, [rows, *here.parameters()])]

    for own, other in zip(found(device), found("cpu"), strict=True):
        torch.testing.assert_close(own.cpu(), other)


def test_passes_in_bfloat16(device):
    net, x = nn.Linear(4, 2).to(device), ones(device, 3, 4)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        outputs = net(x)
        losses = nn.functional.cross_entropy(outputs, torch.zeros(3, dtype=torch.long, device=device), reduction="none")
    assert (outputs.dtype, losses.dtype) == (torch.bfloat16, torch.float32)
    losses.sum().backward()
    assert net.weight.grad.dtype == torch.float32


def test_a_list_of_tensors_is_one_kernel_where_all_are_on_the_device(counting):
    own = [ones(counting.NAME), ones(counting.NAME, 2)]
    with counting.watched() as seen:
        torch._foreach_mul_(own, 3.0)
    assert seen.counts["kernels"] == 1
    mixed = torch._foreach_mul([*own, ELSEWHERE], 2.0)
    assert [each.device.type for each in mixed] == [counting.NAME, counting.NAME, "cpu"]
    assert mixed[1].tolist() == [6.0, 6.0]


def test_complex_numbers_are_conjugated(device):
    numbers = torch.tensor([1 + 2j, 3 - 1j])
    there = numbers.to(device)
    assert torch.equal(there.conj().clone().cpu(), numbers.conj())
    assert torch.equal((there.conj() * there).cpu(), numbers.conj() * numbers)
    assert torch.equal(there.conj().imag.cpu(), numbers.conj().imag)
