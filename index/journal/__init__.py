"""Changes of a gallery between two rebuilds: a journal beside the releases, in SQLite, and the images that came
with it.

changes    an upsert, a delete, what is committed together; a change's row
journal    writing: one process at a time, durable
snapshot   reading: one state of it, also while it is written
replay     the changes applied to the gallery of a rebuild
images     the files of images, and their thumbnails
answers    what was answered to requests with an idempotency key
database   the SQLite file: its tables, its checks, its failures
location   where it all lies: the lock, the last acknowledged number, whether files are still in place
upkeep     nothing dead stays on the disk; reserve: room kept for deletes
"""
