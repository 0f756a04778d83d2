"""Records and files that an interruption must not spoil; configurations that must not mix."""

import json

import pytest

from gradpaint.evaluation.records import Records, check_config, replace_file, write_text


def test_rows_are_found_again_and_replaced(tmp_path):
    path = tmp_path / "new" / "r.jsonl"
    records = Records(path, ("method", "name"))
    records.add({"method": "a", "name": "x", "value": 1})
    records.add({"method": "a", "name": "y", "value": float("inf")})
    records.add({"method": "a", "name": "x", "value": 3})
    again = Records(path, ("method", "name"))
    assert again.rows == records.rows and len(again.rows) == 2
    assert again.get("a", "x")["value"] == 3 and again.get("a", "y")["value"] == float("inf")
    assert again.get("b", "x") is None


def test_a_torn_line_is_passed_over_and_closed(tmp_path):
    path = tmp_path / "r.jsonl"
    Records(path, ("name",)).add({"name": "x"})
    path.write_text(path.read_text() + '{"name": "y", "va')
    records = Records(path, ("name",))
    assert set(records.rows) == {("x",)}
    records.add({"name": "z"})
    assert set(Records(path, ("name",)).rows) == {("x",), ("z",)}


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "t.md"
    write_text(path, "before")

    def fails(temporary):
        temporary.write_text("half of")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(path, fails)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_another_configuration_is_refused_and_named(tmp_path):
    path = tmp_path / "config.json"
    config = {"steps": 30, "settings": {"alpha": None, "schedule": {"fraction": 0.5}}, "size": (64, 64)}
    check_config(path, config)
    check_config(path, config)  # a tuple is a list in JSON
    other = {"steps": 50, "settings": {"alpha": None, "schedule": {"fraction": 0.4}, "strength": 1.0}, "size": (64, 64)}
    with pytest.raises(ValueError) as error:
        check_config(path, other)
    text = str(error.value)
    assert "steps was 30 and is now 50" in text and "settings.schedule.fraction was 0.5 and is now 0.4" in text
    assert "settings.strength was 'not set' and is now 1.0" in text and "alpha" not in text and "size" not in text
    assert json.loads(path.read_text())["steps"] == 30


def test_unreadable_configuration(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        check_config(tmp_path / "config.json", {})
