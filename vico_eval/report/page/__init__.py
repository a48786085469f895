"""The report as a page: a folder of static files that a browser opens without a server."""
