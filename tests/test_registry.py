from pathlib import Path
from typing import ClassVar, Literal

import pytest
from pydantic import Field, ValidationError

from mrt_pipeline.errors import InputError
from mrt_pipeline.registry import INCIDENTAL, Params, Registered, code_of, flatten, import_plugins


class Shape(Registered):
    kind: ClassVar[str] = "shape"
    builtin: ClassVar[dict[str, str]] = {"far": "mrt_pipeline.errors"}  # a module that registers nothing


class Sized(Shape):
    size: float = Field(default=1.0, gt=0)


class Circle(Sized):
    name: Literal["circle"] = "circle"
    colour: str = Field(default="red", json_schema_extra=INCIDENTAL)


class Picture(Params):
    shape: Shape
    others: tuple[Circle, ...] = ()
    places: dict[int, Path] = Field(default={1: Path()})
    title: str = Field(default="", json_schema_extra=INCIDENTAL)


def test_a_dictionary_becomes_the_member_of_its_name():
    picture = Picture.model_validate({"shape": {"name": "circle", "size": 2}})
    assert picture.shape == Circle(size=2) and isinstance(picture.shape, Circle)
    assert Picture(shape=Circle()).shape == Circle()
    assert Shape.model_validate({"name": "circle"}) == Circle()


@pytest.mark.parametrize(
    ("given", "place", "said"),
    [
        ({"name": "square"}, ("shape",), "unknown shape 'square'; known are circle, far"),
        ({"size": 1}, ("shape",), "the shape has no name; known are circle, far"),
        ({"name": "far"}, ("shape",), "unknown shape 'far'"),
        ({"name": "circle", "size": -1}, ("shape", "size"), "greater than 0"),
        ({"name": "circle", "sise": 1}, ("shape", "sise"), "not permitted"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_stands(given, place, said):
    with pytest.raises(ValidationError, match=said) as refused:
        Picture.model_validate({"shape": given})
    assert refused.value.errors()[0]["loc"] == place


def test_members_and_names():
    assert Shape.member("circle") is Circle and Shape.names() == ["circle", "far"]
    with pytest.raises(InputError, match="known are circle, far"):
        Shape.member("square")


def test_a_name_belongs_to_one_class():
    for taken in ("circle", "far"):  # defined here, and a member that ships
        with pytest.raises(InputError, match=f"defines a shape '{taken}', but there is one"):
            type("Another", (Shape,), {"__annotations__": {"name": Literal[taken]}, "name": taken, "__module__": "m"})
    assert Shape.member("circle") is Circle


def test_what_others_define_decides_by_its_file_too(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "a_shape_of_others.py"
    before = None
    for text in ("# one", "# two"):
        file.write_text(f"from test_registry import *\n{text}\n")
        digest = code_of("a_shape_of_others")
        assert digest != before and digest == code_of("a_shape_of_others")
        before = digest
    assert code_of("nothing_of_this_name") == "nothing_of_this_name"
    assert Circle().deciding()["code"] == code_of(__name__)


def test_what_decides_leaves_out_what_is_incidental_at_every_depth():
    picture = Picture(shape=Circle(colour="blue"), others=(Circle(size=3),), title="A circle")
    code = code_of(__name__)
    assert picture.deciding() == {
        "shape": {"name": "circle", "size": 1.0, "code": code},
        "others": [{"name": "circle", "size": 3.0, "code": code}],
        "places": {"1": "."},
    }


def test_values_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        Circle().size = 2


def test_plugins_of_the_working_directory_are_found_and_others_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_plugin_for_this_test.py").write_text("found = True\n")
    import_plugins(["a_plugin_for_this_test"])
    for text, said in (("import nothing_of_this_name", "No module named"), ("x = ", "SyntaxError"), ("y", "NameError")):
        (tmp_path / "a_broken_plugin.py").write_text(text + "\n")
        with pytest.raises(InputError, match=f"plugin 'a_broken_plugin' cannot be imported: .*{said}"):
            import_plugins(["a_broken_plugin"])


def test_flatten_joins_nested_keys():
    assert flatten({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}
