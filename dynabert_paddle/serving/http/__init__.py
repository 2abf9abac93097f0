"""The HTTP server of `dynabert serve`; FastAPI, uvicorn and prometheus_client are imported here alone."""
