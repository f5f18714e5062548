"""The commands: each click function parses, calls one library function and shows the result.

May import every room; `cli.main` alone imports its modules, each when its command is called.
Entry point: `image.build` and each other function of a command's name.
"""
