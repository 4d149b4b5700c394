"""The API's own description: /openapi.json, and what /docs shows.

description  what endpoints parse themselves, headers and refusals of every operation, keys
examples     requests and answers to try, from the release that is served
operations   what holds for every operation: keys, and the refusals of the edge
"""
