"""The command line: parse words, call one function, show the result.

May import every room; nothing imports it.
Entry point: `main.main`.
"""
