"""A run shown as one self-contained HTML page: collect its files, draw the charts, write the page."""
