"""What capture keeps, folds and refuses."""

import pytest
import torch
from torch import Tensor, nn
from traced import BATCH, CONTEXT, mean_loss, small_model

from trainer.models import TransformerConfig
from trainer.program.description import ScheduleConfig
from trainer.program.tracing.capture import Captured, capture
from trainer.program.tracing.lowering import _weight_products
from trainer.program.tracing.optimizers import SgdConfig
from trainer.program.tracing.refusals import TracingError
from trainer.program.tracing.training import trace_training

TOKENS = torch.zeros(BATCH, CONTEXT, dtype=torch.int64)


class Model(nn.Module):
    """Something in the middle of a tiny model."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 6)
        self.middle = middle

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        hidden: Tensor = self.middle(self.embedding(inputs))
        return hidden.square().mean()


def captured(middle: nn.Module) -> Captured:
    return capture(Model(middle), mean_loss, TOKENS, TOKENS.clone())


def test_capture_names_modules_and_phases() -> None:
    graph = capture(small_model(TransformerConfig(layers=2, heads=2, width=8)), mean_loss, TOKENS, TOKENS.clone())
    products = [node for node in graph.nodes if node.target == torch.ops.aten.mm.default]
    assert graph.modules[products[0]] == "blocks.0.attention.queries_keys_values"
    assert products[0] in graph.forward
    assert products[-1] not in graph.forward
    # Four linear layers a block and the head: each a forward, an input-gradient and a weight-gradient product.
    assert len([node for node in products if node in graph.forward]) == 9
    assert len(_weight_products(graph)) == 9
    assert len(graph.outputs) == 1 + len(graph.parameters)


def test_capture_folds_masks_into_one_constant() -> None:
    graph = capture(small_model(TransformerConfig(layers=2, heads=2, width=12)), mean_loss, TOKENS, TOKENS.clone())
    masks = [value for value in graph.constants.values() if value.shape == (CONTEXT, CONTEXT)]
    assert masks
    assert all(torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1)) for mask in masks)
    for node in graph.nodes:
        assert any(one not in graph.constants for one in node.all_input_nodes)


def test_capture_folds_buffers() -> None:
    class Scaled(nn.Module):
        scale: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.arange(6.0))

        def forward(self, x: Tensor) -> Tensor:
            return x * (self.scale + 1)

    graph = captured(Scaled())
    assert any(torch.equal(value, torch.arange(6.0) + 1) for value in graph.constants.values())
    assert len(graph.placeholders) == 3  # one parameter, inputs, targets


def test_capture_drops_what_nothing_needs() -> None:
    class Wasteful(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch.exp(x)
            return x * 2

    assert not any("exp." in str(node.target) for node in captured(Wasteful()).nodes)


@pytest.mark.parametrize("dropped", [nn.Dropout(0.1), nn.Sequential(nn.Identity(), nn.Dropout(0.5))])
def test_capture_refuses_dropout_and_names_its_module(dropped: nn.Module) -> None:
    with pytest.raises(TracingError, match="draws random numbers") as caught:
        captured(dropped)
    assert caught.value.module == ("middle" if isinstance(dropped, nn.Dropout) else "middle.1")
    assert "Set dropout to 0" in caught.value.remedy
    assert captured(dropped.eval()).nodes


def test_capture_refuses_noise_that_depends_on_nothing() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn(6)

    with pytest.raises(TracingError, match="draws random numbers") as caught:
        captured(Noisy())
    assert caught.value.operator == "aten.randn.default"


def test_capture_refuses_values_read_into_python() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(TracingError, match="Module middle decides by a tensor's value") as caught:
        captured(Branching())
    assert caught.value.module == "middle"
    assert "torch.where" in caught.value.remedy


def test_capture_refuses_losses_of_several_elements() -> None:
    def all_losses(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        return mean_loss(model, inputs, targets).expand(3)

    with pytest.raises(TracingError, match="not a tensor of one element"):
        capture(Model(nn.Identity()), all_losses, TOKENS, TOKENS.clone())


def test_lowering_refuses_buffers_that_training_changes() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(CONTEXT)

        def forward(self, x: Tensor) -> Tensor:
            normed: Tensor = self.norm(x)
            return normed

    with pytest.raises(TracingError) as caught:
        trace_training(Model(Normed()), mean_loss, SgdConfig(), ScheduleConfig(), batch_size=BATCH, context=CONTEXT)
    assert (caught.value.operator, caught.value.module) == ("aten.copy_.default", "middle.norm")
    assert "nn.LayerNorm" in caught.value.remedy


def test_lowering_refuses_counters_in_buffers_and_leaves_them_alone() -> None:
    class Counting(nn.Module):
        calls: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.tensor(0))

        def forward(self, x: Tensor) -> Tensor:
            self.calls.add_(1)
            return x * 2

    model = Model(Counting())
    with pytest.raises(TracingError, match=r"aten\.copy_\.default"):
        trace_training(model, mean_loss, SgdConfig(), ScheduleConfig(), batch_size=BATCH, context=CONTEXT)
    assert model.middle.calls.item() == 0  # type: ignore[operator]


def test_capture_leaves_the_model_as_it_was() -> None:
    model = small_model(TransformerConfig(layers=1, heads=2, width=8))
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    capture(model, mean_loss, TOKENS, TOKENS.clone())
    assert all(torch.equal(before[name], one) and one.grad is None for name, one in model.named_parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
