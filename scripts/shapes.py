"""Models of a shape with random weights, which do not matter to the time, for the scripts that measure it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dynabert_paddle as db


def random_supernet(shape: str) -> db.Supernet:
    """Make a classifier of the built-in task, of a shape such as `6x384`: layers x hidden size, heads 32 wide."""
    from paddlenlp.transformers import BertConfig, BertForSequenceClassification

    import dynabert_paddle as db
    from dynabert_paddle.backbone import find_backbone
    from dynabert_paddle.metadata import Metadata

    layers, hidden = map(int, shape.split("x"))
    task = db.load_task("snips")
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=hidden // 32,
        intermediate_size=4 * hidden,
        num_labels=len(task.labels),
        use_cache=False,
    )
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    metadata = Metadata(stage="finetune", task={**task.to_dict(), "max_seq_length": 128})
    return db.Supernet(BertForSequenceClassification(config), tokenizer, metadata)
