"""Whether a bundle may take another's place.

policy     floors, margins, parity and evidence, from a TOML file
evidence   whether a figure says enough, and what would do
gate       measures them and gives the verdict, which is written into the bundle
"""
