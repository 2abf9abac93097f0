"""The side of width_step.py that runs PyTorch: a training step of the width stage as a PyTorch user would write it.

A Transformer encoder of torch.nn modules; a sub-network runs `F.linear` on sliced weights, as in the code of the
paper's authors. Shapes: b batch, s sequence, d hidden size, h heads, e width of one head, f FFN neurons.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
import typer
from timing import serve_steps
from torch import Tensor, nn

from dynabert_paddle.runtime.cores import num_cores

HEAD_DIM = 32
DROPOUT = 0.1
VOCABULARY, CLASSES = 30522, 7  # as in random_models.py


class Layer(nn.Module):
    """A post-norm encoder layer."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.heads = hidden // HEAD_DIM
        self.query, self.key, self.value, self.output = (nn.Linear(hidden, hidden) for _ in range(4))
        self.intermediate, self.ffn_output = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)
        self.norm1, self.norm2 = nn.LayerNorm(hidden, eps=1e-12), nn.LayerNorm(hidden, eps=1e-12)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, mask: Tensor, width: float) -> Tensor:
        heads, neurons = round(width * self.heads), round(width * self.intermediate.out_features)
        size = heads * HEAD_DIM

        def project(linear: nn.Linear) -> Tensor:
            y = F.linear(x, linear.weight[:size], linear.bias[:size])
            return y.view(*y.shape[:2], heads, HEAD_DIM).transpose(1, 2)  # [b, h, s, e]

        q, k, v = project(self.query), project(self.key), project(self.value)
        scores = q @ k.transpose(-1, -2) / HEAD_DIM**0.5 + mask  # [b, h, s, s]
        context = self.dropout(scores.softmax(-1)) @ v  # [b, h, s, e]
        context = context.transpose(1, 2).flatten(2)  # [b, s, h*e]
        x = self.norm1(x + self.dropout(F.linear(context, self.output.weight[:, :size], self.output.bias)))
        y = F.gelu(F.linear(x, self.intermediate.weight[:neurons], self.intermediate.bias[:neurons]))  # [b, s, f]
        return self.norm2(x + self.dropout(F.linear(y, self.ffn_output.weight[:, :neurons], self.ffn_output.bias)))


class Classifier(nn.Module):
    """BERT with a pooler and a classifier."""

    def __init__(self, layers: int, hidden: int) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, hidden, padding_idx=0)
        self.positions, self.types = nn.Embedding(512, hidden), nn.Embedding(2, hidden)
        self.norm, self.dropout = nn.LayerNorm(hidden, eps=1e-12), nn.Dropout(DROPOUT)
        self.layers = nn.ModuleList([Layer(hidden) for _ in range(layers)])
        self.pooler, self.classifier = nn.Linear(hidden, hidden), nn.Linear(hidden, CLASSES)

    def forward(
        self, ids: Tensor, types: Tensor, attention_mask: Tensor, width: float = 1.0
    ) -> tuple[Tensor, list[Tensor]]:
        positions = torch.arange(ids.shape[1])
        x = self.dropout(self.norm(self.words(ids) + self.positions(positions) + self.types(types)))
        mask = (1.0 - attention_mask[:, None, None].float()) * -10000.0
        hidden = [x]
        for layer in self.layers:
            hidden.append(layer(hidden[-1], mask, width))
        pooled = torch.tanh(self.pooler(hidden[-1][:, 0]))
        return self.classifier(self.dropout(pooled)), hidden


def main(shape: str, widths: str, batch_size: int, length: int) -> None:
    """Run a step for each line on stdin."""
    torch.set_num_threads(num_cores())
    ids = torch.from_numpy(np.random.default_rng(0).integers(1000, 30000, (batch_size, length)))
    serve_steps(make_step(shape, [float(width) for width in widths.split()], ids))


def make_step(shape: str, widths: list[float], ids: Tensor) -> Callable[[], None]:
    """Make the step: the teacher's forward pass, a forward and a backward pass of each width, and AdamW.

    Args:
        shape: layers x hidden size; heads are 32 wide, the FFN has 4 times as many neurons as the hidden size.
        widths: width multipliers.
        ids: `[b, s]`.
    """
    layers, hidden = map(int, shape.split("x"))
    student, teacher = (Classifier(layers, hidden) for _ in range(2))
    teacher.load_state_dict(student.state_dict())
    teacher.eval()
    student.train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-5, weight_decay=0.01)
    inputs = [ids, torch.zeros_like(ids), torch.ones_like(ids)]
    tokens = inputs[2].bool()

    def step() -> None:
        with torch.no_grad():
            target_logits, target_hidden = teacher(*inputs)
            target = target_logits.softmax(-1)
        for width in widths:
            logits, states = student(*inputs, width)
            loss = -(target * logits.log_softmax(-1)).sum(-1).mean()
            loss = loss + 0.1 * sum(
                F.mse_loss(ours[tokens], theirs[tokens]) for ours, theirs in zip(states, target_hidden, strict=True)
            )
            loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    typer.run(main)
