"""A model as Paddle's static graph, in the legacy format or in PIR.

Which of the two Paddle writes is decided when it is imported, by FLAGS_enable_pir_api.
"""

from __future__ import annotations

from pathlib import Path

import paddle
from paddle import Tensor, nn
from paddle.static import InputSpec

from dynabert_paddle.backbone.structure import join_logits
from dynabert_paddle.bundle.engines import INPUTS
from dynabert_paddle.exporting.program import name_transposed_shapes, rewrite, strip_call_stacks
from dynabert_paddle.supernet.elastic import EncoderCall, encoder_call
from dynabert_paddle.supernet.supernet import Supernet


class _Graph(nn.Layer):
    """The model with the three inputs that every bundle has."""

    def __init__(self, supernet: Supernet) -> None:
        super().__init__()
        self.model = supernet.model
        self.takes = supernet.input_names
        name = type(supernet.model).__name__
        self.of_answers = name.endswith("ForQuestionAnswering")
        self.of_tokens = self.of_answers or name.endswith("ForTokenClassification")

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor) -> Tensor:
        given = {"input_ids": input_ids, "token_type_ids": token_type_ids, "attention_mask": attention_mask}
        for name in sorted(given.keys() - self.takes):
            # An input that nothing uses would not be in the graph.
            given["input_ids"] = given["input_ids"] + (given[name] - given[name])
        taken = {name: value for name, value in given.items() if name in self.takes}
        if not self.of_tokens:
            return join_logits(self.model(**taken))
        # Paddle cannot convert the returns of RoBERTa's own forward, nor OpenVINO how answers are unstacked. Without
        # dropout every class's forward computes this.
        states = getattr(self.model, self.model.base_model_prefix)(**taken)
        logits = self.model.classifier(states[0] if isinstance(states, (tuple, list)) else states)
        return logits.transpose([0, 2, 1]) if self.of_answers else logits


def save_graph(supernet: Supernet, folder: Path) -> None:
    """Write the full model as a static graph with int64 inputs `[b, s]` of any size.

    Args:
        supernet: the model; it is left in evaluation mode.
        folder: gets `model.pdmodel` or, in a process that runs on PIR, `model.json`; and `model.pdiparams`.
    """
    graph = _Graph(supernet)
    graph.eval()
    spec = [InputSpec([-1, -1], "int64", name=name) for name in INPUTS]
    static = paddle.jit.to_static(graph, input_spec=spec, full_graph=True)
    with encoder_call(EncoderCall(supernet.encoder, supernet.full, first_token=supernet.reads_first_token)):
        paddle.jit.save(static, str(folder / "model"))
    (folder / "model.pdiparams.info").unlink(missing_ok=True)  # names for training on
    legacy = folder / "model.pdmodel"
    if legacy.exists():
        rewrite(legacy, strip_call_stacks, name_transposed_shapes)
