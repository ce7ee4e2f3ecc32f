"""Small models in the shape of public ones, written with ordinary PyTorch modules."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Gpt2Block(nn.Module):
    """GPT-2's block: fused projection as a plain matrix with bias, a mask that is a buffer, the tanh form of GELU."""

    mask: Tensor

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projection = nn.Parameter(torch.randn(width, 3 * width) * 0.2)
        self.projection_bias = nn.Parameter(torch.zeros(3 * width))
        self.joined = nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.register_buffer("mask", torch.tril(torch.ones(context, context)).view(1, 1, context, context))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        mixed = torch.addmm(self.projection_bias, self.first(x).view(-1, width), self.projection)
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in mixed.view(batch, length, 3 * width).chunk(3, dim=2)
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(self.mask[:, :, :length, :length] == 0, torch.finfo(scores.dtype).min)
        x = x + self.joined((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width))
        added: Tensor = x + self.narrow(functional.gelu(self.wide(self.second(x)), approximate="tanh"))
        return added


class RootNorm(nn.Module):
    """Llama's norm: by the root of the mean square."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class LlamaBlock(nn.Module):
    """Llama's block: rotary positions, fewer keys than queries, a gated feed-forward layer."""

    frequencies: Tensor

    def __init__(self, width: int, heads: int, key_heads: int) -> None:
        super().__init__()
        self.heads, self.key_heads, self.size = heads, key_heads, width // heads
        self.first, self.second = RootNorm(width), RootNorm(width)
        self.queries = nn.Linear(width, width, bias=False)
        self.keys, self.values = (nn.Linear(width, key_heads * self.size, bias=False) for _ in range(2))
        self.joined = nn.Linear(width, width, bias=False)
        self.gate, self.up = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, 3 * width, bias=False)
        self.down = nn.Linear(3 * width, width, bias=False)
        exponents = torch.arange(0, self.size, 2, dtype=torch.int64).float() / self.size
        self.register_buffer("frequencies", 1.0 / 10000.0**exponents, persistent=False)

    def rotated(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2]).float()[:, None] * self.frequencies[None, :]
        angles = torch.cat((angles, angles), dim=-1)
        low, high = x[..., : self.size // 2], x[..., self.size // 2 :]
        return x * angles.cos() + torch.cat((-high, low), dim=-1) * angles.sin()

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        normed = self.first(x)
        q = self.rotated(self.queries(normed).view(batch, length, self.heads, -1).transpose(1, 2))
        k = self.rotated(self.keys(normed).view(batch, length, self.key_heads, -1).transpose(1, 2))
        v = self.values(normed).view(batch, length, self.key_heads, -1).transpose(1, 2)
        k, v = (one.repeat_interleave(self.heads // self.key_heads, dim=1) for one in (k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.joined(mixed.transpose(1, 2).reshape(batch, length, width))
        normed = self.second(x)
        added: Tensor = x + self.down(functional.silu(self.gate(normed)) * self.up(normed))
        return added


class EncoderBlock(nn.Module):
    """torch's own encoder layer with a causal mask."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        encoded: Tensor = self.layer(x, src_mask=mask, is_causal=True)
        return encoded


class PublicModel(nn.Module):
    """Embedding, one of the blocks, logits, and the loss that `mean_loss` asks for."""

    def __init__(self, block: nn.Module, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.block = block
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        logits = self.head(self.block(self.embedding(inputs)))
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
