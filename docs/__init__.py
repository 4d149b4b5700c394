"""What the pages beside this file are written and held to by.

settings   writes settings.md from the service's settings: `python -m docs.settings`
check/     runs every command of the pages: `make docs-check`
"""
