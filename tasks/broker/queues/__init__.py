"""What Redis keeps of a queue: its lists, the ledger of its requests, their schedule, lanes and limits."""
