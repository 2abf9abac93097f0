"""`python -m dynabert_paddle` is the `dynabert` command."""

import sys
from pathlib import Path

if not __package__:  # run by its path, as paddle.distributed.launch runs `-m dynabert_paddle` in a checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dynabert_paddle.cli.main import main

main()
