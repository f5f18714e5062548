"""Texts that some reader takes for more than a text."""

from __future__ import annotations

NASTY = (
    "{{ 7 * 7 }}", '{{ lookup("pipe", "id") }}', "{% for x in y %}", "{# note #}", "{{", "}}",
    "$(id)", "`id`", "${HOME}", "$HOME", "$$", "%h", "%%", "%{x}", "!unsafe x",
    "!ruby/object:X {}", "<script>alert(1)</script>", "</td><td>", "<!--", "&amp;", "&",
    '" onload="x', "' or '", "\\", "\\n", "\\\\", '"', "'", "''", '""', 'a\'b"c', ";id", "|id",
    "a|b", "&& id", "> /tmp/x", "*", "?", "[a-z]", "~", "~root", "-rf", "--help", "#comment",
    " # x", "a: b", "- a", "? x", "@x", "%YAML", "&anchor", "*alias", "no", "yes", "null", "~",
    "0123", "1e3", "2015-04-16", "12:30:45", "0x1f", "=1+1", "+1", "@SUM(1)", ",", "a,b", "a;b",
    "a=b", "a\\,b", "[x]", "{x}", "(x)", "line\\", ":", "Zoë", "日本語", "📶", "e\u0301", "\xa0x",
    "a\u200bb", "x" * 200, "C:\\x", "/etc/passwd", "..", "../..", "a/b", "con", "%00", "%0a",
    "\\x1b[2J", "\\u202e", "&#x3c;", "{{ '{{' }}", "#{x}", "<%= x %>", "$[x]", "$((1+1))", "!x",
    "^x", "x ", " x", "a  b", "\u2028x", "\ufeffx", "a\u0301\u0302", "%d", "%s",
)  # fmt: skip
