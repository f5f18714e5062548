"""A template of somebody else: whatever it does takes seconds and megabytes, or is refused."""

from __future__ import annotations

import sys
from textwrap import dedent

import pytest

from imagebuilder.errors import SettingsError
from imagebuilder.plan.templates import compile_template
from tests.lib.tools import run

# Each would take hours or gigabytes.
HOSTILE = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a loop of text": "{% for a in range(99999) %}" + "x" * 999 + "{% endfor %}",
    "kept text": "{% set a %}{% for a in range(9999) %}" + "x" * 9999 + "{% endfor %}{% endset %}",
    "kept values": "{% set x = 'x' * 4000000 %}{% set a %}{% for a in range(9999) %}{{ x }}"
    "{% endfor %}{% endset %}",
    "doubling": "{% set n = namespace(x='xx') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}"
    "{% endfor %}",
    "adding": "{% set n = namespace(x='xx') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}"
    "{% endfor %}",
    "lists": "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}"
    "{% endfor %}",
    "squaring": "{% set n = namespace(x=99) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}"
    "{% endfor %}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "product": "{{ 'x' * 999999999 }}",
    "product of a list": "{{ [1] * 999999999 }}",
    "center": "{{ 'x' | center(999999999) }}",
    "method": "{{ 'x'.center(999999999) }}",
    "zeros": "{{ 'x'.zfill(999999999) }}",
    "replace": "{% set x = 'x' * 99999 %}{{ x | replace('x', x) }}",
    "method replace": "{% set x = 'x' * 99999 %}{{ x.replace('x', x) }}",
    "nothing replaced": "{% set x = 'x' * 99999 %}{{ x.replace('', x) }}",
    "join": "{% set x = 'x' * 99999 %}{{ range(99999) | join(x) }}",
    "method join": "{% set x = 'x' * 99999 %}{{ x.join(x) }}",
    "indent": "{{ ('x\n' * 99999) | indent(99999) }}",
    "format": "{{ '%999999999d' | format(1) }}",
    "percent": "{{ '%999999999d' % 1 }}",
    "star": "{{ '%*d' % (999999999, 1) }}",
    "method format": "{{ '{:999999999}'.format(1) }}",
    "nested format": "{{ '{:{}}'.format(1, 999999999) }}",
    "slices": "{{ [1] | slice(999999999) | list }}",
    "batch": "{{ [1] | batch(999999999, 1) | list }}",
    "range": "{{ range(999999999) | list }}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "no end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "recursive loops": "{% for i in range(9) recursive %}{% if loop.depth < 9 %}"
    "{{ loop(range(99999)) }}{% endif %}{% endfor %}",
    "searching": "{% set x = 'x' * 4000000 %}{% for i in range(99999) %}{% if x + 'y' in x %}"
    "{% endif %}{% endfor %}",
    "lorem": "{{ lipsum(n=999999999) }}",
    "tabs": "{{ ('\t' * 99999).expandtabs(99999) }}",
    "yaml": "{% set n = namespace(x=[1]) %}{% for i in range(40) %}{% set n.x = [n.x, n.x] %}"
    "{% endfor %}{{ n.x | yaml }}",
    "text of lists": "{% set n = namespace(x=[1]) %}{% for i in range(40) %}"
    "{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
}
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from imagebuilder.errors import SettingsError
from imagebuilder.plan import sandbox
from imagebuilder.plan.templates import compile_template
from tests.lib.memory import peak_memory
sandbox.MOST_SECONDS = 0.5
try:
    compile_template(sys.argv[1], "demo.j2").render({})
except SettingsError as error:
    assert "MemoryError" not in error.message, error.message
    print(error.message, "%d MiB" % (peak_memory() >> 20))
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_refused_in_little_time_and_memory(name: str) -> None:
    said = run(sys.executable, "-c", dedent(LIMITED), HOSTILE[name], timeout=60)
    assert said.startswith("demo.j2:")
    assert int(said.split()[-2]) < 400


HONEST = {
    "{% for i in range(3) %}{{ loop.index }}/{{ loop.length }} {% endfor %}": "1/3 2/3 3/3 ",
    "{% for k, v in [(1, 2)] %}{{ k }}{{ v }}{% endfor %}{% set a, b = 3, 4 %}{{ b }}": "124",
    "{{ {'a': [1, (2,)]} }}{{ [1] in [[1]] }}": "{'a': [1, (2,)]}True",
    "{{ 'a' ~ 1 ~ ('b' ~ [2] | join('-')) }}": "a1b2",
    "{{ 'x' * 3 + 'y' }} {{ 2 ** 10 }} {{ '%05d' % 7 }}": "xxxy 1024 00007",
    "{{ '{:>3}'.format('a') }}": "  a",
    "{% for k, v in {'a': 1}.items() recursive %}{{ k }}{{ v }}{% endfor %}": "a1",
    "{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m('a') }}{{ m('b') }}": "<a><b>",
    "{% set a %}{{ 'x' }}y{% endset %}{{ a | upper | center(6) }}": "  XY  ",
    "{% for a in [] %}{% else %}none{% endfor %}": "none",
    "{% for a in [1, 2, 3] if a is odd %}{{ a }}{% endfor %}": "13",
    "{{ [3, 1] | sort | map('string') | join(', ') }}": "1, 3",
    "{{ none }}{{ true }}{{ 1.5 }}": "NoneTrue1.5",
}  # fmt: skip


@pytest.mark.parametrize("source", HONEST)
def test_what_jinja2_does_stays_as_it_is(source: str) -> None:
    assert compile_template(source, "demo.j2").render({}) == HONEST[source]


def test_a_file_of_megabytes_is_rendered() -> None:
    text = compile_template("{% for i in range(30000) %}{{ i }}: x\n{% endfor %}", "x").render({})
    assert len(text) > 200_000


def test_a_value_that_is_not_there_is_still_an_error_inside_an_operator() -> None:
    for source in (
        "{{ 'a' ~ missing }}",
        "{{ missing + 1 }}",
        "{% for a in missing %}{% endfor %}",
    ):
        with pytest.raises(SettingsError, match="missing"):
            compile_template(source, "demo.j2").render({})
