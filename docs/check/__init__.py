"""Run every command of the READMEs and of docs/*.md in a fresh clone, as it is written.

    blocks    a page to its fenced blocks, and what is marked on them
    names     commands of ours that a page names: are there such, with such options?
    clone     the fresh clone, and what a reader would have: some images, a file or two
    script    a page's blocks to one bash script, servers started, waited for and ended
    __main__  all of it: `make docs-check`, or `.venv/bin/python -m docs.check docs/api.md` for one

What a page says to bash stands in a block of the language `sh`, and is run. A comment on the line before it
says otherwise, and always why; all that is not run is counted and named at the end:

    <!-- not run: REASON -->    what a machine lacks: Docker, a download, data given on request
    <!-- long: REASON -->       takes minutes: run with `make docs-check LONG=1`
    <!-- file: NAME -->         the block is a file, written before the commands below it run
    <!-- before: COMMAND -->    what the page takes for granted: run, and not shown; `down` ends the server

Blocks of other languages are not run; tests/service/test_api_docs.py runs those of Python.
"""
