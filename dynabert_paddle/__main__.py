"""`python -m dynabert_paddle` is the `dynabert` command."""

from dynabert_paddle.cli.main import main

main()
