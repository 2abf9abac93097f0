"""Import of PaddleNLP's models and tokenizers without the rest of it, which takes most of the seconds."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

# The version whose models are known to import without the rest.
_VERSION = "3.0.0b4"


def import_paddlenlp(*, models_only: bool) -> None:
    """Import `paddlenlp.transformers`.

    The whole PaddleNLP has its trainer, tasks and server, too, and imports pandas, scikit-learn, datasets, PaddleSlim
    and FastAPI for them.

    Args:
        models_only: skip `paddlenlp/__init__.py`, which imports them, where that is known to work. Of its other modules
            some cannot be imported afterwards, so this is for processes that run nothing but this package.
    """
    spec = importlib.util.find_spec("paddlenlp")
    if models_only and spec is not None and _is_known():
        package = ModuleType(spec.name)
        package.__spec__, package.__file__, package.__package__ = spec, spec.origin, spec.name
        package.__path__ = list(spec.submodule_search_locations or ())
        package.__version__ = _VERSION  # type: ignore[attr-defined] # its modules read it
        sys.modules[spec.name] = package
        importlib.import_module("paddle").disable_signal_handler()  # as PaddleNLP does
        importlib.import_module("paddlenlp.data")  # and with it the transformers, in the only order that works
    importlib.import_module("paddlenlp.transformers")


def _is_known() -> bool:
    import importlib.metadata  # which takes a tenth of the time until --help is shown

    try:
        return importlib.metadata.version("paddlenlp") == _VERSION
    except importlib.metadata.PackageNotFoundError:
        return False
