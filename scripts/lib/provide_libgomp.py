"""Let the Paddle of an environment find libgomp.so.1 where the system has none, without root.

`setup_env.sh` runs it with the environment's own interpreter. scikit-learn's wheel ships a libgomp, and Paddle's
libdnnl looks for libgomp.so.1 in its own folder first. libcommon, which Paddle 3 loads before libdnnl, does not. So a
link goes into that folder, and every interpreter of the environment loads libdnnl when it first looks for Paddle: the
name libgomp.so.1 then counts as loaded.
"""

import sys
import sysconfig
from pathlib import Path

HOOK = '''\
"""Loads Paddle's libdnnl, and with it the libgomp.so.1 beside it, before Paddle itself (made by setup_env.sh)."""

import os.path  # nothing else: every interpreter of the environment runs this when it starts
import sys


class PaddleFinder:
    def find_spec(self, name, path=None, target=None):
        if name == "paddle":
            import ctypes

            sys.meta_path.remove(self)
            try:
                ctypes.CDLL(os.path.join(os.path.dirname(__file__), "paddle", "libs", "libdnnl.so.3"))
            except OSError:
                pass  # Paddle's own import fails as well, and says why
        return None


sys.meta_path.insert(0, PaddleFinder())
'''


def provide_libgomp(packages: Path) -> bool:
    """Make the link and the hook in the folder of installed packages; False where scikit-learn ships no libgomp."""
    shipped = sorted(packages.glob("scikit_learn.libs/libgomp-*.so*"))
    if not shipped:
        return False
    link = packages / "paddle" / "libs" / "libgomp.so.1"
    link.unlink(missing_ok=True)
    link.symlink_to(Path("..", "..", *shipped[0].parts[-2:]))
    (packages / "_paddle_libgomp.py").write_text(HOOK, encoding="utf-8")
    (packages / "_paddle_libgomp.pth").write_text("import _paddle_libgomp\n", encoding="utf-8")
    return True


if __name__ == "__main__":
    sys.exit(not provide_libgomp(Path(sysconfig.get_path("platlib"))))
