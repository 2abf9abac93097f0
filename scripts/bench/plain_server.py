"""A bundle behind FastAPI as one writes it first: a route that calls a predictor, no batching, no queue.

`bench_serve.py` starts it to compare with: python plain_server.py BUNDLE SOCKET_DESCRIPTOR NUM_THREADS
"""

import socket
import sys

import uvicorn
from fastapi import Body, FastAPI

import dynabert_paddle as db


def main() -> None:
    """Serve until a signal comes."""
    bundle, descriptor, num_threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    predictor = db.Predictor(bundle, num_threads=num_threads)
    predictor(["warm-up"] * 8)
    app = FastAPI()

    @app.post("/predict")
    def predict(texts: list[str] = Body(embed=True)) -> dict:  # noqa: B008 - FastAPI's own form
        predictions = predictor(texts)
        return {"predictions": [{"label": one.label, "score": one.score} for one in predictions]}

    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    server.run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main()
