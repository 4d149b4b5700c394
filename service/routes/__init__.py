"""Thin endpoints: parse, call, answer. One module a part of the API.

embed         /embed/image and /embed/text
openai        /v1/embeddings and /v1/models: OpenAI's shape
search        /search/text, /search/image, /search/vector, /search/item
search_batch  /search/batch
gallery       /fields, and what is read of an item: /items/{id}, /images/{id}
items         what is changed: PUT and DELETE /items/{id}, /items/batch
duplicates    /duplicates
image_pass    /images/pass: the page's cookie for images
operation     /healthz, /readyz, /metrics, /release, /release/reload, /drift
parts         what they share; search_requests: what they search for, run on the search thread
"""
