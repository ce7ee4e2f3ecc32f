import pytest
import torch
from torch.nn import functional

from trainer.models import LanguageModel, ModelConfig, RecurrentConfig, TransformerConfig, build_model
from trainer.models.heldout import heldout_loss, round_to_float32
from trainer.models.initial import initialise

CONFIGS: list[ModelConfig] = [
    TransformerConfig(layers=2, heads=4, width=32),
    TransformerConfig(layers=1, heads=1, width=16, tied_embeddings=False, bias=True),
    RecurrentConfig(cell="rnn", layers=1, heads=2, width=32),
    RecurrentConfig(cell="gru", layers=2, heads=4, width=32, tied_embeddings=False),
    RecurrentConfig(cell="lstm", layers=2, heads=2, width=32),
]
VOCABULARY, CONTEXT = 50, 12


@pytest.fixture(params=CONFIGS, ids=lambda c: f"{c.kind}-{getattr(c, 'cell', c.layers)}")
def model(request: pytest.FixtureRequest) -> LanguageModel:
    built = build_model(request.param, vocabulary=VOCABULARY, context=CONTEXT)
    initialise(built, seed=3, layers=request.param.layers)
    return built


def windows(rows: int = 3) -> torch.Tensor:
    return torch.randint(VOCABULARY, (rows, CONTEXT), generator=torch.Generator().manual_seed(1))


def test_logits_future_tokens_do_not_change_past_logits(model: LanguageModel) -> None:
    inputs = windows()
    before = model.logits(inputs)
    for changed in range(CONTEXT):
        other = inputs.clone()
        other[:, changed:] = (other[:, changed:] + 7) % VOCABULARY
        after = model.logits(other)
        torch.testing.assert_close(after[:, :changed], before[:, :changed], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(after[:, changed], before[:, changed])


def test_logits_see_past_tokens(model: LanguageModel) -> None:
    inputs = windows()
    other = inputs.clone()
    other[:, 0] = (other[:, 0] + 1) % VOCABULARY
    assert not torch.equal(model.logits(inputs)[:, 1], model.logits(other)[:, 1])


def test_logits_shorter_windows_are_a_prefix(model: LanguageModel) -> None:
    inputs = windows()
    short = model.logits(inputs[:, :5])
    torch.testing.assert_close(short, model.logits(inputs)[:, :5], rtol=1e-5, atol=1e-6)


def test_forward_is_the_cross_entropy_of_the_logits(model: LanguageModel) -> None:
    inputs, targets = windows(), windows().roll(-1, dims=1)
    logs = model.logits(inputs).double().log_softmax(-1)
    expected = -logs.gather(-1, targets[..., None]).sum()
    assert model(inputs, targets, "sum").item() == pytest.approx(expected.item(), rel=1e-5)
    assert model(inputs, targets).item() == pytest.approx(expected.item() / targets.numel(), rel=1e-5)


def test_backward_every_gradient_is_finite_and_there(model: LanguageModel) -> None:
    inputs = windows()
    model(inputs, inputs.roll(-1, dims=1)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        # A key's bias shifts all of a query's scores alike, which softmax does not see; so no whole tensor is zero.
        assert float(parameter.grad.abs().sum()) > 0, name


@pytest.mark.parametrize("config", CONFIGS[:1] + CONFIGS[4:], ids=lambda c: c.kind)
def test_tied_embeddings_stand_once_and_are_used_twice(config: ModelConfig) -> None:
    tied = build_model(config, vocabulary=VOCABULARY, context=CONTEXT)
    initialise(tied, seed=3, layers=config.layers)
    shapes = [tuple(p.shape) for _, p in tied.named_parameters()]
    assert shapes.count((VOCABULARY, config.width)) == 1
    inputs = windows()
    tied.logits(inputs).sum().backward()
    weight = dict(tied.named_parameters())["embedding.weight"]
    unseen = next(t for t in range(VOCABULARY) if t not in inputs)
    assert weight.grad is not None
    assert float(weight.grad[unseen].abs().sum()) > 0  # a token that is not in the input still is in the output layer


def test_untied_embeddings_have_an_output_matrix_of_their_own() -> None:
    model = build_model(CONFIGS[1], vocabulary=VOCABULARY, context=CONTEXT)
    shapes = [tuple(p.shape) for _, p in model.named_parameters()]
    assert shapes.count((VOCABULARY, 16)) == 2


def test_transformer_positions_matter() -> None:
    model = build_model(CONFIGS[0], vocabulary=VOCABULARY, context=CONTEXT)
    initialise(model, seed=3, layers=2)
    logits = model.logits(torch.full((1, CONTEXT), 5))
    assert not torch.allclose(logits[0, 0], logits[0, 1])


def test_transformer_attention_equals_its_definition() -> None:
    model = build_model(CONFIGS[0], vocabulary=VOCABULARY, context=CONTEXT)
    initialise(model, seed=3, layers=2)
    attention = model.blocks[0].attention
    hidden = torch.randn(2, CONTEXT, 32, generator=torch.Generator().manual_seed(2))
    mixed = []
    projected = functional.linear(hidden, attention.queries_keys_values.weight)
    for head in range(4):
        q, k, v = (projected[..., 32 * part + 8 * head : 32 * part + 8 * head + 8] for part in range(3))
        scores = (q @ k.transpose(1, 2) / 8**0.5).masked_fill(torch.ones(12, 12).triu(1).bool(), float("-inf"))
        mixed.append(scores.softmax(-1) @ v)
    expected = functional.linear(torch.cat(mixed, -1), attention.output.weight)
    torch.testing.assert_close(attention(hidden), expected, rtol=1e-4, atol=1e-6)


def test_initialise_follows_seed_and_name(model: LanguageModel) -> None:
    first = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 9.0)
    initialise(model, seed=3, layers=2 if len(first) > 12 else 1)
    again = dict(model.named_parameters())
    assert torch.equal(first["embedding.weight"], again["embedding.weight"])
    initialise(model, seed=4, layers=1)
    assert not torch.equal(first["embedding.weight"], again["embedding.weight"])
    for name, parameter in again.items():
        if "norm" in name:
            assert bool((parameter == (1.0 if name.endswith("weight") else 0.0)).all())


def test_heldout_loss_does_not_depend_on_how_windows_are_grouped(model: LanguageModel) -> None:
    tokens = torch.randint(VOCABULARY, (7, CONTEXT + 1), generator=torch.Generator().manual_seed(6))
    losses = [heldout_loss(model, tokens, batch=batch) for batch in (1, 3, 7, 100)]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)
    assert losses[0] == torch.tensor(losses[0], dtype=torch.float32).item()


