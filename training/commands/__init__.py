"""The commands of `python -m training`, one module each: options, progress, tables, exit statuses."""
