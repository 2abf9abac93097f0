"""A model as Paddle's static graph, in the legacy format or in PIR.

FLAGS_enable_pir_api selects the format, and Paddle reads it only when it is imported.
"""

from __future__ import annotations

from pathlib import Path

import paddle
from paddle import Tensor, nn
from paddle.static import InputSpec

from dynabert_paddle.backbone.structure import join_logits
from dynabert_paddle.bundle.engines import INPUTS
from dynabert_paddle.exporting.program import add_xshape_outputs, rewrite, strip_call_stacks
from dynabert_paddle.supernet.calls import FLOAT_ACTIVATIONS, EncoderCall, encoder_call
from dynabert_paddle.supernet.supernet import Supernet


class _Graph(nn.Layer):
    """The model with the three inputs that every bundle has."""

    def __init__(self, supernet: Supernet) -> None:
        super().__init__()
        self.model = supernet.model
        self.input_names = supernet.input_names
        name = type(supernet.model).__name__
        self.is_question_answering = name.endswith("ForQuestionAnswering")
        self.has_token_outputs = self.is_question_answering or name.endswith("ForTokenClassification")

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor) -> Tensor:
        inputs = {"input_ids": input_ids, "token_type_ids": token_type_ids, "attention_mask": attention_mask}
        for name in sorted(inputs.keys() - self.input_names):
            # Adds zero, because the graph would not have an unused input.
            inputs["input_ids"] = inputs["input_ids"] + (inputs[name] - inputs[name])
        inputs = {name: value for name, value in inputs.items() if name in self.input_names}
        if not self.has_token_outputs:
            return join_logits(self.model(**inputs))
        # Does what every class's forward does in evaluation mode. Paddle cannot convert the return statements of
        # RoBERTa's forward, and OpenVINO cannot convert how a question answering model unstacks its logits.
        states = getattr(self.model, self.model.base_model_prefix)(**inputs)
        logits = self.model.classifier(states[0] if isinstance(states, (tuple, list)) else states)
        return logits.transpose([0, 2, 1]) if self.is_question_answering else logits


def save_graph(supernet: Supernet, folder: Path) -> None:
    """Write the full model as a static graph with int64 inputs `[b, s]` of any size; activations are not rounded.

    Args:
        supernet: the model; it is left in evaluation mode.
        folder: where to write `model.pdiparams` and `model.pdmodel` (in a process that runs on PIR, `model.json`).
    """
    graph = _Graph(supernet)
    graph.eval()
    spec = [InputSpec([-1, -1], "int64", name=name) for name in INPUTS]
    static = paddle.jit.to_static(graph, input_spec=spec, full_graph=True)
    first_token = supernet.reads_first_token
    call = EncoderCall(supernet.encoder, supernet.full, first_token=first_token, state=FLOAT_ACTIVATIONS)
    with encoder_call(call):
        paddle.jit.save(static, str(folder / "model"))
    (folder / "model.pdiparams.info").unlink(missing_ok=True)  # only needed to continue training
    legacy = folder / "model.pdmodel"
    if legacy.exists():
        rewrite(legacy, strip_call_stacks, add_xshape_outputs)
