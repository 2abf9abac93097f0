"""The package as its sources are written: what import-linter cannot check, and every public name's docstring."""

import ast
import re
from pathlib import Path

import pytest

import dynabert_paddle
from dynabert_paddle.exporting import scripts

ROOT = Path(dynabert_paddle.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}

# Rooms that import no Paddle at the top of a file, so that cheap commands start fast.
WITHOUT_PADDLE = {"__main__", "errors", "subnet", "config", "runtime", "files", "text", "bundle", "data", "serving"}
WITHOUT_PADDLE |= {"model_shape", "search_space", "reporting", "cli", ""}
SCRIPTS = {"infer.py": scripts.INFER_MODULES, "infer_lite.py": scripts.INFER_LITE_MODULES}


def room_of(module):
    """The room of `dynabert_paddle.supernet.elastic` is `supernet`; a top-level module is a room of its own."""
    return [*module.split("."), ""][1]


def imports(tree, *, top_level_only=False):
    """Modules that a source imports, by their full names; `from package import name` counts name as a module."""
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def defined_names(node):
    """The names that a statement at the top of a module defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return {part.id for target in targets if target for part in ast.walk(target) if isinstance(part, ast.Name)}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_joined_module_imports_only_joined_modules_before_it(script):
    joined = [module.__name__ for module in SCRIPTS[script]]
    for number, module in enumerate(joined):
        own = {name for name in imports(TREES[module]) if name.split(".")[0] == "dynabert_paddle"}
        assert own <= set(joined[:number]), module


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_name_of_a_joined_module_replaces_that_of_another(script):
    """In one file the later one counts for both: texts were split into words by another module's pattern."""
    owners = {}
    for module in SCRIPTS[script]:
        names = {name for node in TREES[module.__name__].body for name in defined_names(node)}
        for name in names:
            assert owners.setdefault(name, module.__name__) == module.__name__, name


@pytest.mark.parametrize("module", [module.__name__ for module in scripts.INFER_LITE_MODULES])
def test_the_modules_of_infer_lite_are_python_3_7(module):
    ast.parse(MODULES[module].read_text(encoding="utf-8"), feature_version=(3, 7))


@pytest.mark.parametrize("module", [name for name in MODULES if room_of(name) in WITHOUT_PADDLE])
def test_modules_without_paddle_do_not_import_it(module):
    """Not at the top of a file, that is: a command may import what it runs."""
    heavy = {"paddle", "paddlenlp", "paddleslim"}
    assert not heavy & {name.split(".")[0] for name in imports(TREES[module], top_level_only=True)}


def test_nothing_of_paddleslim_that_patches_paddle_is_imported():
    slim = {name for tree in TREES.values() for name in imports(tree) if name.split(".")[0] == "paddleslim"}
    assert "paddleslim.dygraph.dist.losses" in slim
    assert not [name for name in slim if "nas" in name.split(".")]


def is_empty(node):
    """Whether a method is `...` alone: a protocol's, which its class explains."""
    return isinstance(node.body[-1], ast.Expr) and getattr(node.body[-1].value, "value", None) is Ellipsis


def public_names(module):
    """Every public class, function and method of a module, with its node, under its full name."""
    found = {}
    for node in TREES[module].body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            found[f"{module}.{node.name}"] = node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_") and not is_empty(part):
                    found[f"{module}.{node.name}.{part.name}"] = part
    return found


# Typer shows a command's docstring as its help; Typer's own annotations say what the arguments are.
EXPLAINED = [module for module in MODULES if room_of(module) != "cli"]


def parameters(node):
    """Names of the arguments of a function, or of the constructor or fields of a class."""
    if isinstance(node, ast.ClassDef):
        inits = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        if inits:
            return parameters(inits[0])
        fields = [p for p in node.body if isinstance(p, ast.AnnAssign) and not p.target.id.startswith("_")]
        return [field.target.id for field in fields]
    a = node.args
    every = [*a.posonlyargs, *a.args, *([a.vararg] if a.vararg else []), *a.kwonlyargs, *([a.kwarg] if a.kwarg else [])]
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


def section(doc, title):
    """The lines of one of a docstring's sections; empty where there is none."""
    match = re.search(rf"^{title}:\n((?:[ ]{{4}}.*\n?|\n)+)", doc, re.MULTILINE)
    return match.group(1) if match else ""


def own_nodes(node):
    """What a function itself does, without what the functions inside it do."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
            yield child
            yield from own_nodes(child)


@pytest.mark.parametrize("module", MODULES)
def test_every_docstring_begins_with_one_line(module):
    names = {module: TREES[module], **public_names(module)}
    for name, node in names.items():
        doc = ast.get_docstring(node)
        assert doc, f"{name} has no docstring"
        first, _, rest = doc.partition("\n")
        assert first.endswith((".", "?")), name
        assert not rest or rest.startswith("\n"), f"{name}: the first line is one sentence, then comes an empty line"


@pytest.mark.parametrize("module", EXPLAINED)
def test_args_are_those_that_exist_in_their_order(module):
    for name, node in public_names(module).items():
        doc, names = ast.get_docstring(node), parameters(node)
        # A class may be made by its own methods alone, and a docstring of one line leaves the rest to the signature.
        if not section(doc, "Args") and (isinstance(node, ast.ClassDef) or "\n" not in doc):
            continue
        listed = re.findall(r"^ {4}(\w+):", section(doc, "Args"), re.MULTILINE)
        assert listed == names, name


@pytest.mark.parametrize("module", EXPLAINED)
def test_returns_and_raises_are_documented(module):
    for name, node in public_names(module).items():
        if not isinstance(node, ast.FunctionDef):
            continue
        doc, inside = ast.get_docstring(node), list(own_nodes(node))
        returns = any(isinstance(part, ast.Return) and part.value is not None for part in inside)
        yields = any(isinstance(part, (ast.Yield, ast.YieldFrom)) for part in inside)
        raises = {
            part.exc.func.id
            for part in inside
            if isinstance(part, ast.Raise) and isinstance(part.exc, ast.Call) and isinstance(part.exc.func, ast.Name)
        }
        if "\n" in doc:
            assert bool(section(doc, "Returns") or section(doc, "Yields")) == (returns or yields), name
        told = set(re.findall(r"^ {4}(\w+):", section(doc, "Raises"), re.MULTILINE))
        for error in raises & {"DynabertError", "UsageError", "DataError", "ModelError"}:
            assert told & {error, "DynabertError"}, f"{name} raises {error}"
