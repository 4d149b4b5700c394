"""How a bundle asks short queries: in which templates, and moved how far by what training showed of phrases.

choose  templates, and how strongly the memory acts, by held-out short queries
memory  what training shows of phrases
store   into a bundle, and on to the next
"""
