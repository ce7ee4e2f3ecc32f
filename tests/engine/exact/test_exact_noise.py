"""Threefry against its authors' known answers, and Gumbel noise against double precision."""

import math

import pytest
import torch

from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Kernel, run_kernel, signed
from trainer.engine.exact.noise import gumbel, threefry

_EULER = 0.5772156649015329


def threefry_kernel(which: int) -> Kernel:
    build = Builder(4)
    a, b, c, d = (build.input(number) for number in range(4))
    return build.kernel(threefry(build, (a, b), (c, d))[which])


def gumbel_kernel() -> Kernel:
    build = Builder(1)
    return build.kernel(gumbel(build, build.input(0)))


def of_words(words: torch.Tensor) -> torch.Tensor:
    return run_kernel(gumbel_kernel(), [words]).view(torch.float32)


# Key, counter and result of the file of known answers (kat_vectors) of Random123, the authors' own library.
@pytest.mark.parametrize(
    ("key", "counter", "answer"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_known_answers(
    key: tuple[int, int], counter: tuple[int, int], answer: tuple[int, int]
) -> None:
    inputs = [torch.tensor([signed(word)], dtype=torch.int32) for word in (*key, *counter)]
    for which, expected in enumerate(answer):
        assert run_kernel(threefry_kernel(which), inputs).tolist() == [signed(expected)]


def test_threefry_changes_half_of_the_bits_with_any_bit_of_key_or_counter() -> None:
    words = torch.arange(2048, dtype=torch.int32)
    zero = torch.zeros(1, dtype=torch.int32)
    for place in range(4):
        for bit in range(32):
            inputs = [words if one == 2 else zero for one in range(4)]
            turned = list(inputs)
            turned[place] = turned[place] ^ torch.tensor([signed(1 << bit)], dtype=torch.int32)
            different = run_kernel(threefry_kernel(0), inputs) ^ run_kernel(threefry_kernel(0), turned)
            ones = sum(int(((different >> shift) & 1).sum()) for shift in range(32)) / (32 * 2048)
            assert abs(ones - 0.5) < 6 * 0.5 / math.sqrt(32 * 2048)


def test_gumbel_is_close_to_double_precision_everywhere() -> None:
    generator = torch.Generator().manual_seed(1)
    random = torch.randint(-(2**31), 2**31, (2**18,), generator=generator)
    # Few leading bits set, and all but few: v near 0 and near 1.
    edges = torch.tensor([sign * (2**shift + more) for shift in range(31) for more in (-1, 0, 1) for sign in (1, -1)])
    words = torch.cat([random, edges]).to(torch.int32)
    v = (((words.to(torch.int64) & 0xFFFFFFFF) >> 1) | 1).to(torch.float32).double() * 2.0**-31
    expected = -torch.log(-torch.log1p(-v.clamp(max=1 - 2.0**-24)))
    apart = (of_words(words).double() - expected).abs()
    assert apart.max() < 3e-6


def test_gumbel_is_finite_at_the_ends() -> None:
    ends = of_words(torch.tensor([0, 1, -1, -(2**31), 2**31 - 1], dtype=torch.int32))
    assert bool(ends.isfinite().all())
    assert ends[0].item() == pytest.approx(31 * math.log(2), rel=1e-6)
    assert ends[2].item() == pytest.approx(-math.log(24 * math.log(2)), rel=1e-6)


def test_gumbel_of_threefry_has_the_distribution_s_mean_and_variance() -> None:
    build = Builder(2)
    word = threefry(build, (build.input(0), build.word(0)), (build.input(1), build.word(0)))[0]
    kernel = build.kernel(gumbel(build, word))
    count = 2**18
    seeds = torch.arange(64, dtype=torch.int32)[:, None]
    noise = run_kernel(kernel, [seeds, torch.arange(count // 64, dtype=torch.int32)]).view(torch.float32).double()
    variance = math.pi**2 / 6
    # Six deviations; the fourth moment of a Gumbel variable about its mean is 5.4 variances squared.
    assert abs(noise.mean().item() - _EULER) < 6 * math.sqrt(variance / count)
    assert abs(noise.var().item() - variance) < 6 * variance * math.sqrt((5.4 - 1) / count)
