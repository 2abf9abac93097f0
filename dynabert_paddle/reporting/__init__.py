"""A run shown as one self-contained HTML page: read what is there, draw it, write it."""
