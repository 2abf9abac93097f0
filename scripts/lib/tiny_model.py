#!/usr/bin/env python
"""Write a small BERT with random weights and the built-in tokenizer, for --smoke: tiny_model.py FOLDER"""

from __future__ import annotations

import sys
from pathlib import Path

from dynabert_paddle.runtime.environment import import_paddle
from dynabert_paddle.runtime.seeds import set_seed


def main(folder: Path) -> None:
    """Write the model folder, unless it exists."""
    if (folder / "dynabert.json").exists():
        return
    import_paddle()
    from paddlenlp.transformers import BertConfig, BertForSequenceClassification

    import dynabert_paddle as db
    from dynabert_paddle.backbone.loading import find_backbone

    set_seed(0)
    sizes = {"num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
    model = BertForSequenceClassification(BertConfig(max_position_embeddings=128, use_cache=False, **sizes))
    db.Supernet(model, db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))).save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
