"""The node texts in English are the schemas', and Chinese and French have all of them: complete, translated, intact.

What the frontend makes of it: vue-i18n messages, in which braces, @ and | have a meaning of their own.
"""

import importlib.util
import json
import re

import pytest
from in_host import PACK_ROOT

LANGUAGES = ("zh", "fr")
# The same in French: names of models' parameters, and words that are.
SAME = {
    "alpha",
    "cfg",
    "fraction",
    "gradient",
    "gradients",
    "image",
    "IMAGE",
    "lambda_al",
    "LATENT",
    "Latent",
    "maximum",
    "minimum",
    "mode",
    "multiple",
    "original",
    "patience",
    "position",
    "type",
    "vae",
    "VAE",
    "zeta",
    "GradPaint KSampler",
}
CHINESE = re.compile("[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def locales():
    spec = importlib.util.spec_from_file_location("gradpaint_locales", PACK_ROOT / "scripts" / "locales.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def schemas(pack_nodes) -> list:
    return [node.GET_SCHEMA() for node in pack_nodes.values()]


@pytest.fixture(scope="module")
def english(locales, schemas) -> dict:
    return locales.catalogue(schemas)


@pytest.fixture(params=LANGUAGES)
def translated(request, locales) -> dict:
    return locales.texts(locales.load(request.param))


def test_english_is_the_schemas(locales, english):
    now, written = locales.texts(english), locales.texts(locales.load("en"))
    differing = sorted(".".join(path) for path in now.keys() | written.keys() if now.get(path) != written.get(path))
    assert differing == [], "run `python scripts/locales.py`, and translate in locales/zh and locales/fr what it names"


def test_every_node_input_and_output_has_a_text(locales, english):
    assert [".".join(path) for path, text in locales.texts(english).items() if not text] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_are_complete(locales, english, language):
    assert locales.gaps(english, locales.load(language)) == []


def test_translations_are_translations(locales, english, translated):
    for path, text in locales.texts(english).items():
        if text not in SAME:
            assert translated[path] != text, f"{'.'.join(path)} is still English: {text}"


def test_chinese_is_chinese(locales):
    for path, text in locales.texts(locales.load("zh")).items():
        assert CHINESE.search(text) or text in SAME, f"{'.'.join(path)}: {text}"


def test_names_and_numbers_survive_translation(locales, english, translated):
    """Identifiers with underscores, what stands in backticks, file endings and numbers: literally in every language."""
    literal = re.compile(r"`[^`]+`|\b[a-z0-9]+_[a-z0-9_]*[a-z0-9]\b|\.(?:safetensors|pth?)\b|(?<![\w.])\d+(?:\.\d+)?%?")
    for path, text in locales.texts(english).items():
        if path[-1] != "name":
            lost = [part for part in literal.findall(text) if part not in translated[path]]
            assert lost == [], f"{'.'.join(path)}: {lost} not in {translated[path]!r}"


def test_choices_that_a_tooltip_explains_keep_their_names(locales, schemas, translated):
    for schema in schemas:
        for given in schema.inputs:
            for choice in getattr(given, "options", None) or []:
                explained = re.search(rf"(?:^|\. |, |\n){re.escape(str(choice))}(?=[:,])", given.tooltip)
                tooltip = translated[schema.node_id, "inputs", given.id, "tooltip"]
                assert not explained or str(choice) in tooltip, f"{schema.node_id} {given.id}: {choice!r}: {tooltip!r}"


def test_nothing_that_the_frontend_takes_for_its_syntax(locales):
    for language in ("en", *LANGUAGES):
        for path, text in locales.texts(locales.load(language)).items():
            assert not set("{}@|") & set(text), f"{language} {'.'.join(path)}: {text}"


def test_socket_types_have_names_in_every_language(locales, schemas):
    types = {given.io_type for schema in schemas for given in (*schema.inputs, *schema.outputs)}
    ours = sorted(name for name in types if name.startswith("GRADPAINT_"))
    for language in ("en", *LANGUAGES):
        assert sorted(locales.load(language, "main")["dataTypes"]) == ours


@pytest.mark.slow
def test_the_server_hands_them_on(server, locales):
    served = json.loads(server.get("/i18n"))
    for language in ("en", *LANGUAGES):
        assert served[language]["nodeDefs"] == locales.load(language)
        assert served[language]["dataTypes"] == locales.load(language, "main")["dataTypes"]
