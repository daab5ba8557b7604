"""Where Ollama's rules were read."""

from __future__ import annotations

from willfit.engines.sources import Sources

SOURCES = Sources(
    "Ollama",
    (
        "0.1.33", "0.1.45", "0.2.8", "0.3.14", "0.5.7", "0.6.8", "0.9.6", "0.11.10", "0.12.10", "0.13.5", "0.20.0",
        "0.24.0", "0.30.0", "0.32.15",
    ),
    {
        "estimate": [
            ((0,), "llm/memory.go: EstimateGPULayers"),
            ((0, 12, 11), "llm/server.go: llamaServer.Load"),
            ((0, 30), "llm/llama_server.go: PredictServerVRAM"),
        ],
        "sizes": [
            ((0,), "llm/ggml.go: GraphSize"),
            ((0, 5, 12), "fs/ggml/ggml.go: GraphSize"),
        ],
        "weights": [((0, 6), "ml/backend/ggml/ggml.go: New")],
        "keys and values": [((0, 6), "kvcache/causal.go: Init")],
        "states": [((0, 14, 3), "model/models/lfm2/cache.go"), ((0, 17, 1), "kvcache/recurrent.go")],
        "compute": [
            ((0, 6), "runner/ollamarunner/runner.go: processBatch"),
            ((0, 6, 6), "runner/ollamarunner/runner.go: reserveWorstCaseGraph"),
        ],
    },
)  # fmt: skip
