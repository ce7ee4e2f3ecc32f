"""Recurrent layers: tanh RNN, GRU or LSTM."""

from __future__ import annotations

from torch import Tensor, nn

_CELLS: dict[str, type[nn.RNN] | type[nn.GRU] | type[nn.LSTM]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Recurrence(nn.Module):
    """Stacked recurrent layers of one width that start each window from zeros."""

    def __init__(self, *, cell: str, layers: int, width: int) -> None:
        super().__init__()
        self.cells = _CELLS[cell](width, width, num_layers=layers, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, T, width] to the last layer's outputs, [B, T, width]."""
        outputs: Tensor = self.cells(inputs)[0]
        return outputs
