"""The verb `augment`: make more training texts."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import typer

from dynabert_paddle.cli.options import with_sections
from dynabert_paddle.cli.output import show_next
from dynabert_paddle.cli.resume import from_rows
from dynabert_paddle.cli.run import Device, Overrides
from dynabert_paddle.cli.stages import ConfigFile
from dynabert_paddle.config.command_settings import AugmentConfig
from dynabert_paddle.config.settings import TaskConfig
from dynabert_paddle.runtime.interruption import resumable


@with_sections(("task", TaskConfig), ("augment", AugmentConfig))
def augment(
    *,
    output_file: Annotated[
        str, typer.Option("--output_file", help=".tsv or .jsonl file to write; an interrupted run resumes.")
    ],
    masked_lm: Annotated[
        str | None,
        typer.Option(
            "--masked_lm",
            help="Folder or PaddleNLP name of a masked language model; without, the nearest words of word_vectors, "
            "or of the embedding of model_name_or_path, replace a word.",
        ),
    ] = None,
    word_vectors: Annotated[
        str | None,
        typer.Option(
            "--word_vectors",
            help="For words of several tokens, without masked_lm for all: glove-6b-50d, a text file like GloVe's, or a "
            "folder with .npy and .txt.",
        ),
    ] = None,
    model_name_or_path: Annotated[
        str | None,
        typer.Option("--model_name_or_path", help="Backbone to train; its vocabulary must be the masked LM's."),
    ] = None,
    config: ConfigFile = None,
    override: Overrides = None,
    device: Device = None,
    overwrite_output_file: Annotated[
        bool, typer.Option("--overwrite_output_file", help="Replace output_file.")
    ] = False,
    flags: dict[str, Any],
) -> None:
    """Copy the training texts with words replaced, as TinyBERT does; the stages width and depth train on the copies."""
    from dynabert_paddle.config.loading import find_config, load_config, resolve_config
    from dynabert_paddle.runtime.device import set_device
    from dynabert_paddle.runtime.environment import import_paddle

    own = {key.partition(".")[2]: flags.pop(key) for key in list(flags) if key.startswith("augment.")}
    copies = resolve_config(AugmentConfig, {key: value for key, value in own.items() if value is not None})
    task = load_config(find_config(config) if config else None, override or (), flags).task
    with resumable("augment", resume_point=partial(from_rows, output_file)):
        import_paddle(models_only=True)
        set_device(device or "auto")
        from dynabert_paddle.training.augment import augment

        done = augment(
            masked_lm,
            output_file,
            task=asdict(task),
            config=copies,
            word_vectors=word_vectors,
            model_name_or_path=model_name_or_path,
            overwrite=overwrite_output_file,
        )
    print(f"{done.rows_in} rows in, {done.rows_out} rows out, {done.words_replaced} words replaced")
    show_next(
        "train_width", "REWIRED_DIR", "--augmented_file", output_file, "--output_dir", "NEW_DIR", wrote=[output_file]
    )


COMMANDS = (augment,)
