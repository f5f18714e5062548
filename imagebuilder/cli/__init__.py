"""The command line: parse words, call one function, show the result.

May import everything; nothing imports it.
Entry point: `main.main`.
"""
