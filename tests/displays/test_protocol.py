"""What all displays share: scikit-learn's Display protocol, documentation, and no Matplotlib until they draw."""

import inspect
import sys

import pytest

import sktda.displays

pytestmark = pytest.mark.usefixtures("few_trees")

NAMES = sktda.displays.__all__


def methods(display):
    return [name for name in vars(display) if name.startswith("from_")]


@pytest.mark.parametrize("name", NAMES)
def test_the_protocol(name):
    display = getattr(sktda.displays, name)
    given = list(inspect.signature(display).parameters)
    made = display(**{each: object() for each in given})
    assert sorted(vars(made)) == sorted(given)  # the constructor only stores
    assert methods(display)
    assert inspect.signature(display.plot).parameters["ax"].default is None
    for method in ["plot", *methods(display)]:
        assert {"Parameters", "Returns"} <= set(inspect.getdoc(getattr(display, method)).splitlines())
    text = inspect.getdoc(display)
    assert all(f"\n{each}\n---" in text for each in ("Parameters", "Attributes", "Examples"))
    assert all(each in text for each in given)


@pytest.mark.parametrize("name", NAMES)
def test_without_matplotlib_the_error_says_so_before_anything_is_computed(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    display = getattr(sktda.displays, name)
    for method in methods(display):
        given = inspect.signature(getattr(display, method)).parameters.values()
        needed = [None for each in given if each.default is each.empty and each.kind is not each.VAR_KEYWORD]
        with pytest.raises(ImportError, match=rf"{name}\.{method} requires matplotlib"):
            getattr(display, method)(*needed)
    made = display(*[None for each in inspect.signature(display).parameters.values() if each.default is each.empty])
    with pytest.raises(ImportError, match=rf"{name}\.plot requires matplotlib"):
        made.plot()
