"""What a good card reports, for tests that write none."""

from __future__ import annotations

from imagebuilder.flash.writer import CardReport

REPORT = CardReport(
    digest="d",
    set_bytes=1,
    written_bytes=1,
    seconds=1.0,
    write_seconds=1.0,
    verified=True,
    ejected=False,
    table_reread=True,
)
