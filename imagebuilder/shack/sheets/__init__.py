"""Sheets of labels for the cards, as HTML for the screen and as PDF in real size.

May import what `shack` may.
Entry point: `labels.write_labels`.
"""
