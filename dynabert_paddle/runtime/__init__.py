"""The process: threads, device, seeds, ranks, Paddle's versions, interruption, fresh interpreters."""
