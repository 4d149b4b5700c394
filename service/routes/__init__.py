"""Thin endpoints: parse, call, answer. One module a part of API.md."""