def test_round_to_float32_ties_even_infinity_and_nan() -> None:
    assert round_to_float32(1 + 2**-24) == 1.0
    assert round_to_float32(1 + 3 * 2**-24) == 1 + 2**-22
    assert round_to_float32(1e39) == float("inf")
    assert round_to_float32(float("nan")) != round_to_float32(float("nan"))


def test_initialise_keeps_variance_and_starts_nearly_even() -> None:
    config = TransformerConfig(layers=2, heads=4, width=128, tied_embeddings=False)
    model = build_model(config, vocabulary=200, context=32)
    initialise(model, seed=1, layers=2)
    deviations = {name: float(p.detach().std()) for name, p in model.named_parameters() if p.dim() == 2}
    assert deviations["embedding.weight"] == pytest.approx(0.02, rel=0.05)
    assert deviations["output.projection.weight"] == pytest.approx(0.02, rel=0.05)
    assert deviations["blocks.1.feed_forward.widen.weight"] == pytest.approx(128**-0.5, rel=0.05)
    assert deviations["blocks.1.feed_forward.output.weight"] == pytest.approx((512 * 4) ** -0.5, rel=0.05)
    assert deviations["blocks.0.attention.output.weight"] == pytest.approx((128 * 4) ** -0.5, rel=0.05)
    inputs = torch.randint(200, (4, 32), generator=torch.Generator().manual_seed(1))
    assert model(inputs, inputs.roll(-1, dims=1)).item() == pytest.approx(torch.tensor(200.0).log().item(), abs=0.1)
