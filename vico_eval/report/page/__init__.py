"""The report as a web page: a folder of static files that opens in a browser without a server."""
