"""The Transformer: cached equals uncached, rows do not leak, dropped slots re-rotate exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from omnifill.model.config import ModelConfig
from omnifill.model.mask import Mask
from omnifill.model.network import Network
from omnifill.model.rotary import Rotation, rotate
from omnifill.model.sizes import SIZES, nearest_size
from omnifill.model.transformer import Transformer, attend


def network(kv_heads: int = 2, context: int = 16, fields: int = 3) -> Network:
    torch.manual_seed(0)
    config = ModelConfig(
        vocabulary=40, fields=fields, dim=32, layers=2, heads=4, kv_heads=kv_heads, head_dim=8,
        ffn=48, context=context, standing=((7, 9), (30, 5)),
    )  # fmt: skip
    net = Network(config)
    with torch.no_grad():  # away from the zero initialisation, which would hide mistakes
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return net.eval()


def random_ids(rows: int, num: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 40, (rows, num)), torch.randint(0, 3, (rows, num))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@torch.no_grad()
def test_cached_equals_uncached_with_unequal_lengths(kv_heads: int) -> None:
    net = network(kv_heads)
    ids, field = random_ids(3, 12)
    whole = net(ids, field, None, Mask())
    lengths = torch.tensor([2, 7, 5])
    cache = net.new_cache(3, 12)
    net(ids[:, :7], field[:, :7], None, Mask(), cache)
    cache.rewind(lengths)
    for _ in range(5):
        at = cache.lengths.clone()
        row = torch.arange(3)
        step = net(ids[row, at][:, None], field[row, at][:, None], None, Mask(), cache)[:, 0]
        torch.testing.assert_close(step, whole[row, at], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_what_comes_later_changes_nothing_before() -> None:
    net = network()
    ids, field = random_ids(2, 10)
    changed = ids.clone()
    changed[:, 6:] = 7
    before = net(ids, field, None, Mask())[:, :6]
    torch.testing.assert_close(before, net(changed, field, None, Mask())[:, :6])


@torch.no_grad()
def test_selected_rows_go_on_as_if_alone() -> None:
    net = network()
    ids, field = random_ids(4, 9)
    cache = net.new_cache(4, 9)
    net(ids[:, :8], field[:, :8], None, Mask(), cache)
    few = cache.select(torch.tensor([3, 1]))
    step = net(ids[[3, 1], 8:], field[[3, 1], 8:], None, Mask(), few)
    whole = net(ids, field, None, Mask())[[3, 1], 8:]
    torch.testing.assert_close(step, whole, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_full_cache_keeps_its_sink_and_renumbers_the_rest() -> None:
    net = network()
    cache = net.new_cache(2, 8)
    ids, field = random_ids(2, 8)
    net(ids, field, None, Mask(), cache)
    layer = cache.inner.layers[0]  # type: ignore[attr-defined]
    keys = layer.keys.clone()
    cache.make_room(1)
    assert cache.lengths.tolist() == [6, 6]
    torch.testing.assert_close(layer.keys[:, :, 1:6], keys[:, :, 3:8])
    torch.testing.assert_close(layer.keys[:, :, 0], keys[:, :, 0])
    cos, sin = Rotation.of(net.config).at(torch.arange(6)[None])
    torch.testing.assert_close(layer.turned[:, :, :6], rotate(layer.keys[:, :, :6], cos, sin))


def test_both_ways_of_attention_agree() -> None:
    q, k, v = (torch.randn(2, 3, 600, 8) for _ in range(3))
    mask = Mask().dense(600, q.device)
    fused = attend(q, k, v, mask)
    slow = ((q @ k.mT) / 8**0.5).masked_fill(~mask, float("-inf")).softmax(-1) @ v
    torch.testing.assert_close(fused, slow, rtol=1e-4, atol=1e-5)
    short = attend(q[:, :, :20], k[:, :, :20], v[:, :, :20], mask[:20, :20])
    torch.testing.assert_close(short, fused[:, :, :20], rtol=1e-4, atol=1e-5)


def test_rotary_scores_depend_on_distance_alone() -> None:
    x, y = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    turn = Rotation(1e4 ** (-torch.arange(0, 8, 2) / 8))

    def score(a: int, b: int) -> Tensor:
        turned = [rotate(v, *turn.at(torch.tensor([[p]]))) for v, p in ((x, a), (y, b))]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(3, 1), score(13, 11), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(score(3, 1), score(5, 1))


def test_tied_heads_share_one_matrix() -> None:
    config = network().config.model_copy(update={"tied": True})
    net = Network(config)
    assert net.head.weight is net.embed.weight


def test_sizes_grow_and_name_the_nearest() -> None:
    numbers = [s.parameters for s in SIZES.values()]
    assert numbers == sorted(numbers)
    for name, size in SIZES.items():
        assert nearest_size(size.parameters * 1.05) == name


def test_a_text_only_model_has_no_field_embedding() -> None:
    assert network(fields=1).fields is None
    assert isinstance(network().backbone, Transformer)


def test_neighbouring_cells_of_a_number_start_out_alike_and_far_ones_do_not() -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        vocabulary=80, dim=256, layers=1, heads=2, kv_heads=2, head_dim=8, ffn=8, context=4,
        ordered=((10, 50),),
    )  # fmt: skip
    rows = Network(config).embed.weight.detach()
    cells = rows[10:60]
    alike = torch.cosine_similarity(cells[:1], cells)
    assert alike[1] > 0.95 and alike[2] > 0.9
    assert alike[30:].abs().max() < 0.4
    assert cells.std() == pytest.approx(1, abs=0.1)
    others = torch.cosine_similarity(rows[60:79], rows[61:])
    assert others.abs().max() < 0.4


def test_codes_of_several_numbers_start_out_alike_where_all_of_these_are_near() -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        vocabulary=80, dim=256, layers=1, heads=2, kv_heads=2, head_dim=8, ffn=8, context=4,
        ordered=((10, 4, 16),),
    )  # fmt: skip
    rows = Network(config).embed.weight.detach()[10:74]
    grid = rows.view(16, 4, -1)  # the first axis changes fastest
    alike = torch.cosine_similarity(grid[:1, :1], grid, dim=-1)
    assert alike[1, 0] > 0.9 > alike[0, 1] > 0.3
    assert alike[0, 3].abs() < 0.4 and alike[15, 0].abs() < 0.4
    assert rows.std() == pytest.approx(1, abs=0.1)
