"""One word means one thing: no class, and no name for a type, is called like another one of ours."""

import ast
from collections import defaultdict

SHOP = "a service's own copy: the shop's services share contracts and no code (decision 10)"
MAY_REPEAT = {
    "Account": SHOP,
    "Address": SHOP,
    "AddressInvalid": SHOP,
    "CardInvalid": SHOP,
    "Customer": "of orders and of marketing: two models of one word, on purpose, tied by an account's id",
    "CustomerUnknown": SHOP,
    "EmailAddressInvalid": SHOP,
    "Line": SHOP,
    "LinesInvalid": SHOP,
    "Money": SHOP,
    "PriceInvalid": SHOP,
    "Operation": "what a call asks for: the engine writes it into metadata and the barrier reads it; neither imports "
    "the other",
    "OrderUnknown": SHOP,
    "Settings": "each deployable's own settings; nobody imports those of two",
}
"""Names that several packages may use, and why."""


def types_in(tree: ast.Module) -> set[str]:
    """The classes of a module, and the names that it gives to types."""
    found = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name) and is_of_a_type(target.id)}
    return found


def is_of_a_type(name: str) -> bool:
    bare = name.lstrip("_")
    return bare[:1].isupper() and not bare.isupper() and "_" not in bare


def repeated(modules) -> dict[str, list[str]]:
    """The names that stand for types in several modules, with these modules."""
    owners: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        if "/src/" in module.path:
            for name in types_in(module.tree):
                owners[name].append(module.path)
    return {name: paths for name, paths in owners.items() if len(paths) > 1}


def test_no_type_is_called_like_another_one(modules):
    found = repeated(modules)
    assert {name: paths for name, paths in found.items() if name not in MAY_REPEAT} == {}
    assert set(MAY_REPEAT) - set(found) == set(), "an exception that is not needed any more"


def test_two_classes_of_one_name_are_found(module_of):
    one = module_of.parse("libs/a/src/a/x.py", "class Call:\n    pass\n\n\nMAX = 3\nDone: int = 4\n")
    other = module_of.parse("libs/b/src/b/y.py", "Call = tuple[int, str]\nMAX = 4\nDone = 5\n")
    test = module_of.parse("libs/b/tests/y.py", "class Call:\n    pass\n")
    assert repeated([one, test]) == {}
    assert repeated([one, other, test]) == {name: [one.path, other.path] for name in ("Call", "Done")}
