"""Whether a bundle may take another's place.

policy     floors, margins and parity, from a TOML file
gate       measures them and gives the verdict, which is written into the bundle
command    python -m training gate
"""
